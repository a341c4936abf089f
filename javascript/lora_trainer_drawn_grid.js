// Grids that the WebUI itself draws: epochs and weights of a job, or weights and prompts of a LoRA that is in use.
// What is drawn is kept, so that it is there again when the dialog, the page or the WebUI is opened again.
"use strict";

(() => {
    const lt = (window.loraTrainer = window.loraTrainer || {});
    const EVERY = 500; // milliseconds between two looks at a grid that is being drawn
    const EPOCHS = 4; // of a job that are chosen at first, the last ones

    let draws = null;

    /** Whether the host makes pictures itself; asked once, as it does not change. */
    lt.hostDraws = async () => {
        draws ??= (await lt.ask("GET", "grids?job=none")).draws;
        return draws;
    };

    /** Asks what to draw of {job} or {lora}, or shows what is drawn already. Resolves when it is closed. */
    lt.drawnGrid = async (subject) => {
        const query = new URLSearchParams(subject);
        const [suggested, {models}, {grids}] = await Promise.all([
            lt.ask("GET", `grids/suggestion?${query}`),
            lt.ask("GET", "models"),
            lt.ask("GET", `grids?${query}`),
        ]);
        return new Promise((resolve) => open({subject, suggested, models, grids}, resolve));
    };

    function open(view, resolve) {
        view.body = lt.make("div.column");
        view.buttons = lt.make("div.buttons");
        view.close = lt.make("button", {onclick: () => view.dialog.close()}, lt.say("Close"));
        const title = lt.make("p.title", {}, lt.say("Grid of {name}", view.suggested));
        const id = "lora_trainer_drawn_grid";
        view.dialog = lt.make("dialog.panel.dialog.wide", {id}, title, view.body, view.buttons);
        view.dialog.addEventListener("close", () => {
            view.dialog.remove();
            resolve();
        });
        lt.home().append(view.dialog);
        view.dialog.showModal();
        const running = view.grids.find((grid) => grid.task);
        if (running) show(view, running);
        else ask(view);
    }

    // ---- what is to be drawn

    function ask(view) {
        view.grid = null;
        const files = epochs(view);
        const {base_model: base, ...others} = lt.gridFields(view.suggested, view.models, Boolean(files.files));
        const fields = {base_model: base, ...files, ...others};
        const count = lt.make("p.hint", {role: "status"});
        const told = () => {
            const [loras, weights, prompts] = [files.files, others.weights, others.prompts].map(
                (field) => field?.read().length ?? 1,
            );
            const facts = {count: prompts * (1 + loras * weights)};
            count.textContent = lt.say("{count} pictures, which the WebUI makes as its Generate does.", facts);
        };
        const draw = lt.button("button.primary", lt.say("Draw the grid"), () => start(view, fields));
        draw.id = "lora_trainer_grid_draw";
        const labels = Object.values(fields).map((field) => field.label);
        view.body.replaceChildren(...earlier(view), ...labels, count);
        view.body.oninput = told;
        view.buttons.replaceChildren(view.close, draw);
        told();
    }

    /** The LoRAs that the job has saved, to be chosen from; nothing of a LoRA that is in use. */
    function epochs({subject, suggested}) {
        if (!subject.job) return {};
        const boxes = suggested.loras.map((lora, place) => {
            const checked = place >= suggested.loras.length - EPOCHS;
            const box = lt.make("input", {type: "checkbox", value: lora.file, checked});
            return lt.make("label.row", {}, box, momentWords(suggested, lora));
        });
        const group = lt.make("div.row", {role: "group"}, boxes);
        const label = lt.make("div.field", {id: "lora_trainer_grid_epochs"}, lt.say("Epochs, a row for each"), group);
        const read = () => [...label.querySelectorAll("input:checked")].map((box) => box.value);
        return {files: {label, read}};
    }

    function earlier(view) {
        if (!view.grids.length) return [];
        const buttons = view.grids.map((grid) =>
            lt.make("button.small", {onclick: () => show(view, grid)}, lt.say("{when}, {drawn} of {count} pictures", {
                when: lt.when(grid.created_at),
                drawn: grid.drawn,
                count: grid.cells.length,
            })));
        const title = lt.make("span", {}, lt.say("Drawn before"));
        return [lt.make("div.field", {id: "lora_trainer_grids"}, title, lt.make("div.row", {}, buttons))];
    }

    async function start(view, fields) {
        const given = Object.fromEntries(Object.entries(fields).map(([name, field]) => [name, field.read()]));
        try {
            const {grid} = await lt.ask("POST", "grids", {...view.subject, ...given});
            view.grids = [grid, ...view.grids];
            show(view, grid);
        } catch (trouble) {
            lt.blame(fields, trouble);
        }
    }

    // ---- what is drawn

    function show(view, grid) {
        view.body.oninput = null;
        view.bar = lt.tasks.bar();
        view.table = lt.make("div.scroll.sheet");
        view.state = lt.make("p.hint", {role: "status"});
        view.bar.oncancel = () => lt.ask("DELETE", `tasks/${view.grid.task}`);
        const about = lt.say("Drawn with {base}. Click a picture to see it large, and to choose it.", {
            base: grid.base_model,
        });
        view.body.replaceChildren(lt.make("p.hint", {}, about), view.bar.element, view.state, view.table);
        view.actions = actions(view, grid);
        view.buttons.replaceChildren(...Object.values(view.actions), view.close);
        update(view, grid);
        if (grid.task) watch(view, grid);
    }

    function actions(view, grid) {
        const address = {href: lt.url(`grids/${grid.id}/sheet`), download: `${grid.name}-grid.png`};
        const more = async () => {
            const answer = await lt.ask("POST", `grids/${grid.id}/draw`);
            show(view, answer.grid);
        };
        return {
            away: lt.button("button.danger", lt.say("Delete grid"), () => remove(view, grid)),
            back: lt.make("button", {onclick: () => again(view)}, lt.say("Another grid")),
            sheet: lt.make("a.button", address, lt.say("Download the sheet")),
            more: lt.button("button.primary", lt.say("Draw the rest"), more),
        };
    }

    /** Back to the question, with what has been drawn meanwhile. */
    async function again(view) {
        view.grids = (await lt.ask("GET", `grids?${new URLSearchParams(view.subject)}`)).grids;
        ask(view);
    }

    async function remove(view, grid) {
        if (!(await lt.confirm(lt.say("Delete this grid and its pictures?"), lt.say("Delete grid")))) return;
        await lt.ask("DELETE", `grids/${grid.id}`);
        await again(view);
    }

    async function watch(view, grid) {
        const {task} = grid;
        while (view.dialog.open && view.grid?.id === grid.id && view.grid.task) {
            await lt.wait(EVERY);
            const newest = await lt.ask("GET", `grids/${grid.id}`).catch(() => view.grid);
            if (view.grid?.id === grid.id) update(view, newest);
        }
        if (view.grid?.id !== grid.id) return;
        const {state, detail} = await lt.ask("GET", `tasks/${task}`).catch(() => ({}));
        if (state === "failed") lt.fault(view.state, {message: lt.say(detail)});
    }

    function update(view, grid) {
        const whole = grid.drawn === grid.cells.length;
        const facts = {drawn: grid.drawn, count: grid.cells.length};
        if (grid.task) {
            const said = lt.say("{drawn} of {count} pictures. What is generated meanwhile comes in between.", facts);
            view.bar.show(said, grid.drawn, grid.cells.length);
        } else view.bar.hide();
        view.state.textContent = lt.say("{drawn} of {count} pictures are drawn.", facts);
        view.state.hidden = Boolean(grid.task) || whole;
        view.actions.more.hidden = Boolean(grid.task) || whole;
        view.actions.away.hidden = Boolean(grid.task);
        view.actions.sheet.hidden = !grid.drawn;
        if (view.grid?.id !== grid.id || view.grid.drawn !== grid.drawn) view.table.replaceChildren(table(view, grid));
        view.grid = grid;
    }

    // ---- the table: weights by prompts of one LoRA, else epochs by weights, prompt by prompt

    function table(view, grid) {
        const cell = cells(view, grid);
        const one = grid.loras.length === 1;
        const rows = one ? ofOne(grid, cell) : ofSeveral(grid, cell);
        const pictures = rows.filter((row) => row.pictures).map((row) => row.pictures);
        const head = one ? grid.prompts : [lt.say("Without the LoRA"), ...grid.weights.map(weightWords)];
        const title = lt.make("tr", {}, lt.make("th.sheet-side"), head.map((words) => lt.make("th", {}, words)));
        const drawn = rows.map((row) => (row.pictures ? pictureRow(grid, row, pictures) : promptRow(row, head.length)));
        return lt.make("table", {}, lt.make("thead", {}, title), lt.make("tbody", {}, drawn));
    }

    const weightWords = (weight) => lt.say("Weight {weight}", {weight});

    /** The moment of one of the grid's LoRAs, as far as it takes to tell it from the others. */
    function momentWords({loras}, lora) {
        if (!lora.epoch) return lora.file;
        const alone = loras.filter((other) => other.epoch === lora.epoch).length === 1;
        return alone ? lt.say("Epoch {epoch}", lora) : lt.say("Epoch {epoch}, step {step}", lora);
    }

    function ofOne(grid, cell) {
        const numbers = grid.prompts.map((_, prompt) => prompt);
        const row = (label, ...place) => ({label, pictures: numbers.map((prompt) => cell(prompt, ...place))});
        const weights = grid.weights.map((weight, place) => row(weightWords(weight), 0, place));
        return [row(lt.say("Without the LoRA"), null, null), ...weights];
    }

    const ofSeveral = (grid, cell) => grid.prompts.flatMap((words, prompt) => [
        {words},
        ...grid.loras.map((lora, number) => ({
            label: momentWords(grid, lora),
            pictures: [cell(prompt, null, null), ...grid.weights.map((_, place) => cell(prompt, number, place))],
        })),
    ]);

    const promptRow = ({words}, columns) =>
        lt.make("tr", {}, lt.make("td.sheet-prompt", {colSpan: columns + 1}, lt.make("span.hint", {}, words)));

    function pictureRow(grid, row, pictures) {
        const number = pictures.indexOf(row.pictures);
        const shape = {style: {aspectRatio: `${grid.width} / ${grid.height}`}};
        return lt.make("tr", {}, lt.make("th.sheet-side", {}, row.label), row.pictures.map((picture, column) =>
            lt.make("td", {}, picture ? lt.thumb(pictures, number, column) : lt.make("div.grid-wait", shape))));
    }

    /** Each cell's picture for the lightbox, with the one without the LoRA beside it; null where it is not drawn. */
    function cells(view, grid) {
        const key = (prompt, lora, weight) => `${prompt} ${lora} ${weight}`;
        const drawn = new Map(grid.cells.map((cell) => [key(cell.prompt, cell.lora, cell.weight), cell.picture]));
        const one = (prompt, lora, weight, words) => {
            const picture = drawn.get(key(prompt, lora, weight));
            return picture ? {src: lt.url(picture), label: words, title: grid.prompts[prompt]} : null;
        };
        return (prompt, lora, weight) => {
            const base = one(prompt, null, null, lt.say("Without the LoRA"));
            if (lora === null) return base;
            const which = grid.job === null ? [] : [momentWords(grid, grid.loras[lora])];
            const words = [...which, weightWords(grid.weights[weight])].join(" · ");
            const shown = one(prompt, lora, weight, words);
            return shown && {...shown, beside: base, ...choice(view, grid, grid.loras[lora], grid.weights[weight])};
        };
    }

    /** What can be done with a cell: to keep this epoch at this weight, or to put the weight on the LoRA's card. */
    function choice(view, grid, lora, weight) {
        if (weight <= 0) return {};
        if (grid.job !== null) {
            const act = () => lt.keepLora({id: grid.job}, lora.file, {weight});
            return {verb: lt.say("Keep this epoch at this weight"), act};
        }
        return {verb: lt.say("Write this weight on its card"), act: () => choose(grid, weight)};
    }

    async function choose(grid, weight) {
        const facts = {name: grid.name, weight};
        const sentence = lt.say("Write the weight {weight} on the card of {name}? Run uses it from then on.", facts);
        if (!(await lt.confirm(sentence, lt.say("Write")))) return;
        await lt.ask("POST", `loras/${lt.encoded(grid.lora)}/card`, {weight});
        lt.tell("loras");
        lt.toast(lt.say("The card of {name} has the weight {weight}.", facts));
    }
})();
