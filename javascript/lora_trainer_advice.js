// What to look at in a set's tags: what the trigger word could stand for, contradictions, tags of one picture.
(() => {
    "use strict";

    const lt = (window.loraTrainer = window.loraTrainer || {});
    const NONE = {fold: [], contradictions: [], one_offs: [], bare: []};

    /**
     * {element, show(advice), marks(), of(id)}; `remove(tags, button)` takes tags out of every caption,
     * `onpicture(id)` shows a picture.
     */
    lt.advice = ({remove, onpicture}) => {
        const element = lt.make("div.column", {id: "lora_trainer_advice"});
        let given = NONE;

        const show = (advice) => {
            given = advice || NONE;
            const {fold, contradictions, one_offs: rare, bare} = given;
            const wrong = contradictions.map(({picture, why}) => line(lt.say(why), picture));
            const alone = rare.map(({tag, picture}) => line(tag, picture));
            const nothing = bare.map((picture) => line(lt.say("No tag of its own would be left"), picture));
            const sections = [
                section("fold", lt.say("Fold into the trigger word?"), folding(fold), fold.length),
                section("contradictions", lt.say("Contradictions"), wrong, wrong.length),
                section("one_offs", lt.say("Tags on one picture only"), alone, alone.length, false),
                section("bare", lt.say("Captions with nothing of their own"), nothing, nothing.length, false),
            ];
            element.replaceChildren(...sections.filter(Boolean));
        };
        const section = (name, title, rows, count, open = true) => {
            if (!count) return null;
            const before = element.querySelector(`details[data-name="${name}"]`);
            const number = lt.make("span.badge", {}, `${count}`);
            const words = lt.make("summary", {}, lt.make("strong.strong", {}, title), " ", number);
            const list = lt.make("ul.advice.scroll", {}, rows);
            return lt.make("details.fold", {open: before ? before.open : open, dataset: {name}}, words, list);
        };
        const folding = (fold) => {
            const rows = fold.map(({tag, why}) => lt.make("li.row", {},
                lt.make("strong.strong", {}, tag), lt.make("span.hint.grow", {}, lt.say(why)),
                removing([tag], lt.say("Remove everywhere"))));
            const tags = fold.map(({tag}) => tag);
            if (tags.length < 2) return rows;
            return [...rows, lt.make("li.row", {}, removing(tags, lt.say("Remove all of these")))];
        };
        const removing = (tags, words) => {
            const button = lt.make("button.small", {}, words);
            button.onclick = () => remove(tags, button);
            return button;
        };
        const line = (text, picture) => lt.make("li.row", {},
            lt.make("span.grow", {}, text),
            lt.make("button.small", {onclick: () => onpicture(picture)}, lt.say("Show picture")));

        /** How a tag is to be marked, and why, by its key. */
        const marks = () => {
            const mark = (tag, look, why) => [lt.caption.key(tag), {look, why}];
            return new Map([
                ...given.one_offs.map(({tag}) => mark(tag, "rare", lt.say("On one picture only"))),
                ...given.contradictions.flatMap(({tags, why}) => tags.map((tag) => mark(tag, "marked", lt.say(why)))),
                ...given.fold.map(({tag, why}) => mark(tag, "marked", lt.say(why))),
            ]);
        };
        /** Why tags of a picture contradict each other, by their keys. */
        const of = (id) => new Map(given.contradictions
            .filter(({picture}) => picture === id)
            .flatMap(({tags, why}) => tags.map((tag) => [lt.caption.key(tag), lt.say(why)])));
        return {element, show, marks, of};
    };
})();
