// Step 2: the host's base models by family, what the chosen one is, and values to begin with.
"use strict";

(() => {
    const lt = (window.loraTrainer = window.loraTrainer || {});
    const AGAIN_MS = 400; // between two looks at a list of which some files are still to be read
    const ALWAYS = ["sd15", "sdxl", "flux"];
    const state = {models: [], loaded: "", reading: 0, come: false, family: "", search: "", stranger: null};

    (lt.panels = lt.panels || {}).model = (element) => {
        const parts = {
            families: lt.make("div.segments"),
            search: lt.make("input.grow", {
                type: "search",
                id: "lora_trainer_model_search",
                placeholder: lt.say("Search the base models"),
                oninput: () => {
                    state.search = parts.search.value.trim().toLowerCase();
                    drawList(parts);
                },
            }),
            refresh: lt.make("button", {
                id: "lora_trainer_model_refresh",
                title: lt.say("Look into the folders of base models again"),
                onclick: () => lt.run(parts.refresh, () => {
                    told = "";
                    return load("?refresh=1");
                }),
            }, lt.say("Refresh")),
            list: lt.make("div.models", {role: "listbox", "aria-label": lt.say("Base models"), onkeydown: moved}),
            details: lt.make("div", {id: "lora_trainer_model_details", "aria-live": "polite"}),
            presets: lt.make("div"),
        };
        const above = lt.make("div.row", {}, parts.families, parts.search, parts.refresh);
        element.append(above, parts.list, parts.details, parts.presets);
        state.parts = parts;
        draw();
        load().catch((error) => lt.fault(parts.refresh, error));
        drawPresets(parts.presets).catch((error) => lt.fault(parts.presets, error));
    };

    /** Asks for the list, and again until every file in it has been read. */
    const load = async (query = "") => {
        const {models, loaded, reading} = await lt.ask("GET", `models${query}`);
        Object.assign(state, {models, loaded, reading, come: true});
        preselect();
        draw();
        lt.tell("models", {models, loaded, reading});
        if (reading) setTimeout(() => load().catch(() => {}), AGAIN_MS);
    };

    /** Where no base is chosen yet: the one that the host makes pictures with, or the only one. */
    const preselect = () => {
        if (lt.form.value("base_model")) return;
        const trainable = state.models.filter((model) => model.trainable);
        const loaded = state.models.find((model) => model.name === state.loaded && (model.trainable || !model.known));
        const only = trainable.length === 1 && !state.reading ? trainable[0] : null;
        if (loaded || only) lt.form.set({base_model: (loaded || only).name});
    };

    const chosen = () => {
        const named = lt.form.value("base_model");
        return named ? state.models.find((model) => model.name === named || model.file === named) : undefined;
    };

    /** Seen at once; the form comes after, as gradio takes its time to fill one. */
    const choose = (model) => {
        mark(model);
        setTimeout(() => lt.form.set({base_model: model.name}));
    };

    const mark = (model) => {
        for (const each of state.parts ? state.parts.list.querySelectorAll("button") : []) {
            const is = model !== undefined && each.dataset.name === model.name;
            each.classList.toggle("lora-trainer-chosen", is);
            each.setAttribute("aria-selected", String(is));
        }
    };

    const draw = () => {
        if (!state.parts) return;
        drawFamilies(state.parts);
        drawList(state.parts);
        drawDetails(state.parts);
    };

    // ---- the list

    const drawFamilies = (parts) => {
        const count = (family) => state.models.filter((model) => model.family === family).length;
        const shown = Object.keys(lt.families).filter((family) => ALWAYS.includes(family) || count(family));
        const other = state.models.filter((model) => model.known && !model.family).length;
        const button = (family, title, number) => lt.make("button.segment", {
            "aria-pressed": String(state.family === family),
            dataset: {family},
            onclick: () => {
                state.family = family;
                draw();
            },
        }, `${title} (${number})`);
        parts.families.replaceChildren(
            button("", lt.say("All"), state.models.length),
            ...shown.map((family) => button(family, lt.families[family], count(family))),
            ...(other ? [button("other", lt.say("Other"), other)] : []),
        );
    };

    const drawList = (parts) => {
        const found = state.models.filter((model) => ofFamily(model) && fits(model.name));
        const scrolled = parts.list.scrollTop;
        const focused = parts.list.contains(document.activeElement) && document.activeElement.dataset.name;
        parts.list.replaceChildren(...(found.length ? found.map(row) : [nothing()]));
        mark(chosen());
        parts.list.scrollTop = scrolled;
        if (focused) [...parts.list.children].find((each) => each.dataset.name === focused)?.focus();
    };

    const fits = (name) => name.toLowerCase().includes(state.search);

    const ofFamily = ({family, known}) => {
        if (!state.family) return true;
        return state.family === "other" ? known && !family : family === state.family;
    };

    const nothing = () => {
        if (state.models.length) return lt.make("p.empty", {}, lt.say("No base model fits the search."));
        return lt.make("p.empty", {}, state.come
            ? lt.say("No base models yet. Put a checkpoint into the folder of base models, then press Refresh.")
            : lt.say("The base models are being looked for."));
    };

    const row = (model) => lt.make(
        model.known && !model.trainable ? "button.model.unfit" : "button.model",
        {
            role: "option",
            title: model.problem ? lt.sentence(model.problem) : model.name,
            dataset: {name: model.name},
            onclick: () => choose(model),
        },
        lt.make("span.grow.cut", {}, model.name),
        model.name === state.loaded && lt.make("span.badge.good", {}, lt.say("loaded")),
        model.prediction_type === "v" && lt.make("span.badge", {}, "v-pred"),
        model.variant && lt.make("span.badge", {}, model.variant),
        lt.make("span.badge", {}, lt.families[model.family] || (model.known ? lt.say("no base model") : "…")),
        lt.make("span.number.hint", {}, gigabytes(model.size_bytes)),
    );

    /** Arrows move through the list; Enter and Space choose, as they do on any button. */
    const moved = (event) => {
        const step = {ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling"}[event.key];
        const next = step && document.activeElement[step];
        if (!next) return;
        event.preventDefault();
        next.focus();
    };

    // ---- the chosen one

    const drawDetails = (parts) => {
        const named = lt.form.value("base_model");
        const model = chosen() || (state.stranger && state.stranger.name === named ? state.stranger : null);
        if (model && !model.known) readNow(model);
        if (model) parts.details.replaceChildren(about(model));
        else parts.details.replaceChildren(...(named ? [] : [hint(lt.say("Choose the base model to train on."))]));
        tell(model);
    };

    /** The base model that is chosen, once it is known what it is, and a base at all; else null. */
    lt.base = null;

    let told = "";

    const tell = (model) => {
        lt.base = model && model.trainable ? model : null;
        const now = lt.base ? `${model.file} ${model.modified}` : "";
        if (now === told) return;
        told = now;
        lt.tell("base");
    };

    /** The chosen one is looked at before its turn. */
    const readNow = async (model) => {
        if (model.asked) return;
        model.asked = true;
        try {
            Object.assign(model, await lt.ask("GET", `models/details?name=${encodeURIComponent(model.name)}`));
        } catch (error) {
            if (!(error instanceof lt.Trouble)) throw error;
            Object.assign(model, {known: true, failed: error.message});
        }
        draw();
    };

    const hint = (text) => lt.make("p.hint", {}, text);

    const about = (model) => {
        if (model.failed) return lt.make("p.problem", {}, model.failed);
        if (!model.known) return hint(lt.say("{name} is being read.", {name: model.name}));
        const facts = [
            [lt.say("Family"), lt.families[model.family] || "–"],
            [lt.say("Variant"), model.variant],
            [lt.say("Prediction type"), prediction(model)],
            [lt.say("File size"), gigabytes(model.size_bytes)],
            [lt.say("Precision"), model.precision],
            [lt.say("Parameters"), model.parameters && lt.say("{count} million", {count: millions(model.parameters)})],
            [lt.say("Hash (SHA-256)"), hash(model)],
            [lt.say("File"), model.file],
        ].filter(([, fact]) => fact);
        const where = (model.reasons || []).map((reason) => lt.make("li", {}, lt.say(reason)));
        const source = lt.make("summary", {}, lt.say("Where that was read from"));
        return lt.make(
            "div.box", {},
            lt.make("div.title", {}, model.title || model.name),
            !model.trainable && lt.make("p.problem", {}, unfit(model), " ", remedy(model)),
            lt.make("dl.facts", {}, facts.map(([name, fact]) => [lt.make("dt", {}, name), lt.make("dd", {}, fact)])),
            where.length > 0 && lt.make("details.fold", {}, source, lt.make("ul.reasons", {}, where)),
        );
    };

    const unfit = ({problem, kind}) => (problem ? lt.sentence(problem) : lt.say("It is {what}.", {what: lt.say(kind)}));

    const remedy = (model) => model.remedy && lt.make("span.remedy", {}, lt.say(model.remedy));

    const prediction = (model) => {
        const said = {
            v: lt.say("v prediction"),
            epsilon: lt.say("epsilon (noise)"),
            flow: lt.say("flow matching"),
        }[model.prediction_type];
        return said && model.zero_terminal_snr ? lt.say("{type}, zero terminal SNR", {type: said}) : said;
    };

    const hash = (model) => {
        if (model.hash) return lt.make("code", {}, model.hash);
        const button = lt.make("button.small", {
            title: lt.say("Reads the whole file, which takes a while"),
            onclick: () => lt.run(button, async () => {
                model.hash = (await lt.ask("GET", `models/hash?name=${encodeURIComponent(model.name)}`)).sha256;
                draw();
            }),
        }, lt.say("Compute the hash"));
        return button;
    };

    const gigabytes = (bytes) => (bytes >= 1e8 ? `${(bytes / 1e9).toFixed(2)} GB` : `${(bytes / 1e6).toFixed(1)} MB`);
    const millions = (count) => (count >= 1e7 ? Math.round(count / 1e6).toLocaleString() : (count / 1e6).toFixed(1));

    /** A path that was typed and is none of the host's models is looked at, too. */
    let timer = 0;
    lt.on("form", ({name, value}) => {
        if (name !== "base_model" || !state.parts) return;
        mark(chosen());
        drawDetails(state.parts);
        clearTimeout(timer);
        if (!value || chosen()) return;
        timer = setTimeout(async () => {
            try {
                state.stranger = await lt.ask("GET", `models/details?name=${encodeURIComponent(value)}`);
            } catch (error) {
                if (!(error instanceof lt.Trouble)) throw error;
                state.stranger = {name: value, failed: error.message};
            }
            draw();
        }, AGAIN_MS);
    });

    // ---- values to begin with

    const BASES = {
        sd15: "SD1.5", sdxl: "SDXL", pony: "Pony", illustrious: "Illustrious", noobai: "NoobAI v-pred", flux: "Flux",
    };

    const drawPresets = async (place) => {
        const {presets} = await lt.ask("GET", "config/presets");
        const subjects = {character: lt.say("A character"), style: lt.say("A style"), concept: lt.say("A concept")};
        const base = lt.make("select", {id: "lora_trainer_preset_base", "aria-label": lt.say("Kind of base model")},
            Object.entries(BASES).map(([value, title]) => lt.make("option", {value}, title)));
        const learned = lt.say("What is to be learned");
        const subject = lt.make("select", {id: "lora_trainer_preset_subject", "aria-label": learned},
            Object.entries(subjects).map(([value, title]) => lt.make("option", {value}, title)));
        const table = lt.make("div.scroll");
        const wanted = () => presets.find(({name}) => name === `${base.value}/${subject.value}`);
        const show = () => table.replaceChildren(reasons(wanted()));
        const fill = lt.make("button", {id: "lora_trainer_preset_fill", onclick: () => {
            const before = lt.form.all();
            const {form} = wanted();
            lt.form.set(form);
            show();
            const kept = Object.fromEntries(Object.keys(form).map((name) => [name, before[name]]));
            lt.toast(lt.say("The form has these values."), {verb: lt.say("Undo"), act: () => lt.form.set(kept)});
        }}, lt.say("Fill in these values"));
        base.onchange = subject.onchange = show;
        const suggest = () => {
            base.value = suggested(chosen()) || base.value;
            show();
        };
        lt.on("models", suggest);
        lt.on("form", ({name}) => (name === "base_model" ? suggest() : name in wanted().form && show()));
        suggest();
        place.replaceChildren(lt.make(
            "details.fold", {},
            lt.make("summary", {}, lt.say("Values to begin with, by base model and subject")),
            lt.make("div.column", {}, lt.make("div.row", {}, base, subject, fill), table),
        ));
    };

    /** The kind of base that a model is, by its family, its prediction type and its name. */
    const suggested = (model) => {
        if (!model || !model.trainable) return "";
        if (model.family !== "sdxl") return model.family in BASES ? model.family : "";
        const name = `${model.name} ${model.title}`.toLowerCase();
        if (name.includes("noob") && model.prediction_type === "v") return "noobai";
        if (/illustrious|noob|\bil\b/.test(name)) return "illustrious";
        return /pony|\bpdxl\b/.test(name) ? "pony" : "sdxl";
    };

    const reasons = ({form, reasons: why, labels}) => {
        const cell = (name) => {
            const value = form[name];
            const text = lt.say(typeof value === "boolean" ? (value ? "on" : "off") : String(value));
            const same = JSON.stringify(lt.form.value(name)) === JSON.stringify(value);
            const title = same ? lt.say("The form has this value already") : "";
            return lt.make(same ? "td" : "td.strong", {title}, text);
        };
        return lt.make("table.table.preset", {}, Object.keys(form).map((name) => lt.make(
            "tr", {dataset: {setting: name}},
            lt.make("td", {}, lt.say(labels[name])), cell(name), lt.make("td.hint", {}, lt.say(why[name])),
        )));
    };
})();
