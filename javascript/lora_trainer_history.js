// Every job that has begun: how it went, and its previews epoch by epoch beside those from before training.
(() => {
    "use strict";

    const lt = (window.loraTrainer = window.loraTrainer || {});
    const REFRESH = 2000; // milliseconds between two looks at what a running job has made
    const OLDER = 100; // jobs that are asked for at once
    const LINES = 30; // of a failed job's log
    const STATES = ["running", "paused", "finished", "stopped", "failed", "interrupted"];
    const RESUMABLE = ["stopped", "failed", "interrupted"];

    const KINDS = {prepare: () => lt.say("crops and tags"), grid: () => lt.say("draws a grid")};

    const known = new Map(); // every job's row by its number
    let unfolded = new Set();
    let views = [];
    let listening = false;

    function draw(element) {
        if (!listening) lt.on("jobs", take);
        listening = true;
        const view = {element, rows: new Map(), count: lt.make("span.hint")};
        view.list = lt.make("div.column", {role: "list"});
        view.search = lt.make("input", {type: "search", placeholder: lt.say("Search jobs")});
        view.search.oninput = () => update(view);
        view.state = lt.make("select", {ariaLabel: lt.say("State"), onchange: () => update(view)}, ...states());
        view.empty = lt.make("p.empty");
        view.older = lt.make("button.small", {}, lt.say("Show older jobs"));
        view.older.onclick = () => lt.run(view.older, () => older(view));
        const bar = lt.make("div.row", {}, view.search, view.state, view.count);
        element.replaceChildren(bar, view.empty, view.list, lt.make("div.row", {}, view.older));
        views = [...views.filter((other) => other.element.isConnected), view];
        view.older.hidden = true;
        take(lt.live);
    }

    const states = () => [
        lt.make("option", {value: ""}, lt.say("All states")),
        ...STATES.map((state) => lt.make("option", {value: state}, lt.statusWord(state))),
    ];

    /** Takes in the newest list; what has gone from it was deleted. */
    function take({jobs}) {
        const lowest = jobs.length ? jobs[jobs.length - 1].id : 0;
        for (const id of known.keys()) if (id >= lowest && !jobs.some((job) => job.id === id)) known.delete(id);
        for (const job of jobs) known.set(job.id, job);
        if (jobs.length === OLDER && known.size === OLDER) views.forEach((view) => (view.older.hidden = false));
        views.forEach(update);
    }

    async function older(view) {
        const before = Math.min(...known.keys());
        const {jobs, next} = await lt.ask("GET", `jobs?limit=${OLDER}&before=${before}`);
        for (const job of jobs) known.set(job.id, job);
        view.older.hidden = next === null;
        update(view);
    }

    function update(view) {
        const begun = [...known.values()].filter((job) => job.status !== "queued");
        const words = view.search.value.toLowerCase().split(/\s+/).filter(Boolean);
        const shown = begun.filter((job) => (!view.state.value || job.status === view.state.value) && has(job, words));
        shown.sort((one, other) => other.id - one.id);
        const rows = shown.map((job) => view.rows.get(job.id) || newRow(job.id));
        rows.forEach((row, place) => row.update(shown[place]));
        view.rows = new Map(rows.map((row) => [row.id, row]));
        const there = [...view.list.children];
        if (there.length !== rows.length || rows.some((row, place) => row.element !== there[place])) {
            const focused = document.activeElement;
            view.list.replaceChildren(...rows.map((row) => row.element));
            if (view.list.contains(focused)) focused.focus();
        }
        view.empty.textContent = begun.length ? lt.say("No job is like that.") : lt.say("No job has begun yet.");
        view.empty.hidden = rows.length > 0;
        view.count.textContent = lt.say("{shown} of {count} jobs", {shown: rows.length, count: begun.length});
        view.count.hidden = !begun.length;
    }

    const has = (job, words) => words.every((word) => `${job.id} ${job.name} ${job.base}`.toLowerCase().includes(word));

    /** Opens the history with this job unfolded. */
    lt.showJob = (id) => {
        lt.show("queue");
        unfolded.add(id);
        for (const view of views) {
            view.search.value = view.state.value = "";
            update(view);
            view.rows.get(id)?.element.scrollIntoView({block: "start"});
        }
    };

    // ---- a job's row

    function newRow(id) {
        const row = {id, name: lt.make("span.strong"), badge: lt.make("span.badge"), told: lt.make("span.hint")};
        row.body = lt.make("div.column.history-body", {hidden: true});
        row.head = lt.make("button.history-head", {ariaExpanded: "false"}, row.name, row.badge, row.told);
        row.head.onclick = () => {
            unfolded[unfolded.has(id) ? "delete" : "add"](id);
            row.update(known.get(id));
        };
        row.element = lt.make("div.history-job", {role: "listitem", dataset: {job: id}}, row.head, row.body);
        row.update = (job) => updateRow(row, job);
        return row;
    }

    function updateRow(row, job) {
        const open = unfolded.has(job.id);
        row.name.textContent = lt.say("Job {id}: {name}", job);
        lt.badge(row.badge, job.status);
        row.told.textContent = [
            KINDS[job.kind] && KINDS[job.kind](),
            job.base,
            job.steps && job.kind === "train" ? lt.say("step {step} of {steps}", job) : "",
            job.loss === null ? "" : lt.say("loss {loss}", {loss: job.loss.toFixed(4)}),
            job.started_at ? lt.when(job.started_at) : "",
            job.ended_at && job.started_at ? lt.duration(job.ended_at - job.started_at) : "",
        ].filter(Boolean).join(" · ");
        row.head.ariaExpanded = String(open);
        row.body.hidden = !open;
        if (open) lookAt(row, job);
    }

    /** Asks what the job has made, if there may be something new. */
    async function lookAt(row, job) {
        const stamp = `${job.status} ${job.attempts}`;
        const changed = row.stamp !== stamp;
        const due = !lt.hasEnded(job) && performance.now() - row.asked > REFRESH;
        if (row.asking || !(changed || due)) return;
        Object.assign(row, {stamp, asking: true});
        if (changed) frame(row, job);
        try {
            const [made, draws] = await Promise.all([lt.ask("GET", `jobs/${job.id}/history`), lt.hostDraws()]);
            fill(row, job, made, draws);
        } catch (trouble) {
            lt.fault(row.actions, trouble);
        } finally {
            Object.assign(row, {asking: false, asked: performance.now()});
        }
    }

    // ---- what is unfolded

    /** All but the pictures. */
    function frame(row, job) {
        row.actions = actions(row, job);
        row.table = row.table || lt.make("div.scroll.sheet");
        row.toml = lt.make("pre.code", {hidden: true});
        const parts = [...failure(job), row.actions, row.toml, row.table];
        row.body.replaceChildren(...parts);
        if (job.kind === "grid") showGrid(row, job).catch((trouble) => lt.fault(row.actions, trouble));
    }

    function failure(job) {
        if (!job.cause) return [];
        const log = lt.make("pre.log", {hidden: true});
        lt.ask("GET", `jobs/${job.id}/log?lines=${LINES}`).then(({lines}) => {
            log.textContent = lines.join("\n");
            log.hidden = !lines.length;
            log.scrollTop = log.scrollHeight;
        }, () => null); // the cause says what matters
        const words = lt.make("span.remedy", {}, job.remedy ? lt.sentence(job.remedy) : "");
        return [lt.make("p.problem", {}, lt.sentence(job.cause), words), log];
    }

    function actions(row, job) {
        const again = lt.button("button.small.history-again", lt.say("Same again"), () => sameAgain(job));
        again.title = lt.say("Fill the form with this job's settings");
        const toml = lt.button("button.small", lt.say("Config as TOML"), () => showToml(row, job));
        row.sheet = link(`jobs/${job.id}/contact_sheet`, lt.say("Contact sheet"), `${job.name}.png`);
        row.sheet.hidden = true;
        const resume = lt.button("button.small", lt.say("Resume job"), () => goOn(job));
        resume.title = lt.say("Go on from its last saved state");
        const more = lt.button("button.small", lt.say("Progress and log"), () => follow(job));
        const away = lt.button("button.danger.small", lt.say("Delete job"), () => remove(job));
        row.grid = lt.button("button.small.history-grid", lt.say("Grid of epochs and weights"), () => drawGrid(job));
        row.grid.hidden = true;
        again.hidden = toml.hidden = job.kind !== "train";
        resume.hidden = !RESUMABLE.includes(job.status);
        away.hidden = !lt.hasEnded(job);
        return lt.make("div.row", {}, again, resume, row.sheet, row.grid, toml, more, away);
    }

    const drawGrid = (job) => lt.drawnGrid({job: job.id});

    const link = (path, words, download) => lt.make("a.button.small", {href: lt.url(path), download}, words);

    async function sameAgain(job) {
        const {form} = await lt.ask("POST", "config/form", {job: job.id});
        const before = lt.form.all();
        lt.form.set(form);
        lt.show("train");
        lt.toast(lt.say("The form is filled as it was for {name}. Give the LoRA another name, then start.", job), {
            verb: lt.say("Undo"),
            act: () => lt.form.set(before),
        });
    }

    async function goOn(job) {
        await lt.ask("POST", `jobs/${job.id}/resume`);
        await lt.live.follow(job.id);
    }

    async function follow(job) {
        await lt.live.follow(job.id);
        lt.show("train");
        document.getElementById("lora_trainer_progress").scrollIntoView({block: "center"});
    }

    async function showToml(row, job) {
        if (!row.toml.textContent) {
            const answer = await fetch(lt.url(`jobs/${job.id}/config.toml`));
            if (!answer.ok) throw new lt.Trouble(lt.say("The config of this job can't be read."));
            row.toml.textContent = await answer.text();
        }
        row.toml.hidden = !row.toml.hidden;
    }

    async function remove(job) {
        const sentence = lt.say(
            "Delete the job {name} with its previews and its LoRAs? Those that were kept or published stay.",
            job,
        );
        if (!(await lt.confirm(sentence, lt.say("Delete job")))) return;
        await lt.ask("DELETE", `jobs/${job.id}`);
        unfolded.delete(job.id);
        known.delete(job.id);
        views.forEach(update);
        await lt.live.now();
    }

    async function showGrid(row, job) {
        const {samples} = await lt.ask("GET", `jobs/${job.id}/samples`);
        if (!samples.includes("grid.png")) return;
        const src = lt.sampleUrl(job.id, "grid.png");
        row.table.replaceChildren(lt.thumb([[{src, label: job.name}]], 0, 0, "img.picture"));
        Object.assign(row.sheet, {href: src, hidden: false});
    }

    // ---- epochs x prompts

    function fill(row, job, made, draws) {
        if (job.kind !== "train") return;
        row.sheet.hidden = !made.prompts.length;
        row.grid.hidden = !(draws && made.moments.some((moment) => moment.loras.length));
        const text = JSON.stringify(made.moments);
        if (row.made === text) return;
        row.made = text;
        if (!made.moments.length) {
            row.table.replaceChildren(lt.make("p.hint", {}, lt.say("It has made no previews and saved no LoRA yet.")));
            return;
        }
        const [base, later] = [made.moments.find((each) => !each.step), made.moments.filter((each) => each.step)];
        const pictures = made.prompts.map((prompt, number) => picturesOf(job, made, base, later, number));
        row.table.replaceChildren(table(job, made, base, later, pictures));
    }

    /** What the lightbox shows of a prompt: the baseline, then each moment with the baseline beside it. */
    function picturesOf(job, made, base, later, number) {
        const title = made.prompts[number];
        const one = (moment, words) => {
            const name = moment && moment.previews[number];
            return name ? {src: lt.sampleUrl(job.id, name), label: words, title} : null;
        };
        const baseline = one(base, lt.say("Before training"));
        return [baseline, ...later.map((moment) => {
            const shown = one(moment, momentWords(moment));
            return shown && {...shown, beside: baseline};
        })];
    }

    const momentWords = (moment) => lt.say("Epoch {epoch}, step {step}", moment);

    function table(job, made, base, later, pictures) {
        const seed = lt.make("span.hint", {}, made.seed === null ? "" : lt.say("seed {seed}", made));
        const head = [lt.make("th.sheet-side", {}, lt.say("Before training"), seed), ...later.map(title)];
        const rows = made.prompts.flatMap((prompt, number) => [
            [lt.make("td.sheet-prompt", {colSpan: later.length + 1}, lt.make("span.hint", {}, prompt))],
            pictures[number].map((picture, column) => cell(pictures, number, column)),
        ]);
        const foot = [lt.make("td.sheet-side"), ...later.map((moment) => files(job, moment))];
        return lt.make("table", {}, part("thead", [head]), part("tbody", rows), part("tfoot", [foot]));
    }

    const part = (kind, rows) => lt.make(kind, {}, rows.map((cells) => lt.make("tr", {}, cells)));

    const title = (moment) =>
        lt.make("th", {}, lt.say("Epoch {epoch}", moment), lt.make("span.hint", {}, lt.say("step {step}", moment)));

    const cell = (pictures, number, column) =>
        lt.make(column ? "td" : "td.sheet-side", {}, lt.thumb(pictures, number, column));

    function files(job, moment) {
        const buttons = moment.loras.map((file) => {
            const button = lt.button("button.small.history-keep", lt.say("Keep"), () => lt.keepLora(job, file));
            button.title = lt.say("Put {file} into the LoRA folder", {file});
            return [button, link(`jobs/${job.id}/loras/${encodeURIComponent(file)}`, lt.say("Download"), file)];
        });
        return lt.make("td", {}, lt.make("div.history-files", {}, buttons));
    }

    (lt.panels = lt.panels || {}).history = draw;
})();
