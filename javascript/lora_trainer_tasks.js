// Long actions on the server: followed to their end, drawn as a bar, cancelled.
(() => {
    "use strict";

    const lt = (window.loraTrainer = window.loraTrainer || {});
    const EVERY = 250; // milliseconds
    const tasks = (lt.tasks = {});

    /** Calls `draw` with the task as it goes on. Resolves with its result, null if it was cancelled. Throws Trouble. */
    tasks.follow = async (task, draw = () => {}) => {
        draw(task);
        while (task.state === "running") {
            await lt.wait(EVERY);
            task = await lt.ask("GET", `tasks/${task.id}`);
            draw(task);
        }
        if (task.state === "cancelled") return null;
        if (task.state === "finished") return task.result;
        const told = task.problems.map((each) => lt.problem(each)).join(" ");
        throw new lt.Trouble(told || lt.say(task.detail), 422, task.problems);
    };

    /** The running task of a kind on the chosen set, or null: after a reload of the page. */
    tasks.running = async (kind) => {
        if (!lt.dataset) return null;
        const answer = await lt.ask("GET", `tasks?dataset=${encodeURIComponent(lt.dataset)}`);
        return answer.tasks.find((task) => task.kind === kind && task.state === "running") || null;
    };

    /** A bar with a sentence and Cancel: {element, show(sentence, done, of), hide(), oncancel}. */
    tasks.bar = () => {
        const sentence = lt.make("span.grow", {});
        const line = lt.make("div.bar");
        const progress = lt.make("div.progress", {role: "progressbar"}, line);
        const cancel = lt.make("button.small", {onclick: () => {
            cancel.disabled = true;
            bar.oncancel();
        }}, lt.say("Cancel"));
        const row = lt.make("div.row", {}, sentence, cancel);
        const bar = {
            element: lt.make("div.task", {hidden: true, ariaLive: "polite"}, row, progress),
            show(said, done = 0, of = 0) {
                if (bar.element.hidden) cancel.disabled = false;
                bar.element.hidden = false;
                sentence.textContent = said;
                progress.classList.toggle("lora-trainer-unknown", !of);
                line.style.width = of ? `${(100 * done) / of}%` : "";
            },
            hide: () => {
                bar.element.hidden = true;
            },
            oncancel: () => {},
        };
        return bar;
    };

    lt.wait = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

    /** What a problem is about, "" where that is the pictures as a whole; the value says more than its setting. */
    const subject = ({setting, value}) => {
        if (value !== null && value !== undefined) return String(value);
        return setting === "pictures" ? "" : setting;
    };

    /** A problem in one line: what it is about, what is wrong with it, what to do. */
    lt.problem = (problem) => {
        const told = [problem.problem, problem.remedy].filter(Boolean).map(lt.sentence).join(" ");
        return [subject(problem), told].filter(Boolean).join(": ");
    };

    /** Problems as a list, the first ones of many. */
    lt.problems = (problems, most = 20) => {
        const shown = problems.slice(0, most).map((each) => lt.make("li.problem", {},
            subject(each) ? lt.make("strong.strong", {}, subject(each), " ") : null,
            `${lt.sentence(each.problem)} `, lt.make("span.remedy", {}, lt.say(each.remedy))));
        const more = problems.length - most;
        if (more > 0) shown.push(lt.make("li.problem", {}, lt.say("… and {count} more", {count: more})));
        return lt.make("ul.problems", {}, shown);
    };
})();
