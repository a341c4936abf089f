// Step 2: the files that a Flux has beside its own: found in the host's folders, chosen among several, or missing.
"use strict";

(() => {
    const lt = (window.loraTrainer = window.loraTrainer || {});
    const PARTS = ["clip_l", "t5xxl", "ae", "t5_tokenizer"];
    const HIDDEN = "lora-trainer-hidden";
    const TYPED_MS = 250; // after the last key
    let turn = 0;
    let timer = 0;

    (lt.panels = lt.panels || {}).parts = (element) => {
        const told = lt.make("span.grow", {id: "lora_trainer_parts_told", role: "status"});
        const title = lt.say("Look into the folders of text encoders and VAEs again");
        const again = lt.button("button.small", lt.say("Look again"), () => look(told), title);
        again.id = "lora_trainer_parts_again";
        const changed = () => look(told).then(() => lt.fault(again, null), (error) => lt.fault(again, error));
        element.append(lt.make("div.row", {}, told, again));
        lt.on("base", changed);
        lt.on("form", ({name}) => {
            if (!PARTS.includes(name)) return;
            clearTimeout(timer);
            timer = setTimeout(changed, TYPED_MS);
        });
        changed();
    };

    /** Asks for the parts of the chosen base, with those that the form names, and shows them at their fields. */
    const look = async (told) => {
        const mine = ++turn;
        const wanted = Boolean(lt.base) && lt.base.family === "flux";
        document.getElementById("lora_trainer_with_parts").classList.toggle(HIDDEN, !wanted);
        if (!wanted) return;
        const {parts, others} = await asked(lt.base.name);
        if (mine !== turn) return;
        told.textContent = summary(parts);
        document.querySelectorAll("[data-part]").forEach((old) => old.remove());
        for (const part of parts) lt.form.element(part.setting).append(line(part, others[part.setting] || []));
    };

    const asked = (name) => {
        const named = PARTS.map((setting) => [setting, lt.form.value(setting)]).filter(([, path]) => path);
        return lt.ask("GET", `models/parts?${new URLSearchParams([["name", name], ...named])}`);
    };

    const summary = (parts) => {
        const facts = {count: parts.length, wanted: parts.filter((part) => part.problem).length};
        return facts.wanted
            ? lt.say("Still to be found: {wanted} of the {count} files that this base model needs.", facts)
            : lt.say("The {count} files that this base model needs beside its own are there.", facts);
    };

    /** What stands below a part's field: the file, or what to put where, and a choice where there is one. */
    const line = (part, files) => lt.make(
        "div.panel.part", {dataset: {part: part.setting}},
        files.length > 1 && choice(part.setting, files),
        part.problem ? problem(part) : found(part.file),
    );

    const problem = ({file, problem: what, remedy}) => {
        const told = lt.sentence(file ? `${name(file)}: ${what}` : what);
        return lt.make("p.problem", {}, told, " ", lt.make("span.remedy", {}, lt.sentence(remedy)));
    };

    const found = (path) => {
        const words = path === lt.base.file ? lt.say("in the base model's own file") : name(path);
        return lt.make("span.good", {title: path}, `✓ ${words}`);
    };

    const choice = (setting, files) => {
        const chosen = lt.form.value(setting);
        const option = (path, words) => lt.make("option", {value: path, selected: path === chosen}, words);
        const select = lt.make("select", {"aria-label": lt.say("The file to use")}, [
            option("", lt.say("Found by itself")),
            ...files.map((path) => option(path, distinct(path, files))),
            ...(chosen && !files.includes(chosen) ? [option(chosen, name(chosen))] : []),
        ]);
        select.onchange = () => lt.form.set({[setting]: select.value});
        return select;
    };

    /** The end of a path that no other of the files has. */
    const distinct = (path, files) => {
        const words = path.split(/[\\/]/);
        const ends = words.map((_, count) => words.slice(-1 - count).join("/"));
        const has = (end) => files.filter((each) => each.replaceAll("\\", "/").endsWith(`/${end}`));
        return ends.find((end) => has(end).length === 1) || path;
    };

    const name = (path) => path.split(/[\\/]/).pop();
})();
