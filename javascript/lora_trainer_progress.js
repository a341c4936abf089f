// What the shown job does: its state, numbers, plots, newest previews and words; buttons tell it what to do.
"use strict";

(() => {
    const lt = (window.loraTrainer = window.loraTrainer || {});
    const MOST_POINTS = 2000;
    const MOST_REMARKS = 200;
    const SPEED_OVER = 60; // steps
    const LOG_LINES = 60;
    const LOG_EVERY = 2000; // milliseconds

    // ---- what a job has told

    let story = fresh();

    function fresh() {
        const lists = {points: [], recent: [], samples: [], remarks: [], problems: []};
        return {...lists, start: null, phase: null, step: null, heeded: new Set(), at: 0};
    }

    const TAKEN_IN = {
        started(event) {
            const before = (one) => one.step <= event.step;
            story.points = story.points.filter(before);
            story.samples = story.samples.filter(before);
            Object.assign(story, {start: event, phase: null, step: null, recent: [], problems: []});
            if (event.step) remark(event, lt.say("Goes on after step {step}.", {step: event.step}));
        },
        phase(event) {
            story.phase = event;
        },
        download(event) {
            story.phase = {name: event.name, done: event.done, of: event.total, bytes: true};
        },
        progress(event) {
            while (story.points.length && story.points[story.points.length - 1].step >= event.step) story.points.pop();
            const {step, loss, average, rates, at} = event;
            story.points.push({step, loss, average, rates});
            story.points = lt.plots.thinned(story.points, MOST_POINTS);
            story.recent = [...story.recent.slice(1 - SPEED_OVER), {step, at}];
            Object.assign(story, {step: event, phase: null});
        },
        sample(event) {
            story.samples = [...story.samples.filter((other) => other.path !== event.path), event];
        },
        saved(event) {
            remark(event, lt.say("Saved {file}.", {file: fileName(event.path)}));
        },
        warning(event) {
            remark(event, lt.say(event.message), "warn");
        },
        adjusted(event) {
            remark(event, lt.say(event.sentence), "warn");
        },
        paused(event) {
            story.recent = [];
            const freed = Math.round((event.freed || 0) / 2 ** 20);
            remark(event, freed ? lt.say("Paused; {count} MiB came off the GPU.", {count: freed}) : lt.say("Paused."));
        },
        resumed(event) {
            story.recent = [];
            remark(event, lt.say("Goes on."));
        },
        heeded(event) {
            story.heeded.add(event.id);
        },
        failed(event) {
            story.problems = event.problems || [];
        },
    };

    function takeIn(event) {
        if (TAKEN_IN[event.event]) TAKEN_IN[event.event](event);
        story.at = event.at;
    }

    /** The newest step that the job's worker has told; its row stands in where only an earlier worker has told any. */
    const stepOf = (job) => (hasTold(job) && story.step) || job;

    const hasTold = (job) => story.at >= (job.started_at || 0);

    function remark(event, text, kind = "") {
        story.remarks = [...story.remarks.slice(1 - MOST_REMARKS), {at: event.at, text, kind}];
    }

    const fileName = (path) => path.split(/[\\/]/).pop();

    // ---- in words

    const STATUSES = {
        queued: () => lt.say("Waiting"),
        running: () => lt.say("Running"),
        paused: () => lt.say("Paused"),
        finished: () => lt.say("Finished"),
        failed: () => lt.say("Failed"),
        stopped: () => lt.say("Stopped"),
        interrupted: () => lt.say("Interrupted"),
    };
    const TONES = {good: ["running", "finished"], warn: ["paused", "stopped"], bad: ["failed", "interrupted"]};
    const PHASES = {
        "text encoders": () => lt.say("Reads the captions"),
        pictures: () => lt.say("Reads the pictures"),
        "base model": () => lt.say("Loads the base model"),
        memory: () => lt.say("Tries how much memory a step takes"),
        importing: () => lt.say("Takes in the pictures"),
        cutting: () => lt.say("Cuts the pictures"),
        tagging: () => lt.say("Describes the pictures"),
        grid: () => lt.say("Draws the grid"),
    };

    /** A job's state in a word. */
    lt.statusWord = (status) => (STATUSES[status] ? STATUSES[status]() : status);

    /** What is said as long as nothing answers. */
    lt.lostWords = () => lt.say("The WebUI does not answer. What is shown here is old; it is asked again and again.");

    /** An element that says a job's state: the word, and its colour. */
    lt.badge = (element, status) => {
        element.textContent = lt.statusWord(status);
        for (const [tone, statuses] of Object.entries(TONES)) {
            element.classList.toggle(`lora-trainer-${tone}`, statuses.includes(status));
        }
        return element;
    };

    /** Seconds as 0:07, 12:05 or 3:07:00. */
    lt.duration = (seconds) => {
        const whole = Math.max(0, Math.round(seconds));
        const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
        const [hours, ...rest] = parts.map((part) => String(part).padStart(2, "0"));
        return (parts[0] ? [parts[0], ...rest] : [parts[1], rest[1]]).join(":");
    };

    /** A time in seconds since 1970 as this place's clock shows it, with the day where it is another one. */
    lt.when = (at) => {
        const time = new Date(at * 1000);
        const today = time.toDateString() === new Date().toDateString();
        return today ? time.toLocaleTimeString() : time.toLocaleString();
    };

    function stateOf(job) {
        if (live().lost) return lt.lostWords();
        if (job.status === "queued") return waiting(job);
        if (job.status === "paused") return lt.say("Paused: the GPU is free for other things.");
        if (job.status === "running") return hasTold(job) ? working() : lt.say("The worker starts.");
        return ended(job);
    }

    function waiting(job) {
        const place = live().line.findIndex((other) => other.id === job.id);
        if (live().supervisor && live().supervisor.watching) return lt.say(live().supervisor.watching);
        if (place > 0) return lt.say("Waits in the queue: {place} before it.", {place});
        return lt.say("Starts in a moment.");
    }

    function working() {
        const {phase, step, start} = story;
        if (phase) return phaseOf(phase);
        if (step) return lt.say("Trains: epoch {epoch} of {epochs}.", step);
        return start ? lt.say("Gets ready.") : lt.say("The worker starts.");
    }

    function phaseOf({name, done, of, bytes}) {
        const word = PHASES[name] ? PHASES[name]() : bytes ? lt.say("Downloads {name}", {name}) : lt.say(name);
        if (!of) return `${word} …`;
        return bytes ? `${word}: ${Math.floor((100 * done) / of)} %` : `${word}: ${done} / ${of}`;
    }

    function ended(job) {
        const time = job.started_at && job.ended_at ? lt.duration(job.ended_at - job.started_at) : "–";
        if (job.status === "finished") {
            const file = job.lora && fileName(job.lora);
            return file ? lt.say("Finished in {time}: {file}", {time, file}) : lt.say("Finished in {time}.", {time});
        }
        if (job.status === "stopped" && job.steps) {
            return lt.say("Stopped after step {step} of {steps}; it can go on from there.", job);
        }
        return job.steps ? lt.say("After step {step} of {steps}.", job) : "";
    }

    function doneOf(job) {
        const {phase, step} = story;
        if (job.status === "finished") return 1;
        if (phase && phase.of && !step && hasTold(job)) return phase.done / phase.of;
        const at = stepOf(job);
        return at.steps ? at.step / at.steps : 0;
    }

    function factsOf(job) {
        const at = stepOf(job);
        const facts = [];
        if (at.steps) facts.push([lt.say("Step"), `${at.step} / ${at.steps}`]);
        if (at.epochs) facts.push([lt.say("Epoch"), `${at.epoch} / ${at.epochs}`]);
        const pace = paceOf();
        if (job.status === "running" && pace && hasTold(job)) {
            facts.push([lt.say("Speed"), speed(pace)]);
            facts.push([lt.say("Time left"), lt.duration((at.steps - at.step) * pace)]);
        }
        const loss = at === job ? job.loss : at.average;
        if (loss !== null && at.steps) facts.push([lt.say("Loss"), lt.plots.short(loss)]);
        if (at.rates) facts.push([lt.say("Learning rate"), at.rates.map(lt.plots.short).join(", ")]);
        return facts;
    }

    /** Seconds for a step, with whatever lies between two; 0 where too little is known. */
    function paceOf() {
        const [first, last] = [story.recent[0], story.recent[story.recent.length - 1]];
        return story.recent.length > 2 ? (last.at - first.at) / (last.step - first.step) : 0;
    }

    function speed(pace) {
        const number = (value) => Number(value.toPrecision(2));
        if (pace < 1) return lt.say("{count} steps/s", {count: number(1 / pace)});
        return lt.say("{count} s per step", {count: number(pace)});
    }

    // ---- what a job can be told

    const ACTIVE = ["running", "paused"];
    const CUT_SHORT = ["stopped", "failed", "interrupted"];
    const TRAINING = ["train"];
    const COMMANDS = {
        pause: {label: () => lt.say("Pause"), to: ["running"]},
        resume: {label: () => lt.say("Resume"), to: ["paused", ...CUT_SHORT], primary: true},
        save: {label: () => lt.say("Save now"), to: ACTIVE, kinds: TRAINING},
        sample: {label: () => lt.say("Preview now"), to: ["running"], kinds: TRAINING},
        stopAndSave: {
            label: () => lt.say("Stop and save"), to: ACTIVE, kinds: TRAINING, path: "stop", body: {save: true},
        },
        stop: {label: () => lt.say("Stop"), to: ["queued", ...ACTIVE]},
        retry: {label: () => lt.say("Start again"), to: CUT_SHORT},
    };

    function buttonsOf(view) {
        return Object.entries(COMMANDS).map(([name, command]) => {
            const style = command.primary ? "button.primary" : "button";
            const button = lt.make(style, {id: `lora_trainer_progress_${name}`}, command.label());
            button.addEventListener("click", () => lt.run(button, () => send(view, name, command)));
            return [button, name, command];
        });
    }

    async function send(view, name, command) {
        const answer = await lt.ask("POST", `jobs/${view.id}/${command.path || name}`, command.body);
        if (answer.command) view.asked.set(name, answer.command);
        await live().now();
    }

    function updateButtons(view, job) {
        for (const [button, name, {to, kinds}] of view.buttons) {
            const asked = view.asked.get(name);
            const waits = asked && !story.heeded.has(asked) && !lt.hasEnded(job);
            if (!waits) view.asked.delete(name);
            button.hidden = !to.includes(job.status) || Boolean(kinds && !kinds.includes(job.kind));
            button.classList.toggle("lora-trainer-asked", Boolean(waits));
            button.title = waits ? lt.say("Asked; it is done after this step.") : "";
        }
        view.actions.hidden = view.buttons.every(([button]) => button.hidden);
    }

    // ---- the panel

    let views = [];
    let listening = false;

    function draw(element) {
        if (!listening) listen();
        views = views.filter((view) => view.element.isConnected);
        const view = {element, id: 0, asked: new Map(), log: "", logAt: 0};
        view.empty = lt.make("p.empty", {}, lt.say("Nothing is being trained. What you start is shown here."));
        view.body = lt.make("div.live", {hidden: true}, ...headOf(view), ...restOf(view));
        element.replaceChildren(view.empty, view.body);
        views.push(view);
        update(view);
    }

    function headOf(view) {
        view.name = lt.make("strong.title");
        view.badge = lt.make("span.badge");
        view.state = lt.make("span.live-state", {role: "status"});
        view.other = lt.make("button.quiet.small", {hidden: true});
        view.other.onclick = () => live().follow(live().line[0].id);
        view.bar = lt.make("div.bar");
        view.track = lt.make("div.progress", {role: "progressbar"}, view.bar);
        view.facts = lt.make("dl.live-facts");
        view.buttons = buttonsOf(view);
        view.actions = lt.make("div.row", {}, ...view.buttons.map(([button]) => button));
        view.failure = lt.make("div.problem", {hidden: true, role: "alert"});
        return [
            lt.make("div.live-head", {}, view.name, view.badge, view.state, view.other),
            view.track,
            view.facts,
            view.actions,
            view.failure,
        ];
    }

    function restOf(view) {
        view.loss = lt.plots.plot(lt.say("Loss"), () => [
            {name: lt.say("each step"), faint: true, value: (point) => point.loss},
            {name: lt.say("smoothed"), value: (point) => point.average},
        ]);
        view.rate = lt.plots.plot(lt.say("Learning rate"), ratesOf, {fromZero: true});
        view.plots = lt.make("div.plots", {}, view.loss.element, view.rate.element);
        view.previews = lt.make("div.previews");
        view.remarks = lt.make("ul.remarks");
        view.lines = lt.make("pre.log", {tabIndex: 0});
        view.logFold = lt.make("details.fold", {}, lt.make("summary", {}, lt.say("Log")), view.lines);
        view.logFold.addEventListener("toggle", () => updateLog(view));
        view.remarkFold = lt.make("details.fold", {open: true}, lt.make("summary", {}, lt.say("Events")), view.remarks);
        return [view.plots, view.previews, view.remarkFold, view.logFold];
    }

    function ratesOf(points) {
        const count = Math.max(1, ...points.slice(-1).map((point) => point.rates.length));
        const name = (place) => (count === 1 ? lt.say("rate") : lt.say("rate {number}", {number: place + 1}));
        return Array.from({length: count}, (_, place) => ({name: name(place), value: (point) => point.rates[place]}));
    }

    function update(view) {
        const job = live().job(lt.job);
        view.empty.hidden = Boolean(job);
        view.body.hidden = !job;
        if (!job) return;
        if (view.id !== job.id) Object.assign(view, {id: job.id, log: "", logAt: 0, asked: new Map()});
        view.name.textContent = lt.say("Job {id}: {name}", job);
        lt.badge(view.badge, job.status);
        view.state.textContent = stateOf(job);
        updateOther(view, job);
        updateBar(view, job);
        updateButtons(view, job);
        updateFailure(view, job);
        updatePictures(view, job);
        updateRemarks(view);
        updateLog(view);
        view.plots.hidden = !story.points.length;
        view.loss.draw(story.points);
        view.rate.draw(story.points);
    }

    /** Where another job runs, a way to it. */
    function updateOther(view, job) {
        const [first] = live().line;
        view.other.hidden = !first || first.id === job.id || first.status === "queued";
        if (!view.other.hidden) view.other.textContent = lt.say("Job {id} is at work: show it", first);
    }

    function updateBar(view, job) {
        const done = doneOf(job);
        view.bar.style.width = `${100 * done}%`;
        view.track.setAttribute("aria-valuenow", Math.round(100 * done));
        const facts = factsOf(job).flatMap(([name, value]) => [
            lt.make("div.fact", {}, lt.make("dt", {}, name), lt.make("dd", {}, value)),
        ]);
        view.facts.replaceChildren(...facts);
        view.facts.hidden = !facts.length;
    }

    function updateFailure(view, job) {
        const failed = ["failed", "interrupted"].includes(job.status);
        const told = failed ? `${job.id} ${job.attempts} ${job.cause} ${story.problems.length}` : "";
        view.failure.hidden = !failed;
        if (view.failure.dataset.told === told) return;
        view.failure.dataset.told = told;
        const whole = [lt.make("p.strong", {}, lt.say(job.cause)), lt.make("p", {}, lt.say(job.remedy))];
        const each = [lt.make("ul.problems", {}, story.problems.map(lt.problemItem))];
        view.failure.replaceChildren(...(story.problems.length ? each : whole));
        view.failure.classList.toggle("lora-trainer-problem", !story.problems.length);
        if (failed) view.logFold.open = true;
    }

    function updatePictures(view, job) {
        const numbers = [...new Set(story.samples.map((sample) => sample.number))].sort((one, other) => one - other);
        const told = JSON.stringify([job.id, story.samples.length, story.samples[story.samples.length - 1]]);
        view.previews.hidden = !numbers.length;
        if (view.previews.dataset.told === told) return;
        view.previews.dataset.told = told;
        const pairs = () => numbers.map((number) => pairOf(job, number));
        view.previews.replaceChildren(...(job.kind === "grid" ? gridOf(job) : pairs()));
    }

    /** The newest preview of a prompt beside the one that was drawn before training. */
    function pairOf(job, number) {
        const own = story.samples.filter((sample) => sample.number === number);
        const [first, last] = [own.find((sample) => sample.step === 0), own[own.length - 1]];
        const pictures = [...new Set([first, last])].filter(Boolean).map((sample) => pictureOf(job, sample));
        const row = lt.make("div.pair-pictures", {}, ...pictures);
        return lt.make("div.pair", {}, row, lt.make("p.hint", {}, last.prompt || ""));
    }

    function pictureOf(job, sample) {
        const caption = sample.step ? lt.say("Epoch {epoch}, step {step}", sample) : lt.say("Before training");
        return figure(lt.sampleUrl(job.id, sample.path), caption, sample.prompt || "");
    }

    /** The sheet of a grid; until there is one, its pictures as they come. */
    function gridOf(job) {
        const sheet = story.samples.find((sample) => sample.weight === undefined);
        const shown = (sample, caption) => figure(lt.sampleUrl(job.id, sample.path), caption, sample.prompt);
        if (!sheet) return story.samples.map((sample) => shown(sample, weightOf(sample)));
        const grid = shown(sheet, job.name);
        grid.classList.add("lora-trainer-grid-picture");
        return [grid];
    }

    const weightOf = (sample) => (sample.weight ? lt.say("Weight {weight}", sample) : lt.say("Without the LoRA"));

    function figure(src, caption, alt) {
        const picture = lt.make("img.preview", {src, alt});
        const link = lt.make("a", {href: src, target: "_blank", rel: "noopener"}, picture);
        return lt.make("figure.shown", {}, link, lt.make("figcaption", {}, caption));
    }

    function updateRemarks(view) {
        const told = String(story.remarks.length && story.remarks[story.remarks.length - 1].at) + story.remarks.length;
        view.remarkFold.hidden = !story.remarks.length;
        if (view.remarks.dataset.told === told) return;
        view.remarks.dataset.told = told;
        const lines = [...story.remarks].reverse().map(({at, text, kind}) =>
            lt.make(kind ? `li.${kind}` : "li", {}, lt.make("time", {}, lt.when(at)), " ", text));
        view.remarks.replaceChildren(...lines);
    }

    async function updateLog(view) {
        const due = performance.now() - view.logAt > LOG_EVERY;
        if (!view.logFold.open || !due || !view.id || !view.element.offsetParent) return;
        view.logAt = performance.now();
        const unread = () => ({lines: [view.log]}); // whoever is gone is told of elsewhere
        const {lines} = await lt.ask("GET", `jobs/${view.id}/log?lines=${LOG_LINES}`).catch(unread);
        const text = lines.join("\n");
        if (text === view.log) return;
        const atEnd = view.lines.scrollHeight - view.lines.scrollTop - view.lines.clientHeight < 30;
        view.log = view.lines.textContent = text;
        if (atEnd) view.lines.scrollTop = view.lines.scrollHeight;
    }

    const live = () => lt.live;

    (lt.panels = lt.panels || {}).progress = draw;

    function listen() {
        listening = true;
        lt.on("job", ({events, anew}) => {
            if (anew) story = fresh();
            events.forEach(takeIn);
            views.forEach(update);
        });
        lt.on("jobs", () => views.forEach(update));
    }
})();
