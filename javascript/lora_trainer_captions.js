// Step 5: the captions: a gallery, the chosen picture with its tags, and all tags of the set.
(() => {
    "use strict";

    const lt = (window.loraTrainer = window.loraTrainer || {});
    const TYPED = 250; // milliseconds after the last letter of a search

    (lt.panels = lt.panels || {}).captions = (element) => {
        const table = lt.tagTable({onfilter: (tag) => found.byTag(tag), onpicture: (id) => found.byId(id)});
        const editor = lt.captionEditor(table);
        const found = browser(editor);
        const empty = lt.make("p.empty", {}, lt.say("No pictures yet."));
        const both = lt.make("div.split.captions", {}, found.element, editor.element);
        const inner = lt.make("div.column", {hidden: true}, both, table.element);
        element.append(empty, inner);

        lt.on("summary", ({summary}) => {
            inner.hidden = !(summary && summary.count);
            empty.hidden = !inner.hidden;
            if (summary) table.soon();
        });
        lt.on("dataset", ({name}) => {
            editor.show(null);
            table.clear();
            if (name) found.all();
        });
        lt.on("pictures", ({name}) => name === lt.dataset && found.again());
        lt.on("form", ({name}) => name === "trigger_word" && table.soon());
        if (lt.dataset) found.all();
    };

    /** The gallery with its filters: {element, all(), again(), byTag(tag), byId(id)}. */
    const browser = (editor) => {
        const told = lt.make("span.hint.number");
        const search = lt.make("input.grow", {
            id: "lora_trainer_picture_search", placeholder: lt.say("Search names and captions"),
        });
        const bare = lt.make("input", {type: "checkbox", id: "lora_trainer_without_caption", onchange: () => show()});
        const filter = lt.make("div.chips", {hidden: true});
        const gallery = lt.gallery({
            label: lt.say("Pictures of the set"),
            onchoose: (picture, index) => editor.show(picture, index, gallery),
            onload: (count) => {
                told.textContent = count === 1 ? lt.say("1 picture") : lt.say("{count} pictures", {count});
                if (gallery.chosen < 0 && count) gallery.choose(0);
            },
        });
        const without = lt.make("label.check", {}, bare, lt.say("Without a caption"));
        const row = lt.make("div.row", {}, search, without, told);
        const element = lt.make("div.column", {}, row, filter, gallery.element);
        let tag = "";
        let typing = 0;

        const show = () => {
            const words = search.value.trim();
            filter.hidden = !tag;
            filter.replaceChildren(chip(tag));
            const without = bare.checked && {without_caption: "1"};
            gallery.show({...(tag && {tag}), ...(words && {search: words}), ...without});
        };
        const chip = (shown) => lt.make("span.chip.chosen", {}, shown, lt.make("button.remove", {
            title: lt.say("Show all pictures"), onclick: () => byTag(""),
        }, "×"));
        const byTag = (wanted) => {
            tag = wanted;
            show();
            if (wanted) element.scrollIntoView({block: "nearest"});
        };
        const all = () => {
            [tag, search.value, bare.checked] = ["", "", false];
            show();
        };
        /** Shows a picture among all of the set. */
        const byId = async (id) => {
            const {place} = await lt.ask("GET", lt.set.path(`/pictures?limit=0&place_of=${id}`));
            if (place === null) return;
            if (tag || search.value || bare.checked) all();
            element.scrollIntoView({block: "nearest"});
            gallery.choose(place);
        };
        search.addEventListener("input", () => {
            clearTimeout(typing);
            typing = setTimeout(show, TYPED);
        });
        return {element, all, again: gallery.again, byTag, byId};
    };
})();
