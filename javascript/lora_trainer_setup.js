// Above the steps: the training packages, where they are missing or damaged; their installation, as it goes on.
"use strict";

(() => {
    const lt = (window.loraTrainer = window.loraTrainer || {});
    const EVERY = 500; // milliseconds between two looks while something is being done,
    const RARELY = 5000; // and while nothing is
    const KINDS = {failed: "problem", missing: "warning", ready: "problem"};
    let views = [];
    let facts = {state: "looking", line: "", share: 0, since: 0, lines: []};
    let asked = -Infinity;
    let asking = false;

    (lt.panels = lt.panels || {}).setup = (element) => {
        if (!views.length) begin();
        const view = {element, told: lt.make("p", {role: "status"}), bar: lt.make("div.bar")};
        const scale = {role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100};
        view.progress = lt.make("div.progress", scale, view.bar);
        const install = async () => took(await lt.ask("POST", "setup", {again: damaged()}));
        view.install = lt.button("button.primary", "", install);
        view.install.id = "lora_trainer_install";
        view.row = lt.make("div.row", {}, view.install);
        view.hint = lt.make("div.hint", {},
            lt.make("p", {}, lt.say("Half a GB goes into the extension's folder; the host's Python stays as it is.")),
            lt.make("p", {}, lt.say("All else can be prepared meanwhile; jobs wait until it is done.")));
        view.log = lt.make("pre.log", {id: "lora_trainer_setup_log"});
        view.said = lt.make("details.fold", {}, lt.make("summary", {}, lt.say("What the installer says")), view.log);
        const title = lt.make("h3.title", {}, lt.say("Training packages"));
        element.append(title, view.told, view.progress, view.row, view.hint, view.said);
        views = [...views.filter((other) => other.element.isConnected), view];
        update(view);
    };

    function begin() {
        setInterval(look, EVERY);
        lt.on("jobs", () => views.forEach(update));
    }

    async function look() {
        const pause = ["looking", "installing"].includes(facts.state) ? EVERY : RARELY;
        if (asking || facts.state === "ready" || document.hidden || performance.now() - asked < pause) return;
        asking = true;
        try {
            took(await lt.ask("GET", "setup"));
        } catch (trouble) {
            if (!(trouble instanceof lt.Trouble)) throw trouble; // the host is gone for a while
        } finally {
            asking = false;
            asked = performance.now();
        }
    }

    function took(found) {
        const before = facts.state;
        facts = found;
        if (before !== "ready" && found.state === "ready" && found.lines.length) lt.toast(lt.say(found.line));
        views.forEach(update);
    }

    /** Whether the job that ended last ended for want of a package, since all were there. */
    function damaged() {
        const ended = lt.live.jobs.filter((job) => job.ended_at);
        const last = ended.reduce((best, job) => (job.ended_at > best.ended_at ? job : best), {ended_at: 0});
        return facts.state === "ready" && last.reason === "missing_package" && last.ended_at > facts.since;
    }

    function update({element, told, bar, progress, install, row, hint, said, log}) {
        const {state, line, share, lines} = facts;
        element.dataset.state = state;
        element.hidden = state === "looking" || (state === "ready" && !damaged());
        told.className = `lora-trainer-${KINDS[state] || "notice"}`;
        told.textContent = damaged()
            ? lt.say("A package that training needs is missing or damaged.")
            : lt.say(line) || lt.say("Starting");
        progress.hidden = state !== "installing";
        progress.setAttribute("aria-valuenow", Math.round(100 * share));
        progress.classList.toggle("lora-trainer-unknown", !share);
        bar.style.width = share ? `${100 * share}%` : "";
        row.hidden = state === "installing";
        install.textContent = words(state);
        hint.hidden = ["failed", "ready"].includes(state);
        said.hidden = !lines.length;
        log.textContent = lines.join("\n");
        log.scrollTop = log.scrollHeight;
    }

    function words(state) {
        if (state === "failed") return lt.say("Try again");
        return damaged() ? lt.say("Install the training packages again") : lt.say("Install the training packages");
    }
})();
