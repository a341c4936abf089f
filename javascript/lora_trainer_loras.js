// The LoRAs there are, as cards: used in a prompt, tried at several weights, downloaded, put away.
(() => {
    "use strict";

    const lt = (window.loraTrainer = window.loraTrainer || {});
    const PART = 24; // cards that are asked for at once
    const TYPING = 250; // milliseconds without a key before it is searched

    let views = [];
    let finished = null;

    function draw(element) {
        if (!views.length) {
            lt.on("loras", () => views.forEach((view) => load(view)));
            lt.on("jobs", trained);
        }
        const view = {element, cards: lt.make("div.cards"), count: lt.make("span.hint"), turn: 0, shown: 0};
        view.search = lt.make("input", {type: "search", placeholder: lt.say("Search LoRAs")});
        view.search.oninput = () => typed(view);
        view.empty = lt.make("p.empty", {hidden: true});
        view.more = lt.button("button", lt.say("Show more"), () => load(view, true));
        const why = lt.say("Look into the folders again");
        const refresh = lt.button("button.small", lt.say("Refresh"), () => load(view), why);
        view.bar = lt.make("div.row", {}, view.search, refresh, view.count);
        element.replaceChildren(view.bar, view.empty, view.cards, lt.make("div.row", {}, view.more));
        view.more.hidden = true;
        views = [...views.filter((other) => other.element.isConnected), view];
        load(view);
    }

    /** A training that has ended well has left a LoRA. */
    function trained({jobs}) {
        const now = jobs.map((job) => job.lora).join();
        if (finished !== null && finished !== now) views.forEach((view) => load(view));
        finished = now;
    }

    function typed(view) {
        clearTimeout(view.waiting);
        view.waiting = setTimeout(() => load(view), TYPING);
    }

    /** Shows the first part of the list, or one part more. Of two answers the one that was asked for last counts. */
    async function load(view, more = false) {
        const turn = ++view.turn;
        const offset = more ? view.shown : 0;
        const limit = more ? PART : Math.max(PART, view.shown);
        const search = encodeURIComponent(view.search.value);
        let answer;
        try {
            answer = await lt.ask("GET", `loras?search=${search}&offset=${offset}&limit=${limit}`);
        } catch (trouble) {
            if (turn === view.turn) lt.fault(view.bar, trouble);
            return;
        }
        if (turn === view.turn) show(view, answer, offset);
    }

    function show(view, {loras, count}, offset) {
        lt.fault(view.bar, null);
        if (!offset && !view.search.value) lt.refreshCards(loras.slice(0, PART));
        const cards = loras.map((lora) => card(view, lora));
        if (offset) view.cards.append(...cards);
        else view.cards.replaceChildren(...cards);
        view.shown = offset + loras.length;
        view.more.hidden = view.shown >= count;
        view.empty.hidden = count > 0;
        view.empty.textContent = view.search.value
            ? lt.say("No LoRA is like that.")
            : lt.say("There is no LoRA yet. What you train comes here.");
        view.count.textContent = count ? lt.say("{shown} of {count} LoRAs", {shown: view.shown, count}) : "";
    }

    // ---- a card

    function card(view, lora) {
        const element = lt.make("div.card.lora", {dataset: {lora: lora.path}});
        element.append(
            picture(lora),
            lt.make("div.strong", {title: lora.path}, lora.name),
            lt.make("div.row", {}, ...badges(lora).map((words) => lt.make("span.badge", {}, words))),
            ...words(lora),
            buttons(view, lora, element),
        );
        return element;
    }

    function picture(lora) {
        if (!lora.picture) return lt.make("div.lora-blank", {}, lt.say("No picture"));
        return lt.thumb([[{src: lt.url(lora.picture), label: lora.name}]], 0, 0, "img.picture");
    }

    const badges = (lora) => {
        const [rank, weight] = [lt.say("rank {rank}", lora), lt.say("weight {weight}", lora)];
        return [lt.families[lora.family], lora.kind, lora.rank && rank, !lora.trouble && weight].filter(Boolean);
    };

    function words(lora) {
        if (lora.trouble) return [lt.make("p.problem", {}, `${lora.path}: ${lt.sentence(lora.trouble)}`)];
        const step = lora.steps ? lt.say("step {step}", {step: lora.steps}) : "";
        const lines = [
            lora.trigger ? lt.say("Trigger words: {words}", {words: lora.trigger}) : tagsOf(lora.tags),
            lora.negative && lt.say("Negative prompt: {words}", {words: lora.negative}),
            lora.base && lt.say("Base: {base}", lora),
            [step, lt.when(lora.modified)].filter(Boolean).join(" · "),
        ].filter(Boolean);
        const told = lora.description ? [lt.make("p", {}, lora.description)] : [];
        return [...told, ...lines.map((line, place) => lt.make(place ? "div.hint" : "div", {}, line))];
    }

    const tagsOf = (tags) => (tags.length ? lt.say("Trained on: {tags}", {tags: tags.slice(0, 6).join(", ")}) : "");

    function buttons(view, lora, element) {
        const use = () => lt.useLora(lora.path);
        const run = lt.button("button.primary.small.lora-run", lt.say("Run"), use, lt.useTitle());
        const why = lt.say("Draw it at several weights, to choose one");
        const grid = lt.button("button.small", lt.say("Weight grid"), () => lt.grid(lora.path), why);
        const address = {href: lt.url(`loras/${lt.encoded(lora.path)}/file`), download: `${lora.name}.safetensors`};
        const file = lt.make("a.button.small", address, lt.say("Download"));
        const away = lt.button("button.danger.small", lt.say("Delete LoRA"), () => remove(view, lora, element));
        run.hidden = grid.hidden = Boolean(lora.trouble);
        return lt.make("div.row.lora-buttons", {}, run, grid, file, away);
    }

    // ---- putting it away

    async function remove(view, lora, element) {
        const sentence = lt.say(
            "Delete the LoRA {name} and its card? They are moved to the folder .deleted beside it.",
            lora,
        );
        if (!(await lt.confirm(sentence, lt.say("Delete LoRA")))) return;
        const {aside} = await lt.ask("DELETE", `loras/${lt.encoded(lora.path)}`);
        element.remove();
        load(view);
        lt.toast(lt.say("{name} is deleted.", lora), {
            verb: lt.say("Undo"),
            act: async () => {
                await lt.ask("POST", "loras/restore", {aside});
                lt.tell("loras");
            },
        });
    }

    (lt.panels = lt.panels || {}).loras = draw;
})();
