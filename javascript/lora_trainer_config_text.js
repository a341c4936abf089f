// The whole form as text: put in order, checked line by line, given to the form, and exchanged with other programs.
"use strict";

(() => {
    const lt = (window.loraTrainer = window.loraTrainer || {});
    const PAUSE_MS = 400; // after the last change of the form
    const MOST_OF_LORA = 20e6; // bytes of a LoRA's header, which is all that is sent of it

    (lt.panels = lt.panels || {}).config_text = (element) => {
        const panel = editor();
        const hint = lt.say("What the form holds, as TOML. Change it here, and give it back to the form.");
        element.append(
            lt.make("p.hint", {}, hint), panel.buttons, panel.place, panel.report, panel.found, panel.area,
        );
        const refresh = () => panel.visible() && !panel.edited && panel.fromForm().catch(panel.trouble);
        let timer = 0;
        const follow = () => {
            clearTimeout(timer);
            timer = setTimeout(refresh, PAUSE_MS);
        };
        lt.on("form", follow);
        lt.on("dataset", follow);
        new IntersectionObserver(([entry]) => entry.isIntersecting && follow()).observe(element);
    };

    const editor = () => {
        const panel = {edited: false};
        const text = lt.make("textarea", {
            id: "lora_trainer_config_area",
            spellcheck: false,
            wrap: "off",
            rows: 24,
            "aria-label": lt.say("Config as text"),
            oninput: () => panel.edit(true),
            onscroll: () => (panel.gutter.scrollTop = text.scrollTop),
            ondragover: (event) => event.preventDefault(),
            ondrop: (event) => {
                if (!event.dataTransfer.files.length) return;
                event.preventDefault();
                lt.run(panel.importing, () => panel.importFiles([...event.dataTransfer.files]));
            },
        });
        panel.gutter = lt.make("pre", {"aria-hidden": "true"});
        panel.area = lt.make("div.config-editor", {}, panel.gutter, text);
        panel.found = lt.make("ul.problems", {id: "lora_trainer_config_found", "aria-live": "polite"});
        panel.report = lt.make("div.column", {id: "lora_trainer_config_report"});
        panel.place = lt.make("div");
        panel.state = lt.make("span.badge");
        panel.visible = () => text.offsetParent !== null;

        panel.edit = (edited) => {
            panel.edited = edited;
            panel.state.textContent = edited ? lt.say("changed, not in the form yet") : lt.say("as in the form");
            panel.state.classList.toggle("lora-trainer-warn", edited);
            number();
        };

        /** Puts a text there, and what is wrong with its lines beside it. */
        panel.show = (content, edited, problems = [], notices = []) => {
            if (text.value !== content) text.value = content;
            panel.edit(edited);
            number(problems.map(({line}) => line));
            const lines = [...problems.map(entry("problem")), ...notices.map(entry("warning"))];
            panel.found.replaceChildren(...lines);
        };

        panel.trouble = (error) => {
            if (!(error instanceof lt.Trouble)) throw error;
            panel.found.replaceChildren(...error.problems.map((each) => entry("problem")({line: null, ...each})));
            if (!error.problems.length) panel.found.replaceChildren(lt.make("li.problem", {}, error.message));
        };

        panel.fromForm = async () => {
            const found = await lt.ask("POST", "config/text", {form: lt.form.all()});
            if (found.text !== text.value) panel.show(found.text, false);
            else panel.edit(false);
        };

        panel.reload = async () => {
            panel.found.replaceChildren();
            panel.report.replaceChildren();
            await panel.fromForm();
        };

        panel.format = async () => {
            const found = await lt.ask("POST", "config/format", {text: text.value, dataset: lt.dataset});
            const before = text.value;
            panel.show(found.text, panel.edited || found.text !== before, found.problems, found.notices);
            if (!found.problems.length && !found.notices.length) panel.found.replaceChildren(fine());
            return found;
        };

        /** The form gets what the text says; unless it can't be read: then the problems are shown. */
        panel.apply = async () => {
            const {form} = await panel.format();
            if (!form) return;
            const before = lt.form.all();
            lt.form.set({subsets: [], ...form});
            panel.edit(false);
            lt.toast(lt.say("The form has the values of the text."), {
                verb: lt.say("Undo"),
                act: () => lt.form.set({subsets: [], ...before}),
            });
        };

        panel.importFiles = async (files, preset) => {
            const sent = await Promise.all(files.map(encoded));
            const body = {files: sent, ...(preset === undefined ? {} : {preset})};
            const found = await lt.ask("POST", "config/import", body);
            if (found.presets) {
                const again = (name) => panel.importFiles(files, name);
                panel.place.replaceChildren(chooser(found.presets, again));
                return;
            }
            panel.place.replaceChildren();
            panel.found.replaceChildren();
            panel.show(found.text, true);
            panel.report.replaceChildren(report(lt.say("Read from {names}", {names: names(files)}), found.report));
            panel.report.scrollIntoView({block: "nearest"});
        };

        panel.exportFiles = async () => {
            panel.report.replaceChildren();
            panel.found.replaceChildren();
            const {files, command, report: told} = await lt.ask("POST", "config/export", {form: lt.form.all()});
            const links = Object.entries(files).map(([name, content]) => link(name, content));
            panel.report.replaceChildren(
                lt.make("div.box", {},
                    lt.make("p", {}, lt.say("Put these files into the folder of sd-scripts, and start it there:")),
                    lt.make("div.row", {}, links),
                    lt.make("pre.code", {}, command)),
                report(lt.say("Written for sd-scripts"), told),
            );
        };

        /** The text where it was changed; else the form with the paths that the command line needs. */
        panel.download = async () => {
            const body = {form: lt.form.all(), whole: true};
            const content = panel.edited ? text.value : (await lt.ask("POST", "config/text", body)).text;
            link(`${lt.form.value("output_name") || lt.dataset || "lora"}.toml`, content).click();
        };

        panel.goTo = (line) => {
            const lines = text.value.split("\n");
            const start = lines.slice(0, line - 1).join("\n").length + (line > 1 ? 1 : 0);
            text.focus();
            text.setSelectionRange(start, start + lines[line - 1].length);
            text.scrollTop = Math.max(0, (text.scrollHeight / lines.length) * (line - 1) - text.clientHeight / 2);
            text.scrollLeft = 0;
        };

        const number = (marked = []) => {
            const count = text.value.split("\n").length;
            panel.gutter.replaceChildren(...Array.from({length: count}, (_, i) => lt.make(
                marked.includes(i + 1) ? "span.bad" : "span", {}, `${i + 1}\n`,
            )));
            panel.gutter.scrollTop = text.scrollTop;
        };

        const entry = (kind) => ({line, setting, value, problem, remedy}) => {
            const named = setting === "config" ? "" : setting;
            const shown = value === null || value === undefined ? named : `${named} = ${short(value)}`;
            const act = {onclick: () => panel.goTo(line)};
            const place = line && lt.make("button.small", act, lt.say("Line {line}", {line}));
            const words = [shown && [lt.make("code", {}, shown), ": "], lt.sentence(problem)];
            const advice = remedy && lt.make("span.remedy", {}, lt.sentence(remedy));
            return lt.make(`li.${kind}.config-found`, {}, place, lt.make("div.grow", {}, words, advice));
        };

        panel.buttons = buttons(panel);
        panel.edit(false);
        return panel;
    };

    const buttons = (panel) => {
        const doing = (id, words, act, kind = "button") => {
            const button = lt.make(kind, {id: `lora_trainer_config_${id}`, onclick: () => lt.run(button, act)}, words);
            return button;
        };
        const guarded = (act) => () => act().catch(panel.trouble);
        const files = lt.make("input", {
            type: "file",
            multiple: true,
            hidden: true,
            accept: ".toml,.json,.bat,.ps1,.sh,.txt,.safetensors",
            id: "lora_trainer_config_files",
            onchange: () => {
                const chosen = [...files.files];
                files.value = "";
                if (chosen.length) lt.run(panel.importing, () => panel.importFiles(chosen));
            },
        });
        panel.importing = lt.make("button", {
            id: "lora_trainer_config_import",
            title: lt.say("Of sd-scripts, kohya_ss, AWS, or a LoRA; files that belong together may be chosen together"),
            onclick: () => files.click(),
        }, lt.say("Import files"));
        return lt.make(
            "div.row", {},
            doing("format", lt.say("Format"), guarded(panel.format)),
            doing("apply", lt.say("Apply to the form"), guarded(panel.apply), "button.primary"),
            doing("reload", lt.say("Take from the form"), guarded(panel.reload)),
            panel.importing, files,
            doing("download", lt.say("Download TOML"), guarded(panel.download)),
            doing("export", lt.say("Export for sd-scripts"), guarded(panel.exportFiles)),
            panel.state,
        );
    };

    /** A file as the server takes it. Of a LoRA, which may be large, only its header is sent. */
    const encoded = async (file) => {
        let content = file;
        if (file.name.toLowerCase().endsWith(".safetensors")) {
            const length = new DataView(await file.slice(0, 8).arrayBuffer());
            const header = length.byteLength < 8 ? 0 : Number(length.getBigUint64(0, true));
            content = file.slice(0, Math.min(8 + header, MOST_OF_LORA));
        }
        const read = await new Promise((resolve, reject) => {
            const reader = new FileReader();
            reader.onload = () => resolve(reader.result);
            reader.onerror = () => reject(new lt.Trouble(lt.say("{name} can't be read.", {name: file.name})));
            reader.readAsDataURL(content);
        });
        return {name: file.name, base64: read.slice(read.indexOf(",") + 1)};
    };

    /** Which one of a file's presets. */
    const chooser = (presets, act) => {
        const select = lt.make("select", {id: "lora_trainer_config_presets", "aria-label": lt.say("Preset")},
            presets.map((name) => lt.make("option", {value: name}, name)));
        const button = lt.make("button.primary", {
            id: "lora_trainer_config_preset",
            onclick: () => lt.run(button, () => act(select.value)),
        }, lt.say("Import this preset"));
        return lt.make("div.row", {}, lt.make("span", {}, lt.say("The file holds several presets:")), select, button);
    };

    /** What became of each value: folded, but what was not taken over as it was. */
    const report = (title, {taken, changed, unsupported, left}) => {
        const parts = [
            [lt.say("Not supported"), unsupported, true],
            [lt.say("Taken over with a change"), changed, true],
            [lt.say("Taken over"), taken, false],
            [lt.say("Left at its default or without effect"), left.map((source) => ({source})), false],
        ].filter(([, lines]) => lines.length);
        return lt.make("div.box", {}, lt.make("div.title", {}, title), parts.map(([words, lines, open]) => lt.make(
            "details.fold", {open},
            lt.make("summary", {}, `${words} (${lines.length})`),
            lt.make("ul.config-report", {}, grouped(lines).map(line)),
        )));
    };

    /** What was not there before, and is so for one and the same reason, is told in one line. */
    const grouped = (lines) => {
        const groups = new Map();
        for (const each of lines) {
            const key = each.source || !each.reason ? each : each.reason;
            const group = groups.get(key);
            groups.set(key, group ? {...group, result: `${group.result}, ${each.result}`} : each);
        }
        return [...groups.values()];
    };

    const line = ({source, result, reason}) => lt.make(
        "li", {},
        source && lt.make("code", {}, source), source && result && " → ", result && lt.make("code", {}, result),
        reason && lt.make("span.hint", {}, " ", lt.sentence(reason)),
    );

    const link = (name, content) => lt.make("a.button", {
        href: URL.createObjectURL(new Blob([content], {type: "text/plain"})),
        download: name,
    }, name);

    const fine = () => lt.make("li.notice", {}, lt.say("Nothing is wrong with it."));
    const names = (files) => files.map(({name}) => name).join(", ");
    const short = (value) => {
        const written = JSON.stringify(value);
        return written.length > 60 ? `${written.slice(0, 59)}…` : written;
    };
})();
