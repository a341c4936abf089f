// Step 6: the arithmetic of pictures, repeats, epochs and batches, and what it takes.
"use strict";

(() => {
    const lt = (window.loraTrainer = window.loraTrainer || {});
    let folders = []; // of the chosen set: {name, repeats, pictures}
    let counted = null; // the server's count of steps, which knows the buckets; null until it has seen the last change

    (lt.panels = lt.panels || {}).steps = (element) => {
        const sum = lt.make("p.strong", {id: "lora_trainer_sum"});
        const takes = lt.make("p.hint", {id: "lora_trainer_takes"});
        const table = lt.make("div");
        element.append(table, sum, takes);
        const draw = () => {
            sum.textContent = arithmetic();
            takes.textContent = estimate(lt.checked || {});
        };
        const again = (summary) => {
            folders = summary ? summary.folders : [];
            counted = null;
            table.replaceChildren(...(folders.length > 1 ? [folderTable()] : []));
            draw();
        };
        lt.on("form", () => {
            counted = null;
            draw();
        });
        lt.on("checked", ({steps}) => {
            counted = steps;
            draw();
        });
        lt.on("summary", ({summary}) => again(summary));
        again(lt.set.summary);
    };

    const whole = (name) => Math.max(0, Math.floor(Number(lt.form.value(name)) || 0));

    /** "7 pictures × 10 repeats × 10 epochs / 1 = 700 steps"; with the server's count where it has given one. */
    const arithmetic = () => {
        const pictures = folders.reduce((sum, folder) => sum + folder.pictures, 0);
        if (!pictures) return lt.say("No pictures yet.");
        const [repeats, epochs, batch] = ["repeats", "epochs", "batch_size"].map(whole);
        const batches = (batch || 1) * (whole("gradient_accumulation") || 1);
        const seen = folders.length > 1
            ? folders.reduce((sum, folder) => sum + folder.pictures * (folder.repeats || repeats), 0)
            : pictures * repeats;
        const steps = counted || whole("max_steps") || Math.ceil(seen / batches) * epochs;
        const facts = {pictures, repeats, epochs, batch: batches, steps: steps.toLocaleString(), seen};
        if (whole("max_steps")) return lt.say("{steps} steps, as set under Advanced.", facts);
        if (folders.length > 1) {
            return lt.say("{seen} pictures, repeats included, × {epochs} epochs / {batch} = {steps} steps", facts);
        }
        return lt.say("{pictures} pictures × {repeats} repeats × {epochs} epochs / {batch} = {steps} steps", facts);
    };

    /** Time, memory and disk, and where that is known from. */
    const estimate = ({estimate: found}) => {
        if (!found) return "";
        const parts = [];
        if (found.seconds !== null) parts.push(lt.say("about {time}", {time: lt.duration(found.seconds)}));
        const memory = found.peak_mb !== null && (found.peak_mb / 1024).toFixed(1);
        if (memory) parts.push(lt.say("{size} GB of memory", {size: memory}));
        if (found.disk_mb) parts.push(lt.say("{size} MB on disk", {size: Math.round(found.disk_mb).toLocaleString()}));
        return [parts.join(", "), lt.say(found.why)].filter(Boolean).join(" — ");
    };

    /** How often each folder of a set with several is seen: their names say it. */
    const folderTable = () => lt.make("table.table", {}, folders.map((folder) => lt.make(
        "tr", {},
        lt.make("td", {}, folder.name || lt.dataset),
        lt.make("td", {}, lt.say("{count} pictures", {count: folder.pictures})),
        lt.make("td", {}, lt.say("{count} repeats", {count: folder.repeats || whole("repeats")})),
    )));
})();
