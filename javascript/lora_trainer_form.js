// The values of the settings' widgets: gradio tells each change, and shows what is set here.
"use strict";

(() => {
    const lt = (window.loraTrainer = window.loraTrainer || {});
    let values = {};
    let first = {};
    let rateFree = [];
    const form = (lt.form = {});

    form.value = (name) => values[name];

    /** Its value before anything was typed. */
    form.first = (name) => first[name];

    /** Every setting's value, as POST /jobs takes it for `form`. */
    form.all = () => ({...values, dataset_name: lt.dataset});

    /** Gives settings values and shows them. What is no setting of the form is kept for the request all the same. */
    form.set = (changes) => {
        const {dataset_name: dataset, ...others} = changes;
        if (dataset !== undefined && dataset !== lt.dataset) lt.choose(dataset);
        values = {...values, ...others};
        const fill = document.getElementById("lora_trainer_fill");
        if (fill) fill.click();
        changed(Object.keys(others), false);
    };

    /** Folders that a config has named are trained until a set is chosen. */
    lt.on("dataset", () => values.subsets?.length && form.set({subsets: []}));

    /** As it was when the page was first opened. */
    form.reset = () => {
        values = {};
        form.set(first);
    };

    /** Called by gradio when a widget has changed. */
    form.changed = (name, value) => {
        if (JSON.stringify(values[name]) === JSON.stringify(value)) return;
        values[name] = value;
        changed([name], true);
    };

    /** Called by gradio, which shows what it returns. */
    form.fill = (names) => names.map((name) => values[name]);

    const changed = (names, typed) => {
        lt.keep("form", JSON.stringify(values));
        for (const name of names) lt.tell("form", {name, value: values[name], typed});
    };

    /** What was typed before the page was reloaded; only settings that there still are. */
    const draft = () => {
        try {
            const kept = JSON.parse(lt.kept("form") || "{}");
            return Object.fromEntries(Object.entries(kept).filter(([name]) => name in first || name === "subsets"));
        } catch {
            return {};
        }
    };

    (lt.panels = lt.panels || {}).form = (element) => {
        first = JSON.parse(element.dataset.values);
        rateFree = JSON.parse(element.dataset.ratefree);
        values = {...first};
        form.set(draft());
    };

    /** An optimizer that finds its own rate wants 1: shown at once, unless another one was typed. */
    lt.on("form", ({name, value, typed}) => {
        if (name !== "optimizer" || !typed) return;
        const free = rateFree.includes(value);
        if (free && values.learning_rate === first.learning_rate) form.set({learning_rate: "1.0"});
        if (!free && values.learning_rate === "1.0") form.set({learning_rate: first.learning_rate});
    });

    /** Where a setting is filled in, or null: its widget; for the folders, the panel of pictures. */
    form.element = (setting) => {
        const name = setting.split(".")[0];
        return document.getElementById(`lora_trainer_${name === "subsets" ? "pictures" : name}`);
    };

    /** What is wrong, and what to do, in the user's language. */
    form.words = ({setting, ...told}) => {
        if (setting === "subsets" && !lt.dataset) {
            const remedy = lt.say("Drop some into the first panel, or choose a set there.");
            return [lt.say("There are no pictures yet."), remedy];
        }
        return [told.problem, told.remedy].filter(Boolean).map(lt.sentence);
    };

    /** Shows faintly which settings mean nothing as things are. */
    form.dim = (names) => {
        for (const name of Object.keys(first)) {
            form.element(name)?.classList.toggle("lora-trainer-idle", names.includes(name));
        }
    };

    /** Shows problems and remarks beside their fields, in place of those before; returns those that have no field. */
    form.tell = (problems, notices = []) => {
        document.querySelectorAll(".lora-trainer-beside").forEach((old) => old.remove());
        const homeless = [];
        const all = [...problems.map((each) => ["problem", each]), ...notices.map((each) => ["notice", each])];
        for (const [kind, each] of all) {
            const field = form.element(each.setting);
            const sentence = form.words(each).join(" ");
            const look = kind === "problem" ? "span.beside" : "span.beside.warn";
            if (field) field.append(lt.make(look, {dataset: {setting: each.setting}}, sentence));
            else homeless.push({kind, setting: each.setting, sentence});
        }
        return homeless;
    };
})();
