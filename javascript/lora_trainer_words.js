// Texts in the user's language: the host's table of words, and sentences that the server has put together.
"use strict";

(() => {
    const lt = (window.loraTrainer = window.loraTrainer || {});
    const FACT = /\{(\w+)\}/g;
    const LONGEST = 2000; // letters of a text that is looked through for what is known of it
    let known = {words: null, patterns: [], told: new Map()};

    /** A text in the user's language, with {name} replaced by the fact of that name; a sentence of the server, too. */
    lt.say = (text, facts = {}) => {
        const words = window.localization || {};
        if (Object.hasOwn(words, text)) return filled(words[text], facts);
        return Object.keys(facts).length ? filled(text, facts) : told(text, words);
    };

    /** A text in the user's language as a whole sentence: a problem is told without its full stop. */
    lt.sentence = (text) => finished(lt.say(text));

    const finished = (said) => {
        if (!said || /[.!?…。！？]$/.test(said)) return said;
        return said + (/[\u3040-\u9fff]/.test(said) ? "。" : "."); // Japanese and Chinese have one of their own
    };

    const filled = (text, facts) => text.replace(FACT, (whole, name) => (name in facts ? String(facts[name]) : whole));

    /** What the server says, each text looked through once. */
    const told = (text, words) => {
        if (known.words !== words) known = {words, patterns: patterns(words), told: new Map()};
        if (!known.patterns.length || !text || text.length > LONGEST) return text;
        if (!known.told.has(text)) known.told.set(text, put(text));
        return known.told.get(text);
    };

    /** By the translations whose {name} may be anything, with or without a full stop; a name before it stays. */
    const put = (text) => {
        const inOrder = inParts(text);
        if (inOrder !== text && /^\S+: /.test(text)) return inOrder;
        for (const each of known.patterns) {
            const found = each.pattern.exec(text);
            if (found) return translated(each, found.slice(1));
        }
        const bare = text.replace(/\.$/, "");
        return bare !== text && lt.say(bare) !== bare ? lt.sentence(bare) : inOrder;
    };

    /** The last fact may have taken the sentence's full stop. */
    const translated = ({names, translation}, facts) => {
        const said = facts.map((fact) => lt.say(fact));
        const last = facts[facts.length - 1];
        const stopped = last.endsWith(".") && said[said.length - 1] === last;
        if (stopped) said[said.length - 1] = lt.say(last.slice(0, -1));
        const whole = filled(translation, Object.fromEntries(names.map((name, place) => [name, said[place]])));
        return stopped ? finished(whole) : whole;
    };

    /** "1.png: is an empty file. Copy it again.": what stands after the name, sentence by sentence. */
    const inParts = (text) => {
        const [, named, rest] = /^([^\n]{1,200}?): ([^]+)$/.exec(text) || [];
        if (!named) return text;
        const said = rest.split(/(?<=\.) /).map((part) => lt.say(part));
        return `${named}: ${said.join(" ").replaceAll("。 ", "。")}`;
    };

    const patterns = (words) => Object.keys(words).filter((key) => fixedWords(key) > 1).map((key) => ({
        pattern: new RegExp(`^${key.split(/\{\w+\}/).map(escaped).join("([^]+?)")}$`),
        names: [...key.matchAll(FACT)].map(([, name]) => name),
        translation: words[key],
    }));

    /** Of a text with facts. With fewer than two, such as "about {time}", too much else would look like it. */
    const fixedWords = (key) => (key.search(FACT) < 0 ? 0 : (key.replace(FACT, " ").match(/[A-Za-z]+/g) || []).length);

    const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
})();
