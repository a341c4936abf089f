// A caption as text and as tags, as the server reads it.
(() => {
    "use strict";

    const lt = (window.loraTrainer = window.loraTrainer || {});
    const LINE_END = /\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/; // as Python has it
    const caption = (lt.caption = {});

    caption.tags = (line) => line.split(",").map((tag) => tag.trim()).filter(Boolean);

    /** The line of a caption that is trained: the first one that is not blank. */
    caption.line = (text) => (text.split(LINE_END).find((line) => line.trim()) || "").trim();

    /** The caption with that line changed, and every other one as it was. */
    caption.withLine = (text, line) => {
        const old = text.split(LINE_END).find((each) => each.trim());
        return old === undefined ? line + text : text.replace(old, () => line);
    };

    /** Equal for tags that are one: `green_hair` and `Green hair`. */
    caption.key = (tag) => {
        const words = tag.replace(/\\([()[\]])/g, "$1").replace(/_/g, " ").toLowerCase();
        return words.split(/\s+/).filter(Boolean).join(" ");
    };
})();
