// Step 3: where pictures would be cut is shown, and a job cuts and tags them.
(() => {
    "use strict";

    const lt = (window.loraTrainer = window.loraTrainer || {});
    const SHOWN = 12;
    const MOST = 60;
    const SETTLED = 300; // milliseconds after the last change of a setting
    const EVERY = 500; // milliseconds between two looks at the job
    const OF_CUTS = ["crop", "crop_size", "resolution", "bucket_no_upscale"];

    (lt.panels = lt.panels || {}).prepare = (element) => {
        const cuts = preview();
        const bar = lt.tasks.bar();
        const outcome = lt.make("div.column", {ariaLive: "polite", id: "lora_trainer_prepared"});
        const whole = lt.make("input", {type: "checkbox", id: "lora_trainer_uncut"});
        const uncut = lt.make("label.check", {hidden: true}, whole, lt.say("Make cut pictures whole again"));
        const job = worker(bar, outcome);
        const button = lt.make("button.primary", {id: "lora_trainer_prepare_start"}, lt.say("Crop / tag"));
        button.onclick = () => lt.run(button, async () => {
            if (!lt.dataset) throw new lt.Trouble(lt.say("There are no pictures yet. Begin with step 1."));
            await job.start(!uncut.hidden && whole.checked);
        });
        const row = lt.make("div.row", {}, button, uncut);
        element.append(cuts.element, row, bar.element, outcome);

        const shows = () => {
            uncut.hidden = lt.form.value("crop") !== "none" || !(lt.set.summary && lt.set.summary.cut);
        };
        lt.on("form", ({name}) => OF_CUTS.includes(name) && (cuts.soon(), shows()));
        lt.on("summary", () => (cuts.soon(), shows()));
        lt.on("dataset", () => outcome.replaceChildren());
        lt.on("jobs", ({line}) => job.adopt(line));
        cuts.soon();
    };

    /** Pictures with the part that is cut out left bright. */
    const preview = () => {
        const grid = lt.make("div.cuts", {id: "lora_trainer_cuts"});
        const bar = lt.tasks.bar();
        const more = lt.make("button.small", {hidden: true, onclick: () => {
            most = MOST;
            look();
        }}, lt.say("Show more"));
        const hint = lt.make("p.hint", {}, lt.say(
            "Bright: what stays of each picture. Framed: the face or subject that was found.",
        ));
        const element = lt.make("div.column", {hidden: true}, hint, grid, bar.element, more);
        let most = SHOWN;
        let turn = 0;
        let planned = 0;

        const soon = () => {
            clearTimeout(planned);
            planned = setTimeout(look, SETTLED);
        };
        const look = async () => {
            const mine = ++turn;
            const name = lt.dataset;
            element.hidden = !name || !lt.set.summary || !lt.set.summary.count || lt.form.value("crop") === "none";
            if (element.hidden) return;
            if (!element.offsetParent) return seen.observe(element);
            lt.fault(bar.element, null);
            try {
                const result = await plan(name, () => mine === turn);
                if (mine === turn && result) draw(result.cuts);
            } catch (error) {
                if (mine === turn) lt.fault(bar.element, error);
            } finally {
                if (mine === turn) bar.hide();
            }
        };
        const plan = async (name, current) => {
            const form = Object.fromEntries([...OF_CUTS, "background"].map((each) => [each, lt.form.value(each)]));
            for (;;) {
                const [body, path] = [{form, most}, lt.set.path("/cuts", name)];
                const asked = lt.ask("POST", path, body);
                const task = await asked.catch((error) => {
                    if (error.status !== 409) throw error; // the look before this one is not through yet
                    return null;
                });
                if (!current()) {
                    if (task && task.state === "running") lt.ask("DELETE", `tasks/${task.id}`).catch(() => null);
                    return null;
                }
                if (task) {
                    bar.oncancel = () => lt.ask("DELETE", `tasks/${task.id}`);
                    return lt.tasks.follow(task, (now) => current() && show(now));
                }
                await lt.wait(EVERY);
            }
        };
        const show = ({state, done, of}) => {
            const facts = {done, count: of || "…"};
            const words = lt.say("Looking for faces and subjects: {done} of {count}", facts);
            if (state === "running") bar.show(words, done, of);
        };
        const draw = (cuts) => {
            grid.replaceChildren(...cuts.map(cell));
            more.hidden = most === MOST || cuts.length < SHOWN;
        };
        /** A panel in a closed fold looks once it is opened. */
        const seen = new IntersectionObserver((entries) => {
            if (!entries.some((entry) => entry.isIntersecting)) return;
            seen.disconnect();
            look();
        });
        lt.on("dataset", () => {
            most = SHOWN;
            grid.replaceChildren();
        });
        return {element, soon};
    };

    const cell = (cut) => {
        const image = lt.make("img", {
            src: lt.set.thumbnail({id: cut.id, original_stamp: cut.stamp}, true), alt: cut.file, decoding: "async",
        });
        const frame = lt.make("div.cut-picture", {style: {aspectRatio: `${cut.width} / ${cut.height}`}}, image);
        frame.append(lt.make("div.cut-box", {style: inside(cut.box, cut)}));
        if (cut.focus) frame.append(lt.make("div.cut-focus", {style: inside(cut.focus, cut)}));
        const words = [around(cut.around), `${cut.size[0]} × ${cut.size[1]}`];
        if (cut.enlarged) words.push(lt.say("enlarged"));
        return lt.make("figure.cut", {title: cut.file}, frame, lt.make("figcaption.hint", {}, words.join(" · ")));
    };

    const inside = ([left, top, right, bottom], {width, height}) => ({
        left: `${(100 * left) / width}%`,
        top: `${(100 * top) / height}%`,
        width: `${(100 * (right - left)) / width}%`,
        height: `${(100 * (bottom - top)) / height}%`,
    });

    const around = (what) => ({
        face: lt.say("around the face"),
        subject: lt.say("around the subject"),
        centre: lt.say("around the centre"),
    })[what];

    /** The job that cuts and tags: {start(uncut), adopt(line)}. */
    const worker = (bar, outcome) => {
        let followed = 0;
        const over = new Set();
        const start = async (uncut) => {
            const prepare = {folder: lt.dataset, uncut};
            outcome.replaceChildren();
            const body = {form: lt.form.all(), prepare, train: false, first: true};
            const job = await lt.ask("POST", "jobs", body).catch((error) => {
                lt.form.tell(error.problems || []);
                throw error;
            });
            lt.form.tell([]);
            follow(job);
            lt.live.now();
        };
        /** One that was started before the page was reloaded, or in another browser. */
        const adopt = (line) => {
            const found = line.find((job) => job.kind === "prepare" && job.name === lt.dataset);
            if (found && found.id !== followed && !over.has(found.id)) follow(found);
        };
        const follow = async (job) => {
            followed = job.id;
            over.delete(job.id);
            const [id, name] = [job.id, job.name];
            bar.oncancel = () => lt.ask("POST", `jobs/${id}/stop`, {}).then(lt.live.now);
            bar.show(lt.say("Waiting in the queue"));
            let offset = 0;
            let events = [];
            let ended = null;
            for (let through = false; !through; ) {
                try {
                    through = lt.hasEnded(job); // asked before the events are, so that none is missed
                    ({events, next: offset} = await lt.ask("GET", `jobs/${id}/events?offset=${offset}`));
                    if (events.length) through = false;
                    for (const event of events) {
                        show(event);
                        if (ENDS.includes(event.event)) ended = event;
                    }
                    job = await lt.ask("GET", `jobs/${id}`);
                } catch (error) {
                    if (error.status === 404) break; // deleted
                }
                if (!through) await lt.wait(EVERY);
            }
            bar.hide();
            over.add(id);
            followed = 0;
            if (name === lt.dataset) outcome.replaceChildren(...said(ended, job));
            lt.tell("pictures", {name});
        };
        const show = (event) => {
            if (event.event === "phase") bar.show(phase(event), event.done, event.of);
            if (event.event === "download") bar.show(fetching(event), event.done, event.total);
            if (event.event === "paused") bar.show(lt.say("Paused"));
            if (event.event === "started") bar.show(lt.say("Starting"));
        };
        return {start, adopt};
    };

    const ENDS = ["prepared", "stopped", "failed"];

    const fetching = ({name}) => lt.say("Fetching {name}", {name});

    const phase = ({name, done, of}) => {
        const facts = {done, count: of};
        if (name === "importing") return lt.say("Importing {done} of {count} pictures", facts);
        if (name === "cutting") return lt.say("Cutting {done} of {count} pictures", facts);
        if (name === "tagging") return lt.say("Tagging {done} of {count} pictures", facts);
        return `${name} ${done} / ${of}`;
    };

    /** What has come of it. */
    const said = (ended, job) => {
        if (ended && ended.event === "prepared") return done(ended);
        if (job.status === "stopped") {
            return [lt.make("p.notice", {}, lt.say("Cancelled. What was done so far is kept."))];
        }
        const cause = job.cause ? lt.say(job.cause) : lt.say("The job has ended without a word.");
        const words = lt.make("p.problem", {role: "alert"}, cause, " ");
        const remedy = job.remedy ? lt.say(job.remedy) : lt.say("Look at its log in the queue.");
        words.append(lt.make("span.remedy", {}, remedy));
        return [words];
    };

    const done = ({pictures, around: cut, enlarged, tagged, edited, left_out: leftOut, notices}) => {
        const parts = [lt.say("{count} pictures are ready.", {count: pictures})];
        if (cut.face) parts.push(lt.say("{count} cut around the face.", {count: cut.face}));
        if (cut.subject) parts.push(lt.say("{count} cut around the subject.", {count: cut.subject}));
        if (cut.centre) parts.push(lt.say("{count} cut around the centre.", {count: cut.centre}));
        if (cut.nothing) parts.push(lt.say("{count} made whole again.", {count: cut.nothing}));
        const small = enlarged.length;
        if (small) parts.push(lt.say("{count} were smaller than the cut and have been enlarged.", {count: small}));
        if (tagged) parts.push(lt.say("{count} tagged.", {count: tagged}));
        const changed = Object.values(edited).reduce((sum, count) => sum + count, 0);
        if (changed) parts.push(lt.say("{count} captions changed.", {count: changed}));
        return [
            lt.make("p.notice", {}, parts.join(" ")),
            ...notices.map((notice) => lt.make("p.notice", {}, lt.say(notice))),
            ...leftOut.map((problem) => lt.make("p.warning", {}, lt.say(problem))),
        ];
    };
})();
