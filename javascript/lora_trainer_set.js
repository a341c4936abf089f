// The chosen set of pictures: what it holds, a page at a time, and what is done to it.
(() => {
    "use strict";

    const lt = (window.loraTrainer = window.loraTrainer || {});
    const PAGE = 100;
    const EARLY = 24; // thumbnails fetched before there is a panel to show them
    const LATER = 2500; // milliseconds after which the folder itself is looked at
    const set = (lt.set = {summary: null});

    /** The address of something of the chosen set, such as set.path("/tags"); below lt.ask's. */
    set.path = (rest = "", name = lt.dataset) => `datasets/${encodeURIComponent(name)}${rest}`;

    /** The address of a picture's thumbnail; `original`: of the picture as it came. */
    set.thumbnail = (picture, original = false) => {
        const stamp = original ? picture.original_stamp : picture.stamp;
        return lt.url(set.path(`/pictures/${picture.id}/thumbnail?stamp=${stamp}${original ? "&original=1" : ""}`));
    };

    /** The address of the picture itself. */
    set.picture = (picture) => {
        return lt.url(set.path(`/files/${lt.encoded(picture.path)}?stamp=${picture.stamp}`));
    };

    /** Looks at the set again, in its folder too where `whole`; tells "summary" of it, null where none is chosen. */
    set.look = async (whole = false) => {
        const name = lt.dataset;
        let summary = null;
        try {
            summary = name ? await lt.ask("GET", set.path(whole ? "?limit=0" : "?limit=0&quick=1", name)) : null;
        } catch (error) {
            if (error.status === 404 && name === lt.dataset) lt.choose(""); // deleted since
            else lt.tell("summary", {summary: null, error});
            return;
        }
        if (name !== lt.dataset) return;
        const before = set.summary;
        set.summary = summary;
        lt.tell("summary", {summary});
        if (whole && before && summary && before.version !== summary.version) lt.tell("pictures", {name});
    };

    /** Sends changes of the set one after the other, as they were made. */
    let last = Promise.resolve();
    set.change = (method, rest, body) => {
        const path = set.path(rest);
        const sent = last.catch(() => null).then(() => lt.ask(method, path, body));
        last = sent;
        return sent;
    };

    /** Leaves pictures out, with a way back. */
    set.leaveOut = async (ids) => {
        const name = lt.dataset;
        const answer = await set.change("POST", "/leave_out", {pictures: ids});
        lt.tell("pictures", {name});
        const count = answer.left_out.length;
        const said = count === 1 ? lt.say("1 picture left out.") : lt.say("{count} pictures left out.", {count});
        lt.toast([said, ...answer.notices].join(" "), {
            verb: lt.say("Put back"),
            act: async () => {
                await lt.ask("POST", set.path("/put_back", name), {files: answer.files});
                lt.tell("pictures", {name});
            },
        });
        return answer;
    };

    /** The pictures that a query finds: `at(index)` is a picture, or undefined until its page has come. */
    set.Pages = class {
        constructor(query, onload) {
            Object.assign(this, {query, onload, name: lt.dataset, count: null, pages: new Map(), pending: new Map()});
        }

        at(index) {
            const page = this.pages.get(Math.floor(index / PAGE));
            return page && page[index % PAGE];
        }

        /** Asks for the pages of these places that have not come yet, and for no others any more. */
        want(first, end) {
            const wanted = new Set();
            for (let page = Math.floor(first / PAGE); page * PAGE < end; page++) wanted.add(page);
            for (const [page, abort] of this.pending) if (!wanted.has(page)) abort.abort();
            for (const page of wanted) if (!this.pages.has(page) && !this.pending.has(page)) this.load(page);
        }

        asked(page, signal) {
            if (first && first.name === this.name && !page && !Object.keys(this.query).length) {
                const {answer} = first;
                first = null;
                return answer;
            }
            const query = new URLSearchParams({...this.query, offset: page * PAGE, limit: PAGE});
            return lt.ask("GET", set.path(`/pictures?${query}`, this.name), undefined, {signal});
        }

        async load(page) {
            const abort = new AbortController();
            this.pending.set(page, abort);
            try {
                const answer = await this.asked(page, abort.signal);
                this.pages.set(page, answer.pictures);
                this.count = answer.count;
                this.onload();
            } catch (error) {
                if (error.name !== "AbortError") {
                    this.count = this.count || 0;
                    this.onload(error);
                }
            } finally {
                this.pending.delete(page);
            }
        }
    };

    /** The first page is asked for while gradio still builds the panels. */
    let first = null;
    const early = () => {
        if (!lt.dataset) return;
        first = {name: lt.dataset, answer: lt.ask("GET", set.path(`/pictures?offset=0&limit=${PAGE}`))};
        first.answer.then(({pictures}) => pictures.slice(0, EARLY).forEach((picture) => {
            new Image().src = set.thumbnail(picture);
        })).catch(() => (first = null)); // it is asked for again, and then told
    };
    if (lt.ask) early();
    else document.addEventListener("DOMContentLoaded", early);

    lt.on("dataset", ({name}) => {
        set.summary = null;
        set.look();
        lookWhole(name);
    });

    /** What a person has changed in the folder is looked for once there is time. */
    const lookWhole = (name) => setTimeout(() => name && name === lt.dataset && set.look(true), LATER);
    lookWhole(lt.dataset);

    lt.on("pictures", ({name}) => name === lt.dataset && set.look());

    /** A person may have changed the folder meanwhile. */
    document.addEventListener("visibilitychange", () => {
        if (!document.hidden && set.summary) set.look(true);
    });
})();
