// Step 3: for a base model that reads sentences, a tagger that writes them, unless another one was chosen.
"use strict";

(() => {
    const lt = (window.loraTrainer = window.loraTrainer || {});
    const WRITES_SENTENCES = "florence-2";

    /** What was done when a base that reads sentences was chosen: "filled" or "left", or "" for any other base. */
    const done = () => lt.kept("sentences") || "";

    lt.on("base", () => {
        if (!lt.base) return;
        const wanted = lt.base.family === "flux";
        if (wanted === Boolean(done())) return;
        const tags = lt.form.first("tagger");
        const [from, to] = wanted ? [tags, WRITES_SENTENCES] : [WRITES_SENTENCES, tags];
        const fills = lt.form.value("tagger") === from && (wanted || done() === "filled");
        lt.keep("sentences", wanted ? (fills ? "filled" : "left") : "");
        if (fills) fill(from, to, wanted);
    });

    const fill = (from, to, wanted) => {
        const undo = () => {
            lt.form.set({tagger: from});
            if (wanted) lt.keep("sentences", "left");
        };
        lt.form.set({tagger: to});
        lt.toast(wanted
            ? lt.say("Flux was taught with sentences: {tagger} will describe the pictures.", {tagger: to})
            : lt.say("{tagger} will describe the pictures again, as before Flux was chosen.", {tagger: to}),
        {verb: lt.say("Undo"), act: undo});
    };
})();
