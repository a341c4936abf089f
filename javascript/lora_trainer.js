// What every panel of the Train LoRA tab builds on: the panels' places, requests, elements, questions.
// Every id begins with "lora_trainer_", every class with "lora-trainer-"; the one global name is loraTrainer.
"use strict";

(() => {
    const lt = (window.loraTrainer = window.loraTrainer || {});
    const API = "lora-trainer/v1/";

    /** Panels by name: each is called with its element once that is in the page, and again for a new one. */
    lt.panels = lt.panels || {};

    /** A request that was refused or failed: a sentence, the status (0: no answer), and problems of settings. */
    lt.Trouble = class extends Error {
        constructor(message, status = 0, problems = []) {
            super(message);
            Object.assign(this, {status, problems});
        }
    };

    /** What people call the families. */
    lt.families = {sd15: "SD1.5", sdxl: "SDXL", flux: "Flux", sd2: "SD2", sd3: "SD3"};

    /** The address of a route of ours, such as `jobs/3/log`, wherever the host's page lies. */
    lt.url = (path) => new URL(API + path, document.baseURI).href;

    /** A path as a part of an address: all but its strokes encoded. */
    lt.encoded = (path) => path.split("/").map(encodeURIComponent).join("/");

    /** Asks a route and resolves with its JSON (null where it has none). `raw` is sent as it is. Throws Trouble. */
    lt.ask = async (method, path, body, {raw, headers, signal} = {}) => {
        const options = {method, signal, headers: {Accept: "application/json", ...headers}};
        if (raw !== undefined) options.body = raw;
        else if (body !== undefined) {
            options.headers["Content-Type"] = "application/json";
            options.body = JSON.stringify(body);
        }
        let response;
        try {
            response = await fetch(lt.url(path), options);
        } catch (error) {
            if (error.name === "AbortError") throw error;
            throw new lt.Trouble(lt.say("The WebUI does not answer. Is it still running?"));
        }
        const answer = await response.json().catch(() => null);
        if (response.ok) return answer;
        const {status} = response;
        const problems = (answer && answer.problems) || [];
        const told = problems.map((each) => `${lt.sentence(each.problem)} ${lt.sentence(each.remedy)}`).join(" ");
        const detail = answer && (typeof answer.detail === "string" ? answer.detail : answer.error);
        throw new lt.Trouble(
            (detail && lt.say(detail)) || told || lt.say("The WebUI answered with an error ({status}).", {status}),
            status,
            problems,
        );
    };

    /** An element such as make("button.primary", {onclick}, "Start"); classes get our prefix, texts become text. */
    lt.make = (kind, properties = {}, ...children) => {
        const [tag, ...classes] = kind.split(".");
        const element = document.createElement(tag || "div");
        element.classList.add(...classes.map((name) => `lora-trainer-${name}`));
        for (const [name, value] of Object.entries(properties)) {
            if (name === "dataset" || name === "style") Object.assign(element[name], value);
            else if (name in element) element[name] = value;
            else element.setAttribute(name, value);
        }
        element.append(...children.flat(Infinity).filter((child) => (child ?? false) !== false));
        return element;
    };

    /** A button that does what `act` does, through lt.run. */
    lt.button = (kind, words, act, title = "") => {
        const button = lt.make(kind, {title}, words);
        button.onclick = () => lt.run(button, act);
        return button;
    };

    /** Does what a button asks for: shows at once that it is at work, then what went wrong, if anything did. */
    lt.run = async (button, act) => {
        if (button.disabled) return undefined;
        lt.fault(button, null);
        button.disabled = true;
        button.setAttribute("aria-busy", "true");
        try {
            return await act();
        } catch (error) {
            lt.fault(button, error);
            if (!(error instanceof lt.Trouble)) throw error;
            return undefined;
        } finally {
            button.disabled = false;
            button.removeAttribute("aria-busy");
        }
    };

    /** Shows a failure's sentence after an element, in place of the one before; null takes it away. */
    lt.fault = (element, error) => {
        const next = element.nextElementSibling;
        if (next && next.classList.contains("lora-trainer-fault")) next.remove();
        if (!error) return;
        const fault = lt.make("p.problem.fault", {role: "alert"}, error.message || String(error));
        element.after(fault);
        fault.scrollIntoView({block: "nearest"});
    };

    /** Asks before something is done; resolves with whether to do it. Enter does it, Escape does not. */
    lt.confirm = (sentence, verb) => new Promise((resolve) => {
        const answer = (yes) => {
            dialog.close();
            dialog.remove();
            resolve(yes);
        };
        const yes = lt.make("button.primary", {id: "lora_trainer_confirm", onclick: () => answer(true)}, verb);
        const no = lt.make("button", {onclick: () => answer(false)}, lt.say("Cancel"));
        const buttons = lt.make("div.buttons", {}, no, yes);
        const dialog = lt.make("dialog.panel.dialog", {}, lt.make("p", {}, sentence), buttons);
        dialog.addEventListener("cancel", () => answer(false));
        lt.home().append(dialog);
        dialog.showModal();
        yes.focus();
    });

    /** A sentence at the lower edge for some seconds, with a button if `act` is given (such as Undo). */
    lt.toast = (sentence, {verb, act, seconds = 8} = {}) => {
        document.querySelectorAll(".lora-trainer-toasts").forEach((old) => old.remove());
        const toast = lt.make("div.toast", {role: "status"}, lt.make("span", {}, sentence));
        const place = lt.make("div.panel.toasts", {}, toast);
        const [dialog] = dialogs().slice(-1); // which covers everything else
        if (act) {
            const button = lt.make("button", {}, verb);
            button.onclick = () => lt.run(button, async () => {
                await act();
                place.remove();
            });
            toast.append(button);
        }
        (dialog || lt.home()).append(place);
        setTimeout(() => place.remove(), seconds * 1000);
    };

    const dialogs = () => [...document.querySelectorAll("dialog.lora-trainer-panel[open]")];

    /** Where dialogs and toasts go, so that they have the host's colours. */
    lt.home = () => {
        const host = document.querySelector("gradio-app");
        return (host && (host.querySelector(".gradio-container") || host)) || document.body;
    };

    /** Calls `act` with the facts of each event of that name. */
    lt.on = (event, act) => document.addEventListener(`lora_trainer_${event}`, ({detail}) => act(detail));

    lt.tell = (event, facts = {}) => document.dispatchEvent(new CustomEvent(`lora_trainer_${event}`, {detail: facts}));

    /** What this browser keeps for the next visit: text by name; `null` where it keeps nothing. */
    lt.kept = (name) => {
        try {
            return window.localStorage.getItem(`lora_trainer_${name}`);
        } catch {
            return null; // the browser allows no storage
        }
    };

    lt.keep = (name, text) => {
        try {
            window.localStorage.setItem(`lora_trainer_${name}`, text);
        } catch {
            // full or not allowed: only a reload would miss it
        }
    };

    /** The dataset that all panels show. */
    lt.dataset = lt.kept("dataset") || "";

    lt.choose = (name) => {
        lt.dataset = name;
        lt.keep("dataset", name);
        lt.tell("dataset", {name});
    };

    /** Opens one of our sub-tabs: train, queue, loras or compare; whatever dialog covers it is closed. */
    lt.show = (name) => {
        dialogs().forEach((dialog) => dialog.close());
        const titles = {train: "Train", queue: "Queue & history", loras: "My LoRAs", compare: "Compare"};
        const buttons = document.querySelectorAll("#lora_trainer_tabs > .tab-nav > button");
        buttons[Object.keys(titles).indexOf(name)].click();
    };

    /** Opens a fold of the form, if it is closed. */
    lt.unfold = (element) => {
        const around = (inner) => inner.closest(".lora-trainer-fold");
        for (let fold = around(element); fold; fold = around(fold.parentElement)) {
            const title = fold.querySelector(".label-wrap");
            if (title && !title.classList.contains("open")) title.click();
        }
    };

    /** Draws each panel whose place is in the page and empty: at first, and after the host has made the page anew. */
    const draw = () => {
        for (const [name, panel] of Object.entries(lt.panels)) {
            const element = document.getElementById(`lora_trainer_${name}`);
            if (!element || element.dataset.drawn) continue;
            element.dataset.drawn = "yes";
            element.closest(".prose")?.classList.remove("prose"); // gradio's styles of running text
            panel(element);
        }
    };

    let started = false;
    const start = () => {
        if (started) return;
        started = true;
        let planned = false;
        new MutationObserver(() => {
            if (planned) return;
            planned = true;
            requestAnimationFrame(() => {
                planned = false;
                draw();
            });
        }).observe(document.body, {childList: true, subtree: true});
        draw();
    };

    // While the page is "interactive", scripts that stand after this one may not have run yet.
    if (document.readyState === "complete") start();
    else {
        document.addEventListener("DOMContentLoaded", start, {once: true});
        window.addEventListener("load", start, {once: true});
    }
})();
