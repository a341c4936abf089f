// Step 1: a set of pictures is chosen or made, and pictures come into it.
(() => {
    "use strict";

    const lt = (window.loraTrainer = window.loraTrainer || {});
    const AT_ONCE = 3; // files that are sent side by side
    const WANTED = /\.(png|apng|jpe?g|jpe|jfif|webp|bmp|gif|tiff?|avif|txt|caption|zip)$/i;
    const HIDDEN = /(^|\/)(\.|__MACOSX(\/|$)|Thumbs\.db$|desktop\.ini$)/i;
    const NEW = ""; // the choice that is no set yet

    (lt.panels = lt.panels || {}).pictures = (element) => {
        const sets = chooser();
        const bar = lt.tasks.bar();
        const outcome = lt.make("div.column", {ariaLive: "polite"});
        const told = lt.make("p.hint", {id: "lora_trainer_set_facts"});
        const putBack = leftOut();
        const gallery = lt.gallery({label: lt.say("Pictures of the set"), side: 96});
        gallery.element.classList.add("lora-trainer-short");
        const take = taker(sets, bar, outcome);
        const shown = lt.make("div.column", {hidden: !lt.dataset}, told, gallery.element, putBack.element);
        element.append(sets.element, dropPlace(take), serverFolder(take), bar.element, outcome, shown);

        lt.on("summary", ({summary, error}) => {
            if (error) outcome.replaceChildren(lt.make("p.problem", {}, error.message));
            if (!summary) return;
            told.textContent = facts(summary);
            putBack.show(summary.left_out);
            summary.notices.forEach((notice) => outcome.append(lt.make("p.notice", {}, lt.say(notice))));
        });
        lt.on("dataset", ({name}) => {
            outcome.replaceChildren();
            shown.hidden = !name;
            told.textContent = "";
            if (name) gallery.show();
            take.resume();
        });
        lt.on("pictures", ({name}) => name === lt.dataset && gallery.again());
        if (lt.dataset) gallery.show();
        lt.set.look();
        take.resume();
    };

    const facts = ({count, captioned, cut, folders}) => {
        const parts = [count === 1 ? lt.say("1 picture") : lt.say("{count} pictures", {count})];
        parts.push(lt.say("{count} with a caption", {count: captioned}));
        if (cut) parts.push(lt.say("{count} cut", {count: cut}));
        const repeated = folders.filter((folder) => folder.repeats);
        if (repeated.length > 1) parts.push(repeated.map((folder) => `${folder.name}: ${folder.pictures}`).join(", "));
        return parts.join(" · ");
    };

    /** The list of sets, and the name of one that is going to be made. */
    const chooser = () => {
        const list = lt.make("select", {id: "lora_trainer_set", onchange: () => lt.choose(list.value)});
        const name = lt.make("input", {id: "lora_trainer_set_name", placeholder: "my_pictures", spellcheck: false});
        const named = lt.make("label.field.grow", {}, lt.say("Its name"), name);
        const away = lt.make("button.danger", {id: "lora_trainer_delete_set"}, lt.say("Delete set"));
        let names = [];

        const look = async () => {
            names = (await lt.ask("GET", "datasets")).datasets.map((each) => each.name);
            draw();
        };
        const draw = () => {
            const options = names.map((each) => lt.make("option", {value: each}, each));
            list.replaceChildren(lt.make("option", {value: NEW}, lt.say("New set …")), ...options);
            list.value = names.includes(lt.dataset) ? lt.dataset : NEW;
            named.hidden = list.value !== NEW;
            away.hidden = list.value === NEW;
        };
        away.onclick = async () => {
            const gone = lt.dataset;
            const sentence = lt.say(
                "Delete the set {name}? Its folder is moved to “.deleted” beside the others.", {name: gone},
            );
            if (!(await lt.confirm(sentence, lt.say("Delete set")))) return;
            await lt.run(away, async () => {
                await lt.ask("DELETE", lt.set.path("", gone));
                lt.choose(NEW);
            });
        };
        /** The set that pictures go into: the chosen one, else a new one named as typed, or as what was dropped. */
        const target = (suggested) => {
            if (lt.dataset) return lt.dataset;
            const typed = name.value.trim();
            const stem = typed || plain(suggested) || "my_pictures";
            if (typed && names.includes(stem)) {
                throw new lt.Trouble(lt.say(
                    "A set of this name is there already. Choose it in the list, or type another name.",
                ));
            }
            let free = stem;
            for (let number = 2; names.includes(free); number++) free = `${stem}_${number}`;
            return free;
        };
        name.addEventListener("input", () => lt.fault(name, null));
        lt.on("dataset", () => look().catch(() => draw()));
        look().catch((error) => lt.fault(list, error));
        const field = lt.make("label.field.grow", {}, lt.say("Set of pictures"), list);
        return {element: lt.make("div.row.set", {}, field, named, away), target, clear: () => (name.value = "")};
    };

    const plain = (text) => text.replace(/^\d+_/, "").replace(/[<>:"/\\|?*\s]+/g, "_").replace(/^[._]+|[._]+$/g, "");

    /** Where files are dropped, or chosen. */
    const dropPlace = (take) => {
        const files = lt.make("input", {type: "file", multiple: true, hidden: true, id: "lora_trainer_files"});
        files.accept = "image/*,.avif,.zip,.txt,.caption";
        const folder = lt.make("input", {type: "file", multiple: true, hidden: true, id: "lora_trainer_folder"});
        folder.webkitdirectory = true;
        for (const input of [files, folder]) {
            input.onchange = () => {
                const found = [...input.files].map((file) => ({path: file.webkitRelativePath || file.name, file}));
                input.value = "";
                take.files(found);
            };
        }
        const place = lt.make(
            "div.drop", {id: "lora_trainer_drop"},
            lt.make("strong.strong", {}, lt.say("Drop pictures, a folder or a zip here")),
            lt.make("div.row", {},
                lt.make("button", {onclick: () => files.click()}, lt.say("Choose files")),
                lt.make("button", {onclick: () => folder.click()}, lt.say("Choose a folder"))),
            lt.make("span.hint", {}, lt.say(
                "PNG, JPEG, WebP, BMP, GIF, TIFF or AVIF; captions (.txt, .caption) come along.",
            )),
            files, folder,
        );
        place.addEventListener("dragover", (event) => {
            event.preventDefault();
            place.classList.add("lora-trainer-over");
        });
        place.addEventListener("dragleave", (event) => {
            if (!place.contains(event.relatedTarget)) place.classList.remove("lora-trainer-over");
        });
        place.addEventListener("drop", async (event) => {
            event.preventDefault();
            event.stopPropagation(); // the WebUI takes dropped pictures for its own prompts
            place.classList.remove("lora-trainer-over");
            take.files(await dropped(event.dataTransfer));
        });
        return place;
    };

    /** The files of a drop, those in dropped folders too: [{path, file}]. */
    const dropped = async (transfer) => {
        const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
        if (!entries.length) return [...transfer.files].map((file) => ({path: file.name, file}));
        return (await Promise.all(entries.map(walked))).flat();
    };

    const walked = async (entry) => {
        if (entry.isFile) {
            const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
            return [{path: entry.fullPath.slice(1), file}];
        }
        const reader = entry.createReader();
        const found = [];
        for (let some = [null]; some.length; found.push(...some)) {
            some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // a hundred at most
        }
        return (await Promise.all(found.map(walked))).flat();
    };

    const serverFolder = (take) => {
        const path = lt.make("input", {id: "lora_trainer_server_folder", spellcheck: false});
        const button = lt.make("button", {id: "lora_trainer_import_folder"}, lt.say("Import folder"));
        button.onclick = () => take.folder(path.value.trim(), button);
        path.addEventListener("keydown", (event) => event.key === "Enter" && button.click());
        const field = lt.make("label.field.grow", {}, lt.say("Its path, or that of a zip"), path);
        const inner = lt.make("div.row.set", {}, field, button);
        return lt.make("details.fold", {}, lt.make("summary", {}, lt.say("A folder on this server")), inner);
    };

    /** What brings pictures in: {files([{path, file}]), folder(path, button), resume()}. */
    const taker = (sets, bar, outcome) => {
        const show = (task) => {
            bar.oncancel = () => lt.ask("DELETE", `tasks/${task.id}`);
            const facts = {done: task.done, count: task.of || "…"};
            bar.show(lt.say("Importing {done} of {count} pictures", facts), task.done, task.of);
        };
        const say = (...parts) => outcome.replaceChildren(...parts.flat().filter(Boolean));
        const finish = async (name, task, refused) => {
            const result = await lt.tasks.follow(task, show);
            if (!result) {
                say(cancelled());
                return;
            }
            sets.clear();
            if (name !== lt.dataset) lt.choose(name);
            else lt.tell("pictures", {name});
            say(report(result, refused));
        };
        const guarded = async (act, refused = []) => {
            if (!bar.element.hidden) {
                lt.toast(lt.say("Pictures are being imported already. Wait for that, or cancel it."));
                return;
            }
            say();
            try {
                await act();
            } catch (error) {
                say(error.name === "AbortError" ? cancelled() : failure(error, refused));
                if (!(error instanceof lt.Trouble) && error.name !== "AbortError") throw error;
            } finally {
                bar.hide();
            }
        };
        const cancelled = () => lt.make("p.notice", {}, lt.say("Cancelled. Nothing was added."));
        const options = () => ({
            repeats: Number(lt.form.value("repeats")) || 10,
            trigger_word: String(lt.form.value("trigger_word") || ""),
            background: lt.form.value("background"),
            caption_extension: lt.form.value("caption_extension"),
        });
        const start = (name, source) => lt.ask("POST", lt.set.path("/import", name), {...options(), ...source});

        const files = (found) => {
            const visible = found.filter(({path}) => !HIDDEN.test(path));
            const wanted = visible.filter(({path}) => WANTED.test(path));
            const refused = visible.filter(({path}) => !WANTED.test(path)).map(({path}) => ({
                setting: path, problem: "is neither a picture nor a caption nor a zip", remedy: "Leave it out.",
            }));
            return guarded(async () => {
                if (!wanted.length) throw new lt.Trouble(lt.say("There are no pictures among these files."));
                const name = sets.target(suggestion(wanted[0].path));
                const upload = await send(wanted, bar, refused);
                await finish(name, await start(name, {upload}), refused);
            }, refused);
        };
        const folder = (path, button) => guarded(() => lt.run(button, async () => {
            bar.show(lt.say("Looking into the folder"));
            const name = sets.target(path.split(/[\\/]/).filter(Boolean).pop().replace(/\.zip$/i, ""));
            await finish(name, await start(name, {folder: path}), []);
        }));
        const resume = async () => {
            const task = await lt.tasks.running("import").catch(() => null);
            if (task) await guarded(() => finish(task.dataset, task, []));
        };
        const nowhere = async () => {
            throw new lt.Trouble(lt.say("Type the path of a folder or of a zip first."));
        };
        return {files, folder: (path, button) => (path ? folder(path, button) : lt.run(button, nowhere)), resume};
    };

    const suggestion = (path) => {
        const [first, ...rest] = path.split("/");
        return rest.length ? first : /\.zip$/i.test(first) ? first.slice(0, -4) : "";
    };

    /** Sends files one by one, some side by side; resolves with the upload's id. What is refused joins `refused`. */
    const send = async (wanted, bar, refused) => {
        const abort = new AbortController();
        bar.oncancel = () => abort.abort();
        const total = wanted.reduce((sum, {file}) => sum + file.size, 0);
        let [bytes, done] = [0, 0];
        const show = (more = 0) => {
            bytes += more;
            bar.show(lt.say("Sending {done} of {count} files", {done, count: wanted.length}), bytes, total || 1);
        };
        show();
        const {upload} = await lt.ask("POST", "uploads", undefined, {signal: abort.signal});
        const queue = [...wanted];
        const worker = async () => {
            for (let next = queue.shift(); next; next = queue.shift()) {
                const path = lt.encoded(next.path);
                try {
                    await put(`uploads/${upload}/files/${path}`, next.file, show, abort.signal);
                } catch (error) {
                    if (!error.status || error.status >= 500) throw error;
                    const told = {setting: next.path, problem: error.message, remedy: ""};
                    refused.push(...(error.problems.length ? error.problems : [told]));
                }
                done += 1;
                show();
            }
        };
        try {
            await Promise.all(Array.from({length: AT_ONCE}, worker));
        } catch (error) {
            queue.length = 0;
            abort.abort();
            lt.ask("DELETE", `uploads/${upload}`).catch(() => null);
            throw error;
        }
        return upload;
    };

    /** Like lt.ask with `raw`, and tells how many bytes more are gone, which fetch cannot. */
    const put = (path, file, tell, signal) => new Promise((resolve, reject) => {
        const request = new XMLHttpRequest();
        let gone = 0;
        request.upload.onprogress = ({loaded}) => {
            tell(loaded - gone);
            gone = loaded;
        };
        request.onload = () => {
            if (request.status < 300) return resolve();
            const {problems = [], detail = ""} = request.response || {};
            const {status} = request;
            const sentence = detail || lt.say("The WebUI answered with an error ({status}).", {status});
            return reject(new lt.Trouble(sentence, status, problems));
        };
        request.onerror = () => reject(new lt.Trouble(lt.say("The WebUI does not answer. Is it still running?")));
        request.onabort = () => reject(new DOMException("", "AbortError"));
        signal.addEventListener("abort", () => request.abort());
        request.open("PUT", lt.url(path));
        request.responseType = "json";
        request.send(file);
        if (signal.aborted) request.abort();
    });

    const report = ({added, already, left_out: leftOut, notices}, refused) => {
        const sentence = added === 1 ? lt.say("1 picture added.") : lt.say("{count} pictures added.", {count: added});
        const known = already ? lt.say("{count} were in the set already.", {count: already}) : "";
        const bad = [...refused, ...leftOut];
        return [
            lt.make("p.notice", {id: "lora_trainer_imported"}, [sentence, known].filter(Boolean).join(" ")),
            ...notices.map((notice) => lt.make("p.notice", {}, lt.say(notice))),
            bad.length ? lt.make("p.strong", {}, lt.say("Not imported:")) : null,
            bad.length ? lt.problems(bad) : null,
        ];
    };

    const failure = (error, refused) => {
        const problems = [...(error.problems || []), ...refused];
        return problems.length ? lt.problems(problems) : lt.make("p.problem", {role: "alert"}, error.message);
    };

    /** The pictures that were left out, to be put back. */
    const leftOut = () => {
        const words = lt.make("summary");
        const inner = lt.make("div.column");
        const element = lt.make("details.fold", {hidden: true, id: "lora_trainer_left_out"}, words, inner);
        const draw = async () => {
            const {files} = await lt.ask("GET", lt.set.path("/left_out"));
            const box = (file) => lt.make("input", {type: "checkbox", value: file});
            const rows = files.map((file) => lt.make("label.check", {}, box(file), file));
            const button = lt.make("button", {onclick: () => lt.run(button, async () => {
                const chosen = [...inner.querySelectorAll("input:checked")].map((box) => box.value);
                const answer = await lt.set.change("POST", "/put_back", {files: chosen.length ? chosen : files});
                answer.notices.forEach((notice) => lt.toast(lt.say(notice)));
                lt.tell("pictures", {name: lt.dataset});
            })}, lt.say("Put back the ticked ones, or all"));
            inner.replaceChildren(lt.make("div.scroll.left-out", {}, rows), lt.make("div.row", {}, button));
        };
        element.addEventListener("toggle", () => element.open && draw());
        const show = (count) => {
            element.hidden = !count;
            words.textContent = lt.say("{count} left out", {count});
            if (element.open && count) draw();
        };
        return {element, show};
    };
})();
