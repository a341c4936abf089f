// A picture shown large, with another one beside it to compare with; arrows lead on to the others.
(() => {
    "use strict";

    const lt = (window.loraTrainer = window.loraTrainer || {});
    const MOVES = {
        ArrowLeft: {by: [0, -1], sign: "←", title: () => lt.say("The picture before")},
        ArrowRight: {by: [0, 1], sign: "→", title: () => lt.say("The next picture")},
        ArrowUp: {by: [-1, 0], sign: "↑", title: () => lt.say("The row above")},
        ArrowDown: {by: [1, 0], sign: "↓", title: () => lt.say("The row below")},
    };

    /** A small picture that opens the lightbox at its place; a dash where there is none. `kind`: see lt.make. */
    lt.thumb = (pictures, row = 0, column = 0, kind = "img") => {
        const shown = pictures[row][column];
        if (!shown) return lt.make("span.sheet-none", {}, "–");
        const image = lt.make(kind, {src: shown.src, alt: shown.label, loading: "lazy", decoding: "async"});
        const open = () => lt.lightbox(pictures, row, column);
        return lt.make("button.zoom", {title: lt.say("Show it large"), onclick: open}, image);
    };

    /**
     * Shows one of `pictures` large: rows of {src, label, title, beside: {src, label} or null}, or null for none.
     * With `verb` and `act` a picture has a button that does something with it.
     */
    lt.lightbox = (pictures, row, column) => {
        const view = {pictures, row, column, stage: lt.make("div.lightbox-stage"), words: lt.make("p.lightbox-words")};
        const close = button("×", lt.say("Close"), () => view.dialog.close());
        view.moves = Object.values(MOVES).map(({by, sign, title}) => {
            return {by, button: button(sign, title(), () => move(view, by))};
        });
        view.act = lt.make("button.primary.small", {id: "lora_trainer_picture_act"});
        view.act.onclick = () => lt.run(view.act, () => view.pictures[view.row][view.column].act());
        const moves = view.moves.map((each) => each.button);
        const bar = lt.make("div.row.lightbox-bar", {}, moves, view.words, view.act, close);
        view.dialog = lt.make("dialog.panel.lightbox", {tabIndex: -1, ariaLabel: lt.say("Picture")}, bar, view.stage);
        view.dialog.addEventListener("keydown", (event) => onKey(view, event));
        view.dialog.addEventListener("close", () => view.dialog.remove());
        view.stage.onclick = (event) => event.target === view.stage && view.dialog.close();
        lt.home().append(view.dialog);
        view.dialog.showModal();
        show(view);
    };

    const button = (sign, title, onclick) => lt.make("button.lightbox-move", {title, ariaLabel: title, onclick}, sign);

    function onKey(view, event) {
        if (!MOVES[event.key]) return;
        event.preventDefault();
        event.stopPropagation();
        move(view, MOVES[event.key].by);
    }

    function move(view, by) {
        const place = next(view, by);
        if (!place) return;
        [view.row, view.column] = place;
        show(view);
    }

    /** The next place in a direction that has a picture, or null. */
    function next({pictures, row, column}, [down, across]) {
        let place = [row + down, column + across];
        while (pictures[place[0]] && place[1] >= 0 && place[1] < pictures[place[0]].length) {
            if (pictures[place[0]][place[1]]) return place;
            place = [place[0] + down, place[1] + across];
        }
        return null;
    }

    function show(view) {
        const shown = view.pictures[view.row][view.column];
        view.words.textContent = shown.title || "";
        lt.fault(view.act, null);
        view.act.hidden = !shown.act;
        view.act.textContent = shown.verb || "";
        view.stage.replaceChildren(...[shown.beside, shown].filter(Boolean).map(figure));
        view.moves.forEach((each) => (each.button.disabled = !next(view, each.by)));
        if (document.activeElement.disabled) view.dialog.focus(); // a disabled button would keep all keys to itself
    }

    function figure({src, label}) {
        const image = lt.make("img.large", {src, alt: label});
        return lt.make("figure.lightbox-figure", {}, image, lt.make("figcaption", {}, label));
    }
})();
