// One picture, large, with the tags of its caption.
(() => {
    "use strict";

    const lt = (window.loraTrainer = window.loraTrainer || {});
    const DRAGGED = "text/x-lora-trainer-tag";
    const OFFERED = 200; // tags of the set, while one is typed

    /** {element, show(picture, index, gallery)}; `table`: all tags of the set, which is told of each change. */
    lt.captionEditor = (table) => {
        let shown = null;
        let place = -1;
        let gallery = null;
        const step = (by) => gallery && gallery.choose(place + by);
        const head = heading(step, () => lt.set.leaveOut([shown.id]));
        const image = lt.make("img.picture.large-picture", {alt: ""});
        const chips = lt.make("div.chips", {id: "lora_trainer_picture_tags"});
        const field = tagField(step, (tags) => add(tags));
        const text = lt.make("textarea", {id: "lora_trainer_caption", rows: 3});
        const words = lt.make("label.field", {}, lt.say("Caption as text"), text);
        const inner = lt.make("div.column", {hidden: true}, head.element, image, chips, field.element, words);

        const show = (picture, index, from) => {
            inner.hidden = !picture;
            const other = !shown || !picture || shown.id !== picture.id || shown.stamp !== picture.stamp;
            [shown, place, gallery] = [picture, index, from];
            if (!picture) return;
            head.show(picture, index, from.count);
            if (other) load(image, picture);
            draw();
        };
        const draw = () => {
            const wrong = table.contradictions(shown.id);
            const tags = lt.caption.tags(shown.line);
            chips.replaceChildren(...tags.map((tag, index) => chip(tag, index, wrong.get(lt.caption.key(tag)))));
            if (document.activeElement !== text) text.value = shown.caption;
        };
        const chip = (tag, index, why) => {
            const remove = () => change(lt.caption.tags(shown.line).filter((each, number) => number !== index));
            const cross = lt.make("button.remove", {title: lt.say("Remove {tag}", {tag}), onclick: remove}, "×");
            const look = why ? "span.chip.marked" : "span.chip";
            const made = lt.make(look, {title: why || "", draggable: true}, tag, cross);
            made.addEventListener("dragstart", (event) => event.dataTransfer.setData(DRAGGED, String(index)));
            made.addEventListener("dragover", (event) => event.preventDefault());
            made.addEventListener("drop", (event) => {
                event.preventDefault();
                move(event.dataTransfer.getData(DRAGGED), index);
            });
            return made;
        };
        const move = (from, to) => {
            if (from === "") return;
            const moved = lt.caption.tags(shown.line);
            moved.splice(to, 0, ...moved.splice(Number(from), 1));
            change(moved);
        };
        const add = (tags) => {
            const present = lt.caption.tags(shown.line);
            const keys = new Set(present.map(lt.caption.key));
            const fresh = tags.filter((tag) => !keys.has(lt.caption.key(tag)));
            if (fresh.length) change([...present, ...fresh]);
        };
        const change = (tags) => write(lt.caption.withLine(shown.caption, tags.join(", ")));
        /** Shows the caption first, then sends it. */
        const write = async (caption) => {
            const picture = shown;
            const before = {caption: picture.caption, line: picture.line};
            Object.assign(picture, {caption, line: lt.caption.line(caption)});
            table.moved(lt.caption.tags(before.line), lt.caption.tags(picture.line));
            draw();
            gallery.redraw();
            lt.fault(words, null);
            try {
                table.turns(await lt.set.change("PUT", "/captions", {captions: {[picture.id]: caption}}));
            } catch (error) {
                Object.assign(picture, before);
                if (shown === picture) draw();
                lt.fault(words, error);
            }
            table.soon();
        };
        text.addEventListener("change", () => text.value !== shown.caption && write(text.value));
        text.addEventListener("keydown", (event) => event.key === "Enter" && event.ctrlKey && text.blur());
        table.oncounted = (tags) => {
            field.offer(tags.slice(0, OFFERED));
            if (shown) draw();
        };
        return {element: lt.make("div.box.editor", {}, inner), show};
    };

    const load = (image, picture) => {
        image.onerror = () => {
            image.onerror = null;
            image.src = lt.set.thumbnail(picture); // of a format that browsers do not show
        };
        image.src = lt.set.picture(picture);
    };

    /** Its place and name, the ways to the next ones, and out of the set: {element, show(picture, index, count)}. */
    const heading = (step, out) => {
        const place = lt.make("span.hint.number");
        const name = lt.make("span.strong.cut");
        const previous = lt.make("button.small", {title: lt.say("Previous picture"), onclick: () => step(-1)}, "←");
        const next = lt.make("button.small", {title: lt.say("Next picture"), onclick: () => step(1)}, "→");
        const leave = lt.make("button.small", {id: "lora_trainer_leave_out"}, lt.say("Leave out"));
        leave.onclick = () => lt.run(leave, out);
        const show = (picture, index, count) => {
            place.textContent = `${index + 1} / ${count}`;
            name.textContent = picture.file;
            name.title = `${picture.path}, ${picture.width} × ${picture.height}`;
        };
        const element = lt.make("div.row", {}, previous, next, place, name, lt.make("span.grow"), leave);
        return {element, show};
    };

    /** Where tags are typed; arrows in the empty field go to the picture beside: {element, offer(tags)}. */
    const tagField = (step, act) => {
        const offered = lt.make("datalist", {id: "lora_trainer_known_tags"});
        const input = lt.make("input.grow", {
            id: "lora_trainer_add_tag", placeholder: lt.say("Add a tag and press Enter"), autocomplete: "off",
            spellcheck: false,
        });
        input.setAttribute("list", offered.id);
        const enter = () => {
            const tags = lt.caption.tags(input.value);
            input.value = "";
            act(tags);
            input.focus();
        };
        input.addEventListener("keydown", (event) => {
            if (event.key === "Enter" && !event.isComposing) {
                event.preventDefault();
                enter();
            }
            if (!input.value && event.key === "ArrowLeft") step(-1);
            if (!input.value && event.key === "ArrowRight") step(1);
        });
        const button = lt.make("button", {onclick: enter}, lt.say("Add tag"));
        const offer = (tags) => offered.replaceChildren(...tags.map(({tag}) => lt.make("option", {value: tag})));
        return {element: lt.make("div.row.set", {}, input, button, offered), offer};
    };
})();
