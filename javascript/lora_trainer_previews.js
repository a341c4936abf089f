// Step 7: prompts for the previews, from the set's own captions.
"use strict";

(() => {
    const lt = (window.loraTrainer = window.loraTrainer || {});
    const MOST = 3;

    (lt.panels = lt.panels || {}).previews = (element) => {
        const fromCaptions = lt.make("button.small", {
            id: "lora_trainer_prompts_from_captions",
            onclick: () => lt.run(fromCaptions, takeCaptions),
        }, lt.say("Take captions of my pictures"));
        const trigger = lt.make("button.small", {onclick: addTrigger}, lt.say("Add the trigger word"));
        const hint = lt.make("p.hint", {}, lt.say(
          "One prompt a line. Every epoch draws each of them with the same seed, and so does the untrained base model.",
        ));
        element.append(lt.make("div.row", {}, fromCaptions, trigger), hint);
    };

    const takeCaptions = async () => lt.form.set({preview_prompts: (await captions()).join("\n")});

    const captions = async () => {
        const answer = await lt.ask("GET", `datasets/${encodeURIComponent(lt.dataset)}/pictures?limit=1000`);
        const lines = [...new Set(answer.pictures.map((picture) => picture.line).filter(Boolean))];
        if (!lines.length) throw new lt.Trouble(lt.say("The pictures have no captions yet."));
        const every = Math.max(1, Math.floor(lines.length / MOST));
        return lines.filter((line, index) => index % every === 0).slice(0, MOST);
    };

    const addTrigger = () => {
        const lines = (lt.form.value("preview_prompts") || "").split("\n");
        const withTrigger = (line) => ["{trigger}", line].filter(Boolean).join(", ");
        const changed = lines.map((line) => (line.includes("{trigger}") ? line : withTrigger(line)));
        lt.form.set({preview_prompts: changed.join("\n")});
    };
})();
