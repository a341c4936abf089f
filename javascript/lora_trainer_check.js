// What the server says of the form while it is filled in: problems, remarks, steps, time and memory.
"use strict";

(() => {
    const lt = (window.loraTrainer = window.loraTrainer || {});
    const PAUSE_MS = 250; // after the last key
    const touched = new Set();
    let asked = false; // whether somebody wanted to start: from then on every problem is shown
    let timer = 0;
    let turn = 0;

    /** The latest answer: {problems, notices, estimate, steps, pictures}; null before the first. */
    lt.checked = null;

    /** Shows all problems from now on, not only those of settings that were touched. */
    lt.showProblems = (problems) => {
        asked = true;
        lt.checked = {...(lt.checked || {notices: []}), problems};
        show();
    };

    /** Says no more of what was typed: a job has been made of it, whose name is taken from then on. */
    lt.forgetProblems = () => {
        asked = false;
        touched.clear();
        lt.checked = {...(lt.checked || {}), problems: [], notices: []};
        show();
    };

    const look = async () => {
        const mine = ++turn;
        try {
            const found = await lt.ask("POST", "config/check", {form: lt.form.all(), quick: true});
            if (mine !== turn) return;
            lt.checked = found;
            show();
        } catch (error) {
            if (!(error instanceof lt.Trouble)) throw error;
        }
    };

    const show = () => {
        const {problems, notices, idle} = lt.checked;
        if (idle) lt.form.dim(idle);
        const shown = asked ? problems : problems.filter((each) => touched.has(each.setting.split(".")[0]));
        const others = lt.form.tell(shown, notices);
        lt.tell("checked", {...lt.checked, shown, others: others.filter((each) => each.kind === "problem")});
    };

    const soon = () => {
        clearTimeout(timer);
        timer = setTimeout(look, PAUSE_MS);
    };

    lt.on("form", ({name, typed}) => {
        if (typed) touched.add(name);
        soon();
    });
    lt.on("pictures", soon);
    lt.on("dataset", soon);
    lt.on("loras", soon);
})();
