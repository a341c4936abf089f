// An epoch kept in the LoRA folder: its name there, the weight and the picture on its card.
"use strict";

(() => {
    const lt = (window.loraTrainer = window.loraTrainer || {});

    /** Asks how to keep a job's LoRA, and keeps it. Resolves with its name once it is kept, with null if it is not. */
    lt.keepLora = async (job, file, {weight, picture} = {}) => {
        const offered = await offer(job, file);
        const given = {...offered, picture, weight: weight || offered.weight, isChosen: Boolean(weight)};
        return new Promise((resolve) => open(job, file, given, resolve));
    };

    /** A free name from this one on, and what its card may have. */
    const offer = (job, file, name) => {
        const query = new URLSearchParams(name ? {file, name} : {file});
        return lt.ask("GET", `jobs/${job.id}/keep?${query}`);
    };

    function open(job, file, given, resolve) {
        const view = {job, file, given, kept: null};
        const range = {type: "number", min: 0.01, max: 2, step: 0.01, required: true};
        view.name = lt.make("input", {type: "text", value: given.name, id: "lora_trainer_keep_name"});
        view.weight = lt.make("input", {...range, value: given.weight, id: "lora_trainer_keep_weight"});
        view.pictures = pictures(job, given.pictures, given.picture);
        view.yes = lt.make("button.primary", {id: "lora_trainer_keep"}, lt.say("Keep"));
        const no = lt.make("button", {type: "button", onclick: () => dialog.close()}, lt.say("Cancel"));
        const form = lt.make("form.column", {method: "dialog"},
            lt.make("label.field", {}, lt.say("Its name in the LoRA folder"), view.name),
            lt.make("label.field", {}, lt.say("Weight on its card"), view.weight),
            view.pictures.element,
            lt.make("div.buttons", {}, no, view.yes));
        const dialog = (view.dialog = lt.make("dialog.panel.dialog", {}, form));
        dialog.addEventListener("close", () => {
            dialog.remove();
            resolve(view.kept);
        });
        form.onsubmit = (event) => {
            event.preventDefault();
            lt.run(view.yes, () => keep(view));
        };
        lt.home().append(dialog);
        dialog.showModal();
        view.name.select();
    }

    /** The previews of which one comes onto the card; nothing is to choose where there is one at most. */
    function pictures(job, names, chosen) {
        const first = names.includes(chosen) ? chosen : names[0];
        const choices = names.map((name) => {
            const value = {type: "radio", name: "lora_trainer_keep_picture", value: name, checked: name === first};
            const image = lt.make("img", {src: lt.sampleUrl(job.id, name), alt: name});
            return lt.make("label.keep-picture", {}, lt.make("input", value), image);
        });
        const title = lt.make("span", {}, lt.say("Picture on its card"));
        const element = lt.make("div.field", {hidden: names.length < 2}, title, lt.make("div.row", {}, choices));
        return {element, chosen: () => element.querySelector("input:checked")?.value};
    }

    async function keep(view, replace = false) {
        const name = view.name.value.trim();
        const chosen = view.given.isChosen || Number(view.weight.value) !== view.given.weight;
        const weight = chosen ? {weight: Number(view.weight.value)} : {}; // a card that is there keeps its own
        const given = {file: view.file, name, ...weight, picture: view.pictures.chosen(), replace};
        try {
            await lt.ask("POST", `jobs/${view.job.id}/keep`, given);
        } catch (trouble) {
            return stopped(view, trouble, name);
        }
        view.kept = name;
        view.dialog.close();
        lt.tell("loras");
        lt.toast(lt.say("{name} is in My LoRAs.", {name}), {verb: lt.say("Show"), act: () => lt.show("loras")});
        return undefined;
    }

    /** Another epoch of this job gives way if that is wanted. Where another file has the name, a free one is offered. */
    async function stopped(view, trouble, name) {
        const [problem] = trouble.problems || [];
        if (problem?.setting === "replace") {
            const sentence = `${lt.sentence(problem.problem)} ${lt.say("Put this one in its place?")}`;
            return (await lt.confirm(sentence, lt.say("Replace"))) ? keep(view, true) : undefined;
        }
        const free = await offer(view.job, view.file, name).catch(() => null); // a name that no file can have
        if (free && problem?.setting === "name") {
            view.name.value = free.name;
            view.name.select();
        }
        throw trouble;
    }
})();
