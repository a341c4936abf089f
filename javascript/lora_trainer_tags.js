// All tags of the set: counted, searched, chosen, and changed in every caption at once.
(() => {
    "use strict";

    const lt = (window.loraTrainer = window.loraTrainer || {});
    const SHOWN = 200; // tags at first
    const SETTLED = 250; // milliseconds after the last change
    const LATER = 900; // milliseconds after a set was chosen: its pictures come first

    /**
     * {element, soon(), clear(), turns(answer), moved(before, after), contradictions(id), oncounted}.
     * `onfilter(tag)` is to show the pictures with a tag, `onpicture(id)` one of them.
     */
    lt.tagTable = ({onfilter, onpicture}) => {
        const chosen = new Set();
        let tags = [];
        let counted = false;
        let most = SHOWN;
        let planned = 0;
        let asked = 0;

        const edit = async (body) => {
            const name = lt.dataset;
            if (body.edit === "remove") take(body.tags);
            chosen.clear();
            draw();
            const answer = await lt.set.change("POST", "/edits", body).finally(() => lt.tell("pictures", {name}));
            turning.show(answer);
            const {changed: count} = answer;
            const sentence = count === 1 ? lt.say("1 caption changed.") : lt.say("{count} captions changed.", {count});
            lt.toast(sentence, count ? {verb: lt.say("Undo edit"), act: () => turning.turn("/undo")} : {});
        };
        const remove = async (wanted, button) => {
            const facts = {count: wanted.length, tag: wanted[0], tags: wanted.join(", ")};
            const sentence = wanted.length === 1
                ? lt.say("Remove {tag} from every caption?", facts)
                : lt.say("Remove {count} tags from every caption: {tags}?", facts);
            if (!(await lt.confirm(sentence, lt.say("Remove everywhere")))) return;
            await lt.run(button, () => edit({edit: "remove", tags: wanted}));
        };

        const search = lt.make("input", {
            id: "lora_trainer_tag_search", placeholder: lt.say("Search tags"), oninput: () => draw(),
        });
        const order = lt.make(
            "select", {id: "lora_trainer_tag_order", ariaLabel: lt.say("Order"), onchange: () => draw()},
            lt.make("option", {value: "count"}, lt.say("Most frequent first")),
            lt.make("option", {value: "name"}, lt.say("By the alphabet")),
        );
        const told = lt.make("span.hint.number.grow");
        const turning = turns();
        const actions = chosenActions(chosen, {edit, remove, onfilter, draw: () => draw()});
        const chips = lt.make("div.chips.all-tags", {id: "lora_trainer_all_tags"});
        const more = lt.make("button.small", {hidden: true}, lt.say("Show all tags"));
        more.onclick = () => {
            most = Infinity;
            draw();
        };
        const advice = lt.advice({remove, onpicture});
        const hint = lt.say("Click tags to choose them. A dashed frame marks what the advice below is about.");
        const element = lt.make("div.column", {},
            lt.make("p.title", {}, lt.say("All tags of the set")),
            lt.make("div.row", {}, search, order, told, turning.element),
            lt.make("p.hint", {}, hint), everyCaption(edit), actions.element, chips, more, advice.element);

        const draw = () => {
            const present = new Set(tags.map(({tag}) => tag));
            [...chosen].filter((tag) => !present.has(tag)).forEach((tag) => chosen.delete(tag));
            const words = lt.caption.key(search.value);
            const shown = tags.filter(({tag}) => !words || lt.caption.key(tag).includes(words));
            shown.sort(order.value === "name" ? byName : byCount);
            const marks = advice.marks();
            chips.replaceChildren(...shown.slice(0, most).map((row) => chip(row, marks.get(lt.caption.key(row.tag)))));
            more.hidden = shown.length <= most;
            told.textContent = tags.length === 1 ? lt.say("1 tag") : lt.say("{count} tags", {count: tags.length});
            actions.draw();
        };
        const chip = ({tag, count}, mark) => {
            const made = lt.make(mark ? `button.chip.${mark.look}` : "button.chip", {
                title: mark ? mark.why : "", dataset: {tag},
            }, tag, lt.make("span.count", {}, `${count}`));
            const show = () => {
                made.classList.toggle("lora-trainer-chosen", chosen.has(tag));
                made.ariaPressed = String(chosen.has(tag));
            };
            made.onclick = () => {
                if (!chosen.delete(tag)) chosen.add(tag);
                show();
                actions.draw();
            };
            show();
            return made;
        };
        const take = (gone) => {
            const keys = new Set(gone.map(lt.caption.key));
            tags = tags.filter(({tag}) => !keys.has(lt.caption.key(tag)));
        };

        const table = {element, oncounted: () => {}, turns: turning.show, contradictions: advice.of};

        /** Counts again, shortly. */
        table.soon = () => {
            clearTimeout(planned);
            planned = setTimeout(count, counted ? SETTLED : LATER);
        };
        const count = async () => {
            const [mine, name] = [++asked, lt.dataset];
            if (!name) return;
            counted = true;
            const trigger = encodeURIComponent(lt.form.value("trigger_word") || "");
            try {
                const answer = await lt.ask("GET", lt.set.path(`/tags?trigger=${trigger}`, name));
                if (mine !== asked || name !== lt.dataset) return;
                tags = answer.tags;
                turning.show(answer);
                advice.show(answer.advice);
                draw();
                table.oncounted(tags);
            } catch (error) {
                if (error.status !== 404) lt.fault(told, error);
            }
        };

        /** Another set was chosen. */
        table.clear = () => {
            chosen.clear();
            [tags, counted, most] = [[], false, SHOWN];
            advice.show(null);
            draw();
        };

        /** A caption's tags have changed: counted here before the server has. */
        table.moved = (before, after) => {
            const [old, fresh] = [before, after].map((some) => new Map(some.map((tag) => [lt.caption.key(tag), tag])));
            const counts = new Map(tags.map((row) => [lt.caption.key(row.tag), {...row}]));
            for (const key of old.keys()) if (!fresh.has(key) && counts.has(key)) counts.get(key).count -= 1;
            for (const [key, tag] of fresh) {
                if (!counts.has(key)) counts.set(key, {tag, count: 0});
                if (!old.has(key)) counts.get(key).count += 1;
            }
            tags = [...counts.values()].filter((row) => row.count > 0);
            draw();
        };
        return table;
    };

    const byName = (one, other) => one.tag.localeCompare(other.tag);
    const byCount = (one, other) => other.count - one.count;

    /** Undo and redo: {element, show({undo, redo}), turn(path)}. */
    const turns = () => {
        const undo = lt.make("button.small", {id: "lora_trainer_undo", disabled: true}, lt.say("Undo edit"));
        const redo = lt.make("button.small", {id: "lora_trainer_redo", disabled: true}, lt.say("Redo edit"));
        let can = {undo: "", redo: ""};
        const show = (answer) => {
            can = answer;
            undo.disabled = !can.undo;
            redo.disabled = !can.redo;
            undo.title = can.undo && lt.say("Undo: {what}", {what: called(can.undo)});
            redo.title = can.redo && lt.say("Redo: {what}", {what: called(can.redo)});
        };
        const turn = async (path) => {
            const name = lt.dataset;
            const answer = await lt.set.change("POST", path);
            lt.tell("pictures", {name});
            can = answer;
            if (answer.step) lt.toast(turned(path, answer.step));
        };
        const pressed = (button, path) => lt.run(button, () => turn(path)).finally(() => show(can));
        undo.onclick = () => pressed(undo, "/undo");
        redo.onclick = () => pressed(redo, "/redo");
        return {element: lt.make("div.row", {}, undo, redo), show, turn};
    };

    /** What an edit is called in the history, in the user's language. */
    const called = (what) => {
        const said = lt.say(what);
        const [, verb, tags] = /^(removed|added) ([^]+)$/.exec(what) || [];
        if (said !== what || !verb) return said;
        return verb === "removed" ? lt.say("removed {tags}", {tags}) : lt.say("added {tags}", {tags});
    };

    const turned = (path, {what: edit, count, left}) => {
        const what = called(edit);
        const said = [path === "/undo"
            ? lt.say("Undone in {count} captions: {what}.", {count, what})
            : lt.say("Done again in {count} captions: {what}.", {count, what})];
        if (left.length) said.push(lt.say("{count} were changed since and stay as they are.", {count: left.length}));
        return said.join(" ");
    };

    /** A tag for all captions. */
    const everyCaption = (edit) => {
        const words = lt.say("A tag for every caption");
        const input = lt.make("input", {id: "lora_trainer_add_everywhere", placeholder: words, ariaLabel: words});
        const add = lt.make("button.small", {id: "lora_trainer_add_tags"}, lt.say("Add everywhere"));
        add.onclick = () => lt.run(add, async () => {
            await edit({edit: "add", tags: lt.caption.tags(input.value), at: "end"});
            input.value = "";
        });
        return lt.make("div.row", {}, pressedBy(input, add), add);
    };

    /** What is done with the chosen tags: {element, draw()}. */
    const chosenActions = (chosen, {edit, remove, onfilter, draw}) => {
        const words = lt.make("span.number");
        const away = lt.make("button.danger.small", {id: "lora_trainer_remove_tags"}, lt.say("Remove everywhere"));
        away.onclick = () => remove([...chosen], away);
        const show = lt.make("button.small", {id: "lora_trainer_show_tagged"}, lt.say("Show their pictures"));
        show.onclick = () => onfilter([...chosen][0]);
        const another = lt.say("Another tag");
        const by = lt.make("input", {id: "lora_trainer_replace_by", placeholder: another, ariaLabel: another});
        const replace = lt.make("button.small", {id: "lora_trainer_replace_tag"}, lt.say("Replace by"));
        replace.onclick = () => lt.run(replace, async () => {
            await edit({edit: "replace", tags: [...chosen], by: by.value.trim()});
            by.value = "";
        });
        const none = lt.make("button.quiet.small", {}, lt.say("Choose none"));
        none.onclick = () => {
            chosen.clear();
            draw();
        };
        const row = [words, away, show, replace, pressedBy(by, replace), none];
        const element = lt.make("div.row", {hidden: true}, row);
        return {
            element,
            draw: () => {
                element.hidden = !chosen.size;
                words.textContent = lt.say("{count} chosen", {count: chosen.size});
                replace.hidden = by.hidden = show.hidden = chosen.size !== 1;
            },
        };
    };

    /** The field, in which Enter presses the button. */
    const pressedBy = (input, button) => {
        input.addEventListener("keydown", (event) => event.key === "Enter" && !event.isComposing && button.click());
        return input;
    };
})();
