// A grid of a finished LoRA: asked for in a dialog, drawn by a job, shown in the dialog as it comes.
// Where the host draws itself, it does instead: see lora_trainer_drawn_grid.js.
"use strict";

(() => {
    const lt = (window.loraTrainer = window.loraTrainer || {});
    const EVERY = 700; // milliseconds between two looks

    /** Asks what to draw with this LoRA (its path or name), queues that, and shows it. Resolves when it is closed. */
    lt.grid = async (lora) => {
        if (await lt.hostDraws()) return lt.drawnGrid({lora});
        const [suggested, {models}] = await Promise.all([
            lt.ask("GET", `loras/grid?lora=${encodeURIComponent(lora)}`),
            lt.ask("GET", "models"),
        ]);
        return new Promise((resolve) => open(lora, suggested, models, resolve));
    };

    function open(lora, suggested, models, resolve) {
        const fields = lt.gridFields(suggested, models);
        const view = {job: null, body: lt.make("div.column"), close: lt.make("button", {}, lt.say("Cancel"))};
        view.draw = lt.make("button.primary", {id: "lora_trainer_grid_draw"}, lt.say("Draw the grid"));
        view.draw.onclick = () => lt.run(view.draw, () => start(view, lora, fields));
        view.body.append(...Object.values(fields).map((field) => field.label));
        const title = lt.make("p.title", {}, lt.say("Grid of {name}", {name: lora.replace(/\.safetensors$/, "")}));
        view.dialog = lt.make("dialog.panel.dialog.wide", {id: "lora_trainer_grid"}, title, view.body,
            lt.make("div.buttons", {}, view.close, view.draw));
        view.close.onclick = () => view.dialog.close();
        view.dialog.addEventListener("close", () => {
            view.dialog.remove();
            resolve(view.job);
        });
        lt.home().append(view.dialog);
        view.dialog.showModal();
    }

    /**
     * The fields that every grid has, by the names of the route's: each an element, `label`, and `read`.
     * `several`: it is of several LoRAs, which are its rows.
     */
    lt.gridFields = (suggested, models, several = false) => {
        const chosen = suggested.base_model;
        const options = models.map(({name}) => lt.make("option", {value: name, selected: name === chosen}, name));
        const base = lt.make("select", {}, ...options);
        if (!chosen) base.value = "";
        const weights = lt.make("input", {value: suggested.weights.join(", ")});
        const prompts = lt.make("textarea", {rows: 4, value: suggested.prompts.join("\n")});
        const [ofWeights, ofPrompts] = several
            ? [lt.say("Weights of the LoRA, a column for each"), lt.say("Prompts, a line and a table for each")]
            : [lt.say("Weights of the LoRA, a row for each"), lt.say("Prompts, a line and a column for each")];
        return {
            base_model: field(lt.say("Base model"), base, () => base.value),
            weights: field(ofWeights, weights, () => numbersIn(weights.value)),
            prompts: field(ofPrompts, prompts, () => linesIn(prompts.value)),
        };
    };

    const field = (words, control, read) => ({label: lt.make("label.field", {}, words, control), read});

    const number = (word) => (Number.isFinite(Number(word)) ? Number(word) : word);

    const numbersIn = (text) => text.split(/[\s,;]+/).filter(Boolean).map(number);

    const linesIn = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);

    async function start(view, lora, fields) {
        const given = Object.entries(fields).map(([name, each]) => [name, each.read()]);
        try {
            view.job = await lt.ask("POST", "loras/grid", {lora, ...Object.fromEntries(given)});
        } catch (trouble) {
            return lt.blame(fields, trouble);
        }
        view.draw.hidden = true;
        view.close.textContent = lt.say("Close");
        view.bar = lt.make("div.bar");
        view.state = lt.make("p.hint", {role: "status"}, lt.say("Starts in a moment."));
        const columns = `repeat(${fields.prompts.read().length}, 1fr)`;
        view.pictures = lt.make("div.grid-cells", {style: {gridTemplateColumns: columns}});
        view.goesOn = lt.make("p.hint", {}, lt.say("It is drawn as a job, and goes on when this is closed."));
        view.body.replaceChildren(lt.make("div.progress", {}, view.bar), view.state, view.pictures, view.goesOn);
        lt.live.follow(view.job.id, view.job);
        watch(view, new Map());
    }

    /** What is wrong with a field stands below it; the rest is thrown. */
    lt.blame = (fields, trouble) => {
        Object.values(fields).forEach(({label}) => lt.fault(label, null));
        const fieldOf = ({setting}) => fields[setting.replace("preview_prompts", "prompts")];
        const problems = trouble.problems || [];
        if (!problems.length || !problems.every(fieldOf)) throw trouble;
        const words = ({problem, remedy}) => `${lt.sentence(problem)} ${lt.say(remedy)}`;
        problems.forEach((each) => lt.fault(fieldOf(each).label, {message: words(each)}));
    };

    async function watch(view, shown) {
        while (view.dialog.open) {
            const job = await lt.ask("GET", `jobs/${view.job.id}`).catch(() => view.job);
            const {events} = await lt.ask("GET", `jobs/${job.id}/events?points=0`).catch(() => ({events: []}));
            tell(view, job, events, shown);
            if (lt.hasEnded(job)) return;
            await new Promise((wake) => setTimeout(wake, EVERY));
        }
    }

    function tell(view, job, events, shown) {
        const phase = events.filter((event) => event.event === "phase" && event.of).pop();
        const part = job.status === "finished" ? 1 : phase ? phase.done / phase.of : 0;
        view.bar.style.width = `${100 * part}%`;
        view.goesOn.hidden = lt.hasEnded(job);
        const state = job.status === "running" && phase ? `${phase.done} / ${phase.of}` : lt.statusWord(job.status);
        const why = [job.cause, job.remedy].filter(Boolean).map((text) => lt.say(text));
        view.state.textContent = [state, ...why].join(" · ");
        const samples = events.filter((event) => event.event === "sample" && !shown.has(event.path));
        samples.forEach((sample) => show(view, job, sample, shown));
    }

    /** A cell as it comes, and at the end the sheet in place of them all. */
    function show(view, job, sample, shown) {
        shown.set(sample.path, sample);
        const src = lt.sampleUrl(job.id, sample.path);
        const picture = lt.make("img.preview", {src, alt: sample.prompt});
        if (sample.weight !== undefined) {
            const words = sample.weight ? lt.say("Weight {weight}", sample) : lt.say("Without the LoRA");
            const caption = lt.make("figcaption.hint", {}, words);
            view.pictures.append(lt.make("figure", {title: sample.prompt}, picture, caption));
            return;
        }
        const link = lt.make("a.button", {href: src, download: `${job.name}-grid.png`}, lt.say("Download the sheet"));
        const whole = lt.make("a.grid-picture", {href: src, target: "_blank", rel: "noopener"}, picture);
        view.pictures.replaceWith(whole, lt.make("div.row", {}, link));
    }
})();
