// What a WebUI does with its localisation files: gradio's own texts in the user's language. Besides, a chooser of it.
"use strict";

(() => {
    const NAMES = {"": "English", ja_JP: "日本語", zh_CN: "简体中文"};
    const COOKIE = "lora_trainer_language";
    const YEAR_S = 365 * 24 * 60 * 60;
    const OURS = ".lora-trainer-panel, script, style, textarea"; // a panel says its words itself
    const words = window.localization || {};
    const language = window.loraTrainerLanguage || "";

    const translated = (text) => (Object.hasOwn(words, text.trim()) ? words[text.trim()] : null);

    const translate = (node) => {
        const within = node.nodeType === Node.TEXT_NODE ? node.parentElement : node;
        if (!within || !within.closest || within.closest(OURS)) return;
        if (node.nodeType === Node.TEXT_NODE) {
            const word = translated(node.data);
            if (word !== null) node.data = word;
            return;
        }
        for (const name of ["title", "placeholder"]) {
            const word = node.hasAttribute(name) ? translated(node.getAttribute(name)) : null;
            if (word !== null) node.setAttribute(name, word);
        }
        node.childNodes.forEach(translate);
    };

    const watch = () => {
        translate(document.body);
        const added = (changes) => changes.forEach((change) => change.addedNodes.forEach(translate));
        new MutationObserver(added).observe(document.body, {childList: true, subtree: true});
    };

    const choose = (chosen) => {
        document.cookie = `${COOKIE}=${chosen}; path=/; max-age=${YEAR_S}; samesite=lax`;
        window.location.reload();
    };

    const chooser = () => {
        const select = document.createElement("select");
        select.id = "lora_trainer_language";
        select.title = "Language / 言語 / 语言";
        for (const code of ["", ...(window.loraTrainerLanguages || [])]) {
            select.append(new Option(NAMES[code] || code, code, false, code === language));
        }
        select.onchange = () => choose(select.value);
        return select;
    };

    // The same character is drawn differently in Japanese and in Chinese.
    document.documentElement.lang = language.replace("_", "-") || "en";
    document.body.append(chooser());
    if (language) watch();
})();
