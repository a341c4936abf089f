// Several trainings that differ in one or two settings: chosen, queued, and looked at side by side.
(() => {
    "use strict";

    const lt = (window.loraTrainer = window.loraTrainer || {});
    const REFRESH = 3000; // milliseconds between two looks at one that is not over
    const AUTOMATIC = "automatic";
    const PANELS = {
        learning: () => lt.say("Learning rate and optimizer"),
        network: () => lt.say("Network"),
        training: () => lt.say("Training"),
        noise: () => lt.say("Noise and timesteps"),
        dataset: () => lt.say("Pictures and captions"),
        model: () => lt.say("Base model"),
    };
    const SUGGESTED = {
        optimizer: ["AdamW", "Lion", "Prodigy"],
        rank: ["16", "32", "64", "128"],
        alpha: ["1", "8", "16", "32"],
        learning_rate: ["5e-5", "1e-4", "2e-4", "5e-4"],
        unet_lr: ["5e-5", "1e-4", "2e-4", "5e-4"],
        text_encoder_lr: ["1e-5", "5e-5", "1e-4"],
        batch_size: ["1", "2", "4"],
        epochs: ["5", "10", "20"],
        repeats: ["5", "10", "20"],
        restarts: ["1", "2", "3"],
        warmup_percent: ["0", "5", "10"],
        min_snr_gamma: ["0", "1", "5"],
        noise_offset: ["0", "0.05", "0.1"],
        dropout: ["0", "0.1", "0.3"],
        seed: ["1", "2", "3"],
        clip_skip: ["1", "2"],
    };

    let settings = {}; // of the config's schema, those that can be compared
    let most = 0; // trainings
    let views = [];
    let listening = false;

    async function draw(element) {
        if (!listening) {
            lt.on("jobs", () => views.forEach(refresh));
            lt.on("form", ({name}) => ["output_name", "dataset_name"].includes(name) && views.forEach(sum));
            lt.on("dataset", () => views.forEach(sum));
        }
        listening = true;
        const view = {element, made: lt.make("div.column"), shown: new Map()};
        view.axes = lt.make("div.split.compare-axes");
        view.sum = lt.make("p.hint");
        view.start = lt.make("button.primary", {id: "lora_trainer_compare_start"});
        view.start.onclick = () => lt.run(view.start, () => start(view));
        view.problems = lt.make("ul.problems");
        view.empty = lt.make("p.empty", {}, lt.say("Nothing has been compared yet."));
        const hint = lt.say(
            "Trains what the form says once for each value, with the same seed, and shows the pictures side by side.",
        );
        const button = lt.make("div.row", {}, view.start);
        element.replaceChildren(
            lt.make("p", {}, hint), view.axes, view.sum, button, view.problems, view.empty, view.made,
        );
        views = [...views.filter((other) => other.element.isConnected), view];
        try {
            const [schema, told, {comparisons}] = await Promise.all(
                ["config/schema", "comparisons/settings", "comparisons"].map((path) => lt.ask("GET", path)),
            );
            settings = Object.fromEntries(told.settings.map((name) => [name, schema.properties[name]]));
            most = told.most;
            build(view);
            load(view, comparisons);
        } catch (trouble) {
            lt.fault(view.sum, trouble);
        }
    }

    // ---- what to compare

    function build(view) {
        const kept = draft();
        view.fields = [axis(view, kept[0], false), axis(view, kept[1], true)];
        view.axes.replaceChildren(...view.fields.map((field) => field.element));
        sum(view);
    }

    function draft() {
        try {
            const kept = JSON.parse(lt.kept("compare") || "null");
            const isFit = ({setting, values}) => settings[setting] && Array.isArray(values);
            if (Array.isArray(kept) && kept.every(isFit)) return kept;
        } catch {
            // what another version has kept
        }
        return [{setting: "optimizer", values: SUGGESTED.optimizer}];
    }

    /** One setting and its values: words to choose from, and a field for others where any value may be given. */
    function axis(view, start, optional) {
        const field = {offered: [], values: new Set(start ? start.values : []), chips: lt.make("div.chips")};
        const words = optional ? lt.say("Second setting, if you like") : lt.say("Setting to compare");
        field.select = lt.make("select", {}, ...options(optional));
        field.select.value = start ? start.setting : "";
        field.select.onchange = () => {
            field.values = new Set(firstOf(field.select.value));
            offer(view, field);
        };
        field.input = lt.make("input", {type: "text", placeholder: lt.say("Another value, then Enter")});
        field.input.onkeydown = (event) => event.key === "Enter" && typed(view, field);
        field.input.onblur = () => typed(view, field);
        field.help = lt.make("p.hint");
        const label = lt.make("label.field", {}, words, field.select);
        field.element = lt.make("div.box", {}, label, field.help, field.chips, field.input);
        offer(view, field);
        return field;
    }

    function options(optional) {
        const groups = Object.entries(PANELS).map(([panel, title]) => {
            const names = Object.keys(settings).filter((name) => settings[name]["x-panel"] === panel);
            const words = names.map((value) => lt.make("option", {value}, lt.say(settings[value].title)));
            return lt.make("optgroup", {label: title()}, words);
        });
        return optional ? [lt.make("option", {value: ""}, lt.say("None")), ...groups] : groups;
    }

    const firstOf = (name) => (SUGGESTED[name] || choices(name).filter((value) => value !== AUTOMATIC)).slice(0, 3);

    const forms = (name) => (settings[name] ? settings[name].anyOf || [settings[name]] : []);

    /** The words that a setting takes; none where any number or text may be given. */
    function choices(name) {
        const words = forms(name).flatMap((form) => form.enum || (form.type === "boolean" ? ["on", "off"] : []));
        const empty = words.length && forms(name).some((form) => form.type === "null");
        return empty ? [AUTOMATIC, ...words.map(String)] : words.map(String);
    }

    function offer(view, field) {
        const name = field.select.value;
        const fixed = choices(name);
        field.offered = fixed.length ? fixed : SUGGESTED[name] || [];
        field.input.hidden = !name || fixed.length > 0;
        const told = name ? [settings[name].description, settings[name]["x-applies"]] : [];
        field.help.textContent = lt.say(told.filter(Boolean).join(" "));
        field.help.hidden = !name;
        chips(view, field);
    }

    function chips(view, field) {
        const all = [...new Set([...field.offered, ...field.values])];
        field.chips.replaceChildren(...all.map((value) => {
            const chosen = field.values.has(value);
            const toggle = () => {
                field.values[chosen ? "delete" : "add"](value);
                chips(view, field);
                field.chips.children[all.indexOf(value)]?.focus();
            };
            const facts = {ariaPressed: String(chosen), onclick: toggle};
            return lt.make(chosen ? "button.chip.chosen" : "button.chip", facts, lt.say(value));
        }));
        sum(view);
    }

    function typed(view, field) {
        const text = field.input.value.trim();
        if (!text) return;
        const isList = forms(field.select.value).some((form) => form.type === "array");
        for (const value of isList ? [text] : text.split(",")) if (value.trim()) field.values.add(value.trim());
        field.input.value = "";
        chips(view, field);
    }

    const axesOf = (view) =>
        (view.fields || [])
            .filter((field) => field.select.value)
            .map((field) => ({setting: field.select.value, values: inOrder([...field.values])}));

    const inOrder = (values) =>
        values.some((value) => Number.isNaN(Number(value))) ? values : values.sort((one, other) => one - other);

    /** How many trainings it will be, and what they will be called. */
    function sum(view) {
        if (!view.fields || view.fields.length < 2) return;
        const axes = axesOf(view);
        lt.keep("compare", JSON.stringify(axes));
        const longer = (names, values) => names.flatMap((name) => values.map((value) => `${name}-${value}`));
        const names = axes.reduce((all, {values}) => longer(all, values), [nameOf()]);
        const count = axes.every(({values}) => values.length) ? names.length : 0;
        view.start.textContent = lt.say("Queue {count} trainings", {count});
        view.start.disabled = !count || count > most;
        view.sum.textContent = told(count, names);
    }

    function told(count, names) {
        if (!count) return lt.say("Choose values of each setting.");
        if (count > most) return lt.say("That makes {count} trainings; {most} are the most.", {count, most});
        const some = count > 4 ? [...names.slice(0, 3), "…", names[count - 1]] : names;
        return lt.say("Their names: {names}", {names: some.join(", ")});
    }

    const nameOf = () => lt.form.value("output_name") || lt.dataset || "…";

    async function start(view) {
        view.problems.replaceChildren();
        try {
            const made = await lt.ask("POST", "comparisons", {form: lt.form.all(), axes: axesOf(view)});
            view.problems.replaceChildren();
            put(view, made, true);
            lt.toast(lt.say("{count} trainings are in the queue.", {count: made.cells.length}));
            await lt.live.now();
        } catch (trouble) {
            if (!trouble.problems || !trouble.problems.length) throw trouble;
            view.problems.replaceChildren(...trouble.problems.map(problem));
        } finally {
            setTimeout(() => sum(view)); // after the button is enabled again
        }
    }

    function problem({setting, problem: what, remedy}) {
        const label = settings[setting] ? lt.say(settings[setting].title) : setting;
        const words = lt.make("span.remedy", {}, lt.sentence(remedy));
        return lt.make("li.problem", {}, `${label}: ${lt.sentence(what)}`, words);
    }

    // ---- what was compared

    function load(view, comparisons) {
        comparisons.reverse().forEach((made) => put(view, made, made === comparisons[comparisons.length - 1]));
        view.empty.hidden = comparisons.length > 0;
    }

    /** Shows a comparison above the others, or what is new of it. */
    function put(view, made, open) {
        const old = view.shown.get(made.id);
        const shown = old || newFold(view, made, open);
        if (!old) view.made.prepend(shown.element);
        view.shown.set(made.id, Object.assign(shown, {made, asked: performance.now()}));
        view.empty.hidden = true;
        fill(shown);
    }

    function newFold(view, made, open) {
        const shown = {table: lt.make("div.scroll.sheet"), state: lt.make("span.hint"), prompt: 0, drawn: ""};
        const address = {href: lt.url(`comparisons/${made.id}/sheet`), download: `${made.name}.png`};
        shown.sheet = lt.make("a.button.small", address, lt.say("Download the sheet"));
        const away = lt.make("button.quiet.small", {}, lt.say("Remove from this list"));
        away.onclick = () => lt.run(away, () => forget(view, made));
        shown.prompts = lt.make("div.segments");
        const title = [made.name, ...made.axes.map((each) => lt.say(each.label))].join(" · ");
        const summary = lt.make("summary", {}, lt.make("span.strong", {}, title), " ", shown.state);
        const body = lt.make("div.column", {}, shown.prompts, shown.table, lt.make("div.row", {}, shown.sheet, away));
        shown.element = lt.make("details.fold", {open, dataset: {comparison: made.id}}, summary, body);
        shown.element.ontoggle = () => fill(shown);
        return shown;
    }

    async function forget(view, made) {
        const sentence = lt.say("Take this comparison out of the list? Its trainings stay in the history.");
        if (!(await lt.confirm(sentence, lt.say("Remove from this list")))) return;
        await lt.ask("DELETE", `comparisons/${made.id}`);
        view.shown.get(made.id).element.remove();
        view.shown.delete(made.id);
        view.empty.hidden = view.shown.size > 0;
    }

    const over = (cell) => !cell.job || lt.hasEnded(cell.job);

    function hasChanged({job}) {
        const now = job && lt.live.job(job.id);
        return Boolean(now) && now.status !== job.status;
    }

    /** Asks anew for what is not over, now and then, and at once where a job has ended. */
    async function refresh(view) {
        for (const shown of view.shown.values()) {
            const {cells} = shown.made;
            const isOld = performance.now() - shown.asked > REFRESH;
            const goesOn = isOld && shown.element.open && !cells.every(over);
            if (shown.asking || !(goesOn || cells.some(hasChanged))) continue;
            shown.asking = true;
            const made = await lt.ask("GET", `comparisons/${shown.made.id}`).catch(() => shown.made);
            shown.asking = false;
            if (view.shown.has(made.id)) put(view, made);
        }
    }

    function fill(shown) {
        const {made} = shown;
        const [done, count] = [made.cells.filter(over).length, made.cells.length];
        const words = done < count ? lt.say("{done} of {count} are done", {done, count}) : lt.say("done");
        shown.state.textContent = `${lt.when(made.created_at)} · ${words}`;
        shown.sheet.hidden = !made.cells.some((cell) => cell.pictures.some(Boolean));
        const text = JSON.stringify([made.cells, shown.prompt]);
        if (!shown.element.open || shown.drawn === text) return;
        shown.drawn = text;
        segments(shown);
        shown.table.replaceChildren(made.axes.length > 1 ? crossed(shown) : listed(shown));
    }

    /** Of two settings one prompt is shown at a time. */
    function segments(shown) {
        const {prompts, axes} = shown.made;
        shown.prompts.hidden = axes.length < 2 || prompts.length < 2;
        shown.prompts.replaceChildren(...prompts.map((prompt, number) => lt.make("button.segment", {
            ariaPressed: String(number === shown.prompt),
            title: prompt,
            onclick: () => {
                shown.prompt = number;
                fill(shown);
            },
        }, lt.say("Prompt {number}", {number: number + 1}))));
    }

    /** A row for each value, a column for each prompt. */
    function listed({made}) {
        const pictures = made.cells.map((cell) => made.prompts.map((prompt, number) => pictureOf(made, cell, number)));
        const titles = made.prompts.map((prompt) => lt.make("th.compare-prompt", {title: prompt}, prompt));
        const rows = made.cells.map((cell, row) => [
            lt.make("th.sheet-side", {}, lt.say(cell.values[0]), state(cell)),
            made.prompts.map((prompt, column) => lt.make("td", {}, lt.thumb(pictures, row, column))),
        ]);
        return table([lt.make("th.sheet-side"), titles], rows);
    }

    /** The first setting's values down, the second one's across. */
    function crossed({made, prompt}) {
        const [down, across] = made.axes;
        const cells = down.values.map((value) => made.cells.filter((cell) => cell.values[0] === value));
        const pictures = cells.map((row) => row.map((cell) => pictureOf(made, cell, prompt)));
        const corner = lt.make("th.sheet-side", {}, `${lt.say(down.label)} ↓ ${lt.say(across.label)} →`);
        const titles = across.values.map((value) => lt.make("th", {}, lt.say(value)));
        const rows = cells.map((row, number) => [
            lt.make("th.sheet-side", {}, lt.say(down.values[number])),
            row.map((cell, column) => lt.make("td", {}, lt.thumb(pictures, number, column), state(cell))),
        ]);
        return table([corner, titles], rows);
    }

    const table = (head, rows) =>
        lt.make("table", {}, lt.make("thead", {}, tr(head)), lt.make("tbody", {}, rows.map(tr)));

    const tr = (cells) => lt.make("tr", {}, cells);

    function pictureOf(made, cell, number) {
        const name = cell.pictures[number];
        if (!name || !cell.job) return null;
        const words = made.axes.map((axis, place) => `${lt.say(axis.label)}: ${lt.say(cell.values[place])}`);
        return {src: lt.sampleUrl(cell.job.id, name), label: words.join(", "), title: made.prompts[number]};
    }

    /** How a training stands; a click leads to its history. */
    function state({job, epoch}) {
        if (!job) return lt.make("span.hint", {}, lt.say("This job was deleted."));
        const badge = lt.make("span.badge", {title: job.cause ? lt.sentence(job.cause) : ""});
        lt.badge(badge, job.status);
        const more = lt.make("button.quiet.small", {title: lt.say("Show it in the history")}, badge);
        more.onclick = () => lt.showJob(job.id);
        const loss = job.loss === null ? "" : lt.say("loss {loss}", {loss: job.loss.toFixed(4)});
        const words = [epoch ? lt.say("epoch {epoch}", {epoch}) : "", loss].filter(Boolean).join(" · ");
        return lt.make("div.compare-state", {}, more, lt.make("span.hint", {}, words));
    }

    (lt.panels = lt.panels || {}).compare = draw;
})();
