// Step 8: the LoRA's name, what stands in the way, and the start.
"use strict";

(() => {
    const lt = (window.loraTrainer = window.loraTrainer || {});

    (lt.panels = lt.panels || {}).start = (element) => {
        const name = lt.make("p.hint", {id: "lora_trainer_name_told"});
        const problems = lt.make("ul.problems", {id: "lora_trainer_problems"});
        const start = lt.make("button.primary", {id: "lora_trainer_start_training"}, lt.say("Start training"));
        const add = lt.make("button", {id: "lora_trainer_add_to_queue"}, lt.say("Add to the queue"));
        const told = lt.make("span.hint", {id: "lora_trainer_start_told", role: "status"});
        start.onclick = () => begin(start, told, true);
        add.onclick = () => begin(add, told, false);
        element.append(name, problems, lt.make("div.row", {}, start, add, told));
        const called = () => {
            const typed = (lt.form.value("output_name") || "").trim() || lt.dataset;
            name.textContent = typed ? lt.say("The LoRA will be called {name}.safetensors.", {name: typed}) : "";
        };
        lt.on("form", called);
        lt.on("dataset", called);
        lt.on("checked", ({shown}) => problems.replaceChildren(...shown.map(problemItem)));
        called();
    };

    const begin = (button, told, first) => lt.run(button, async () => {
        told.textContent = lt.say("Looking at the settings and the pictures …");
        try {
            const job = await lt.ask("POST", "jobs", {form: lt.form.all(), first});
            lt.forgetProblems();
            told.textContent = lt.say("Job {id} is in the queue.", {id: job.id});
            lt.live.follow(job.id, job);
            if (first) document.getElementById("lora_trainer_fold_progress")?.scrollIntoView({behavior: "smooth"});
        } catch (error) {
            told.textContent = "";
            if (!(error instanceof lt.Trouble) || !error.problems.length) throw error;
            lt.showProblems(error.problems);
        }
    });

    /** A problem in a list, with a way to its field. */
    const problemItem = lt.problemItem = (problem) => {
        const {setting} = problem;
        const field = lt.form.element(setting);
        const go = () => {
            lt.unfold(field);
            field.scrollIntoView({block: "center", behavior: "smooth"});
            field.querySelector("input, textarea")?.focus({preventScroll: true});
        };
        const title = field
            ? lt.make("button.quiet.small", {onclick: go}, label(field, setting))
            : lt.make("span.strong", {}, setting);
        const [what, remedy] = lt.form.words(problem);
        const told = lt.make("span.remedy", {}, remedy || "");
        return lt.make("li.problem", {dataset: {setting}}, title, ` ${what} `, told);
    };

    const label = (field, setting) => {
        const words = setting in lt.form.all() && field.querySelector("[data-testid=block-info], label > span");
        return (words || field.closest(".lora-trainer-fold").querySelector(".label-wrap > span")).textContent.trim();
    };
})();
