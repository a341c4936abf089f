// A LoRA used: put into the WebUI's prompt, with its base model chosen; and the WebUI's own cards kept up to date.
"use strict";

(() => {
    const lt = (window.loraTrainer = window.loraTrainer || {});
    const TAG = /<(?:lora|lyco):([^:>]+)((?::[^:>]*)*)>/g;
    const SHOWN = ["path", "modified", "weight", "trigger", "negative", "description", "picture"]; // on a card

    /** Opens txt2img with this LoRA in the prompt; where the page is not a WebUI's, the text for one is copied. */
    lt.useLora = async (path) => {
        const lora = await lt.ask("GET", `loras/${lt.encoded(path)}/use`);
        const prompt = field("prompt");
        if (!prompt) return copy(lt.promptWith("", lora));
        write(prompt, lt.promptWith(prompt.value, lora));
        const negative = field("neg_prompt");
        if (negative && lora.negative) write(negative, withWords(negative.value, lora.negative));
        window.switch_to_txt2img();
        return choose(lora);
    };

    lt.useTitle = () =>
        field("prompt")
            ? lt.say("Open txt2img with this LoRA in the prompt")
            : lt.say("Copy the prompt that uses this LoRA");

    const field = (name) => document.querySelector(`#txt2img_${name} textarea`);

    /** As if it had been typed: gradio takes it in. */
    function write(textarea, text) {
        if (textarea.value === text) return;
        textarea.value = text;
        window.updateInput(textarea);
    }

    function choose({base, checkpoint, chosen}) {
        if (chosen || !base) return;
        if (checkpoint && window.selectCheckpoint && document.getElementById("change_checkpoint")) {
            window.selectCheckpoint(checkpoint);
            lt.toast(lt.say("The WebUI takes {base}, on which it was trained.", {base}));
        } else lt.toast(lt.say("It was trained on {base}: choose that model, or a relative of it.", {base}));
    }

    // ---- the prompt

    /**
     * The prompt with the LoRA in it once, at its weight, and its trigger words; all else in it stays.
     * It is written as the WebUI's own card writes it, so that a click on the card takes it out again.
     */
    lt.promptWith = (prompt, lora) => {
        const tag = `<lora:${lora.name}:${lora.weight}`;
        let there = false;
        const weighted = prompt.replace(TAG, (whole, name, rest) => {
            if (!lora.names.includes(name)) return whole;
            if (there) return "";
            there = true;
            return `${tag}${named(rest)}>`;
        });
        if (there) return withWords(weighted, lora.trigger);
        const words = missing(weighted, lora.trigger);
        return joined(weighted, words ? `${tag}> ${words}` : `${tag}>`);
    };

    /** Of what stands behind a name, such as ":0.8:0.7:dyn=4", all that is no weight. */
    const named = (rest) => rest.split(":").filter((part) => part.includes("=")).map((part) => `:${part}`).join("");

    const withWords = (text, words) => {
        const lacking = missing(text, words);
        return lacking ? joined(text, lacking) : text;
    };

    /** Those of the words, which stand between commas, that the text has not yet. */
    const missing = (text, words) => {
        const plain = text.replace(/<\w+:[^>]*>/g, " "); // without the WebUI's tags
        const parts = words.split(",").map((part) => part.trim());
        const there = (part) => (part.includes("<") ? text.includes(part) : has(plain, part));
        return parts.filter((part) => part && !there(part)).join(", ");
    };

    /** Whether it stands in the text by itself, and not as a part of a longer word. */
    const has = (text, words) => {
        const escaped = words.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
        return new RegExp(`(?<![\\p{L}\\p{N}_])${escaped}(?![\\p{L}\\p{N}_])`, "iu").test(text);
    };

    const joined = (text, more) => {
        const before = text.trimEnd();
        return before ? `${before}${before.endsWith(",") ? "" : ","} ${more}` : more;
    };

    // ---- the clipboard

    async function copy(text) {
        if (await copied(text)) lt.toast(lt.say("Copied: {prompt}", {prompt: text}));
        else lt.toast(lt.say("Use this prompt: {prompt}", {prompt: text}), {seconds: 60});
    }

    /** Pages from other machines without https have no clipboard but this older way to it. */
    async function copied(text) {
        try {
            await navigator.clipboard.writeText(text);
            return true;
        } catch {
            const area = lt.make("textarea", {value: text});
            document.body.append(area);
            area.select();
            const done = document.execCommand("copy");
            area.remove();
            return done;
        }
    }

    // ---- the WebUI's cards

    let cards = lt.kept("cards");

    /** Has the WebUI make its own cards anew if the newest LoRAs are not those that they were last made of. */
    lt.refreshCards = (loras) => {
        const shown = JSON.stringify(loras.map((lora) => SHOWN.map((fact) => lora[fact])));
        if (shown === cards) return;
        ["txt2img", "img2img"].forEach(refresh);
        cards = shown;
        lt.keep("cards", shown);
    };

    /** Its button is hidden and has no size, so that the WebUI itself sends it this event. */
    const refresh = (tab) =>
        document.getElementById(`${tab}_lora_extra_refresh_internal`)?.dispatchEvent(new Event("click"));
})();
