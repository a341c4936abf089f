// What runs and what waits: moved, stopped, deleted; who starts the jobs, and what is wrong where nobody does.
"use strict";

(() => {
    const lt = (window.loraTrainer = window.loraTrainer || {});
    const PLACES = {
        first: {sign: "⤒", title: () => lt.say("Make it the next one"), off: (place) => place === 0},
        up: {sign: "↑", title: () => lt.say("Move up"), off: (place) => place === 0},
        down: {sign: "↓", title: () => lt.say("Move down"), off: (place, count) => place === count - 1},
        last: {sign: "⤓", title: () => lt.say("Make it the last one"), off: (place, count) => place === count - 1},
    };
    const KINDS = {
        train: () => lt.say("trains a LoRA"),
        prepare: () => lt.say("crops and tags"),
        grid: () => lt.say("draws a grid"),
    };

    let views = [];
    let listening = false;

    function draw(element) {
        if (!listening) lt.on("jobs", () => views.forEach(update));
        listening = true;
        const view = {element, notices: lt.make("div.column"), list: lt.make("ol.queue"), rows: new Map()};
        view.empty = lt.make("p.empty", {}, lt.say("Nothing runs, and nothing waits."));
        element.replaceChildren(view.notices, view.empty, view.list);
        views = [...views.filter((other) => other.element.isConnected), view];
        update(view);
    }

    function update(view) {
        const {line, supervisor, lost} = lt.live;
        const said = [
            lost && lt.lostWords(),
            supervisor === null && line.length && lt.say("Jobs are only collected here: nothing starts them."),
            supervisor && supervisor.watching && lt.say(supervisor.watching),
            supervisor && supervisor.trouble && lt.say(supervisor.trouble),
        ].filter(Boolean);
        if (view.notices.dataset.said !== said.join()) {
            view.notices.dataset.said = said.join();
            view.notices.replaceChildren(...said.map((sentence) => lt.make("p.warning", {}, sentence)));
        }
        view.notices.hidden = !said.length;
        view.empty.hidden = line.length > 0;
        const waiting = line.filter((job) => job.status === "queued");
        const rows = line.map((job) => rowOf(view, job));
        rows.forEach((row, place) => row.update(line[place], waiting.indexOf(line[place]), waiting.length));
        view.rows = new Map(line.map((job, place) => [job.id, rows[place]]));
        const shown = [...view.list.children];
        if (shown.length !== rows.length || rows.some((row, place) => row.element !== shown[place])) {
            const focused = document.activeElement;
            view.list.replaceChildren(...rows.map((row) => row.element));
            if (view.list.contains(focused)) focused.focus();
        }
    }

    /** A job's row is made once, so that a button is not taken from under the pointer. */
    function rowOf(view, job) {
        return view.rows.get(job.id) || newRow(job.id);
    }

    function newRow(id) {
        const [name, badge, told] = ["button.quiet.queue-name", "span.badge", "span.hint"].map((kind) => lt.make(kind));
        const row = {name, badge, told};
        row.bar = lt.make("div.bar");
        row.track = lt.make("div.progress", {}, row.bar);
        row.moves = Object.entries(PLACES).map(([where, place]) => [
            act("button.small.queue-move", place.sign, place.title(), () => lt.ask("POST", `jobs/${id}/move`, {where})),
            place.off,
        ]);
        row.stop = act("button.small", lt.say("Stop"), "", () => lt.ask("POST", `jobs/${id}/stop`));
        row.remove = act("button.danger.small", lt.say("Delete job"), "", () => remove(id));
        row.name.title = lt.say("Show it in the progress panel");
        row.name.onclick = () => {
            lt.live.follow(id);
            lt.show("train");
            document.getElementById("lora_trainer_progress").scrollIntoView({block: "center"});
        };
        const buttons = lt.make("div.row", {}, ...row.moves.map(([button]) => button), row.stop, row.remove);
        const words = lt.make("div.column.grow", {}, lt.make("div.row", {}, row.name, row.badge, row.told), row.track);
        row.element = lt.make("li.queue-row", {dataset: {job: id}}, words, buttons);
        row.update = (job, place, count) => updateRow(row, job, place, count);
        return row;
    }

    function act(kind, words, title, ask) {
        const done = async () => {
            await ask();
            await lt.live.now();
        };
        const button = lt.button(kind, words, done, title);
        const run = button.onclick;
        button.ariaLabel = title || words;
        button.onclick = () => run().then(() => views.forEach(update));
        return button;
    }

    async function remove(id) {
        const {name} = lt.live.job(id);
        const sentence = lt.say("Delete the waiting job {name}, with all that it may have made already?", {name});
        const sure = await lt.confirm(sentence, lt.say("Delete job"));
        if (sure) await lt.ask("DELETE", `jobs/${id}`);
    }

    function updateRow(row, job, place, count) {
        const waits = job.status === "queued";
        row.name.textContent = lt.say("Job {id}: {name}", job);
        lt.badge(row.badge, job.status);
        row.told.textContent = [KINDS[job.kind](), job.base, job.steps ? lt.say("step {step} of {steps}", job) : ""]
            .filter(Boolean)
            .join(" · ");
        row.track.hidden = waits;
        row.bar.style.width = `${job.steps ? (100 * job.step) / job.steps : 0}%`;
        row.moves.forEach(([button, off]) => {
            button.hidden = !waits || count < 2;
            button.disabled = off(place, count);
        });
        row.stop.hidden = waits;
        row.remove.hidden = !waits;
    }

    (lt.panels = lt.panels || {}).queue = draw;
})();
