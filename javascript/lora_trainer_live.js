// The only poller: what the queue does and what the shown job tells, as often as somebody can see it.
// Nothing holds a connection open, so that a host that is busy, restarted or gone for a while costs nothing.
"use strict";

(() => {
    const lt = (window.loraTrainer = window.loraTrainer || {});
    const BUSY = 600; // milliseconds between two looks while a job is unfinished,
    const IDLE = 3000; // while there is none,
    const UNSEEN = 15000; // and while nobody looks
    const WHOLE = 10000; // how old the list of all jobs may be
    const POINTS = 1000; // of what comes with each step, that many are enough for a beginning
    const BATCH = 1000; // events in one answer
    const ENDED = ["finished", "failed", "stopped", "interrupted"];

    const live = (lt.live = {jobs: [], line: [], supervisor: null, lost: false});
    const shown = {id: 0, chosen: 0, offset: -1, over: ""};
    let asked = -Infinity;
    let listed = -Infinity;
    let list = "";
    let running = null;

    /** The newest row known of a job, or undefined. */
    live.job = (id) => live.line.find((job) => job.id === id) || live.jobs.find((job) => job.id === id);

    /** Shows this job in the progress panel from now on. `job`: its row, where that is known before the next look. */
    live.follow = (id, job) => {
        if (job && !live.job(id)) live.jobs = [job, ...live.jobs];
        shown.chosen = id;
        show(id);
        return live.now();
    };

    /** Looks at once, after a look that is going on. */
    live.now = async () => {
        while (running) await running;
        listed = -Infinity;
        return look();
    };

    /** The address of a job's picture, of the path that an event names or of its file's name. */
    lt.sampleUrl = (id, path) => lt.url(`jobs/${id}/samples/${encodeURIComponent(path.split(/[\\/]/).pop())}`);

    lt.hasEnded = (job) => ENDED.includes(job.status);

    function show(id) {
        if (id === shown.id) return;
        Object.assign(shown, {id, offset: -1, over: ""});
        lt.job = id;
        lt.tell("job", {id, job: live.job(id), events: [], anew: true});
    }

    /** What is shown: what was chosen, else what runs, else what ended last. */
    function choose() {
        if (shown.chosen && live.job(shown.chosen)) return show(shown.chosen);
        if (live.line.length) return show(live.line[0].id);
        if (shown.id && live.job(shown.id)) return;
        const ended = (job) => job.ended_at || 0;
        show(live.jobs.reduce((best, job) => (ended(job) > ended(best) ? job : best), {id: 0}).id);
    }

    async function look() {
        running = looked();
        await running;
        asked = performance.now();
        running = null;
    }

    async function looked() {
        try {
            await Promise.all([lookAtQueue(), lookAtJob()]);
            if (shown.offset < 0 || isEnding()) await lookAtJob(); // by what the queue has told only now
            found(false);
        } catch (trouble) {
            found(!trouble.status || trouble.status >= 500);
            if (trouble.status === 404) Object.assign(shown, {id: 0, chosen: 0}); // deleted
        }
    }

    async function lookAtQueue() {
        const {jobs, supervisor} = await lt.ask("GET", "queue");
        const before = live.line.map((job) => `${job.id} ${job.status}`).join();
        const changed = before !== jobs.map((job) => `${job.id} ${job.status}`).join();
        const gone = live.line.filter((job) => !jobs.some((other) => other.id === job.id));
        Object.assign(live, {line: jobs, supervisor});
        if (changed || performance.now() - listed > WHOLE) {
            live.jobs = (await lt.ask("GET", "jobs?limit=100")).jobs;
            listed = performance.now();
            gone.forEach(tellOfFailure);
        } else {
            live.jobs = live.jobs.map((job) => jobs.find((other) => other.id === job.id) || job);
        }
        choose();
        tell();
    }

    async function lookAtJob() {
        const {id} = shown;
        if (!id || shown.over) return stillOver(live.job(id));
        const ended = isEnding() && stamp(live.job(id)); // asked before the events are, so that none is missed
        let events;
        do {
            const anew = shown.offset < 0;
            const part = anew ? `points=${POINTS}` : `offset=${shown.offset}&limit=${BATCH}`;
            const answer = await lt.ask("GET", `jobs/${id}/events?${part}`);
            if (shown.id !== id) return;
            events = answer.events;
            shown.offset = answer.next;
            if (anew || events.length) lt.tell("job", {id, job: live.job(id), events, anew});
        } while (events.length === BATCH);
        if (ended && !events.length) shown.over = ended;
    }

    /** Whether the shown job has ended, and may have told more than is known. */
    function isEnding() {
        const job = live.job(shown.id);
        return Boolean(job) && lt.hasEnded(job) && !shown.over;
    }

    /** A job that had ended may go on. */
    function stillOver(job) {
        if (job && shown.over !== stamp(job)) shown.over = "";
    }

    const stamp = (job) => `${job.status} ${job.attempts} ${job.ended_at}`;

    function found(lost) {
        if (live.lost === lost) return;
        live.lost = lost;
        tell();
    }

    function tell() {
        const facts = {jobs: live.jobs, line: live.line, supervisor: live.supervisor, lost: live.lost};
        const text = JSON.stringify(facts);
        if (text === list) return;
        list = text;
        lt.tell("jobs", facts);
    }

    function tellOfFailure({id}) {
        const job = live.job(id);
        if (!job || id === shown.id || !["failed", "interrupted"].includes(job.status)) return;
        lt.toast(lt.say("{name} has failed: {cause}", {name: job.name, cause: lt.say(job.cause)}), {
            verb: lt.say("Show"),
            act: () => {
                live.follow(id);
                lt.show("train");
            },
        });
    }

    const panels = () => [...document.querySelectorAll(".lora-trainer-panel[data-drawn]")];

    function pause() {
        if (document.hidden || !panels().some((panel) => panel.offsetParent)) return UNSEEN;
        return live.line.length || live.lost || (shown.id && !shown.over) ? BUSY : IDLE;
    }

    setInterval(() => {
        if (!running && panels().length && performance.now() - asked >= pause()) look();
    }, 200);
})();
