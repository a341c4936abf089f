// Step 4: what is wrong with the pictures, and leaving such ones out.
(() => {
    "use strict";

    const lt = (window.loraTrainer = window.loraTrainer || {});
    const SHOWN = 10; // findings of a kind at first
    const PICTURES = 4; // of a finding

    (lt.panels = lt.panels || {}).doctor = (element) => {
        const bar = lt.tasks.bar();
        const outcome = lt.make("div.column", {id: "lora_trainer_findings", ariaLive: "polite"});
        const button = lt.make("button.primary", {id: "lora_trainer_doctor_start"}, lt.say("Check the pictures"));
        button.onclick = () => lt.run(button, async () => {
            if (!lt.dataset) throw new lt.Trouble(lt.say("There are no pictures yet. Begin with step 1."));
            bar.show(lt.say("Starting"));
            await follow(await lt.ask("POST", lt.set.path("/doctor"), {form: lt.form.all()}));
        }).finally(bar.hide);
        const hint = lt.make("span.hint.grow", {}, lt.say(
            "Looks for damaged, small and blurred pictures, duplicates, and captions that are missing or empty.",
        ));
        element.append(lt.make("div.row", {}, button, hint), bar.element, outcome);

        const follow = async (task) => {
            const name = lt.dataset;
            bar.oncancel = () => lt.ask("DELETE", `tasks/${task.id}`);
            outcome.replaceChildren();
            try {
                const result = await lt.tasks.follow(task, ({done, of}) => bar.show(
                    lt.say("Looking at {done} of {count} pictures", {done, count: of || "…"}), done, of,
                ));
                if (name === lt.dataset) draw(result);
            } finally {
                bar.hide();
            }
        };
        const draw = (result) => {
            if (!result) outcome.replaceChildren(lt.make("p.notice", {}, lt.say("Cancelled.")));
            else outcome.replaceChildren(...groups(result));
        };
        const resume = async () => {
            const task = await lt.tasks.running("doctor").catch(() => null);
            if (task) await follow(task).catch((error) => lt.fault(button, error));
        };
        lt.on("dataset", () => {
            outcome.replaceChildren();
            resume();
        });
        resume();
    };

    const groups = ({pictures, findings, notices}) => {
        const said = notices.map((notice) => lt.make("p.notice", {}, lt.say(notice)));
        if (!findings.length) {
            const sentence = lt.say("{count} pictures, and nothing to put right.", {count: pictures});
            said.push(lt.make("p.notice", {}, sentence));
        }
        const kinds = [...new Set(findings.map((finding) => finding.kind))];
        return [...said, ...kinds.map((kind) => group(kind, findings.filter((finding) => finding.kind === kind)))];
    };

    const TITLES = {
        "unreadable": () => lt.say("Cannot be read"),
        "too-small": () => lt.say("Too small"),
        "blurred": () => lt.say("Blurred"),
        "duplicate": () => lt.say("The same picture"),
        "near-duplicate": () => lt.say("Nearly the same picture"),
        "no-caption": () => lt.say("Without a caption"),
        "empty-caption": () => lt.say("Empty caption"),
        "cut-off": () => lt.say("Caption too long"),
        "no-picture": () => lt.say("Caption without a picture"),
    };

    const group = (kind, findings) => {
        const list = lt.make("ul.findings");
        const ids = [...new Set(findings.flatMap((finding) => finding.leave_out))];
        const number = lt.make("span.badge.warn", {}, `${findings.length}`);
        const title = lt.make("summary", {}, lt.make("strong.strong", {}, TITLES[kind]()), " ", number);
        const words = kind.includes("duplicate") ? lt.say("Leave out all but one each") : lt.say("Leave them all out");
        const all = lt.make("button.small", {hidden: !ids.length}, words);
        all.onclick = () => lt.run(all, async () => {
            const sentence = lt.say(
                "Leave out {count} pictures? They go to the folder left_out and can be put back.", {count: ids.length},
            );
            if (await lt.confirm(sentence, lt.say("Leave them out"))) gone(list, await lt.set.leaveOut(ids));
        });
        const more = lt.make("button.small", {onclick: () => add(findings.length)}, lt.say("Show more"));
        let count = 0;
        const add = (end) => {
            list.append(...findings.slice(count, end).map((finding) => row(finding, list)));
            count = Math.min(end, findings.length);
            more.hidden = count === findings.length;
        };
        add(SHOWN);
        const inner = lt.make("div.column", {}, lt.make("div.row", {}, all), list, more);
        return lt.make("details.fold", {open: true, dataset: {kind}}, title, inner);
    };

    const row = (finding, list) => {
        const pictures = finding.pictures.slice(0, PICTURES).map((id) => lt.make("img.picture", {
            src: lt.url(lt.set.path(`/pictures/${id}/thumbnail`)), alt: "", loading: "lazy",
        }));
        const several = finding.leave_out.length < finding.pictures.length;
        const verb = several ? lt.say("Leave out all but the first") : lt.say("Leave out");
        const button = lt.make("button.small", {hidden: !finding.leave_out.length}, verb);
        button.onclick = () => lt.run(button, async () => gone(list, await lt.set.leaveOut(finding.leave_out)));
        const words = lt.make("div.grow.column", {},
            lt.make("span", {}, lt.say(finding.sentence)), lt.make("span.hint", {}, lt.say(finding.remedy)));
        const made = lt.make("li.finding", {}, lt.make("div.finding-pictures", {}, pictures), words, button);
        made.ids = finding.leave_out;
        return made;
    };

    /** Takes findings away whose pictures are left out. */
    const gone = (list, {left_out: leftOut}) => {
        const rows = list.closest("#lora_trainer_findings").querySelectorAll("li.lora-trainer-finding");
        for (const each of rows) if (each.ids.length && each.ids.every((id) => leftOut.includes(id))) each.remove();
    };
})();
