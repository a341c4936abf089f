// Thumbnails of any number of pictures, of which only those in sight are in the page.
(() => {
    "use strict";

    const lt = (window.loraTrainer = window.loraTrainer || {});
    const GAP = 6; // pixels
    const BEYOND = 2; // rows above and below those in sight
    const NEAR = "300px"; // from what is seen of the page: then the pictures are asked for
    const STILL = 60; // milliseconds of no scrolling before further pages are asked for

    /**
     * A gallery of a set's pictures: {element, show(query), again(), choose(index), chosen, at(index), count}.
     * `onchoose(picture, index)` is told of each choice, `onload(count)` of what came. `side`: pixels of a thumbnail.
     */
    lt.gallery = ({side = 112, onchoose = () => {}, onload = () => {}, label = ""}) => {
        const all = lt.make("div.gallery-all");
        const empty = lt.make("p.empty", {hidden: true});
        const element = lt.make("div.gallery", {tabIndex: 0, role: "listbox", ariaLabel: label}, all, empty);
        const cells = new Map();
        const gallery = {element, chosen: -1, count: 0, query: {}};
        let pages = null;
        let columns = 1;
        let cell = side;
        let planned = 0;
        let waiting = 0;
        let near = false;
        let stale = false;
        let wanted = -1;
        let told = null;

        /** Shows what a query finds, from its beginning. */
        gallery.show = (query = {}) => {
            gallery.query = query;
            element.scrollTop = 0;
            gallery.chosen = -1;
            gallery.again();
        };

        /** Asks anew, and stays where it is; once it is near what is seen of the page. */
        gallery.again = () => {
            stale = true;
            if (near) ask();
        };

        const ask = () => {
            stale = false;
            const fresh = new lt.set.Pages(gallery.query, (error) => {
                if (fresh === pages) loaded(error);
            });
            pages = fresh;
            if (!lt.dataset) {
                clear();
                gallery.count = 0;
                all.style.height = "0";
                say(lt.say("No pictures yet."));
                return;
            }
            const place = Math.floor(element.scrollTop / (cell + GAP)) * columns;
            pages.want(place, place + 1);
        };

        gallery.at = (index) => (pages ? pages.at(index) : undefined);

        /** Chooses a picture, scrolls it into sight and tells of it once it has come. */
        gallery.choose = (index) => {
            if (stale || !pages || pages.count === null) {
                wanted = index; // once the pictures have come
                return;
            }
            if (!gallery.count) return;
            gallery.chosen = Math.max(0, Math.min(gallery.count - 1, index));
            const top = Math.floor(gallery.chosen / columns) * (cell + GAP);
            if (top < element.scrollTop) element.scrollTop = top;
            const beneath = top + cell - element.clientHeight;
            if (beneath > element.scrollTop) element.scrollTop = beneath;
            draw();
            if (pages.at(gallery.chosen)) tell();
            else pages.want(gallery.chosen, gallery.chosen + 1);
        };

        const tell = () => {
            const picture = pages.at(gallery.chosen);
            if (!picture || picture === told) return;
            told = picture;
            onchoose(picture, gallery.chosen);
        };

        /** Draws a picture's cell anew, after its caption was changed here. */
        gallery.redraw = () => draw();

        const loaded = (error) => {
            gallery.count = pages.count;
            measure();
            if (error) say(error.message);
            else say(gallery.count ? "" : lt.say("No pictures found."));
            draw();
            const index = wanted;
            wanted = -1;
            if (index >= 0) gallery.choose(index);
            onload(gallery.count);
            if (gallery.chosen >= gallery.count) gallery.choose(gallery.count - 1);
            tell();
        };

        const say = (text) => {
            empty.textContent = text;
            empty.hidden = !text;
        };

        const clear = () => {
            cells.forEach((made) => made.remove());
            cells.clear();
        };

        const measure = () => {
            const width = all.clientWidth;
            if (!width) return;
            columns = Math.max(2, Math.floor((width + GAP) / (side + GAP)));
            cell = Math.floor((width - (columns - 1) * GAP) / columns);
            all.style.height = `${Math.max(0, Math.ceil(gallery.count / columns) * (cell + GAP) - GAP)}px`;
        };

        const draw = () => {
            if (!pages || !element.clientHeight) return;
            const row = cell + GAP;
            const first = Math.max(0, (Math.floor(element.scrollTop / row) - BEYOND) * columns);
            const rows = Math.ceil(element.clientHeight / row) + 2 * BEYOND + 1;
            const end = Math.min(gallery.count, first + rows * columns);
            for (const [index, made] of cells) {
                if (index >= first && index < end) continue;
                made.remove();
                cells.delete(index);
            }
            for (let index = first; index < end; index++) place(index);
            clearTimeout(waiting);
            waiting = setTimeout(() => pages.want(first, end), STILL);
        };

        const place = (index) => {
            const picture = pages.at(index);
            let made = cells.get(index);
            if (made && !isSame(made.picture, picture)) {
                made.remove();
                made = null;
            }
            if (!made) {
                made = thumbnail(picture, index);
                cells.set(index, made);
                all.append(made);
            }
            const [column, line] = [index % columns, Math.floor(index / columns)];
            made.style.width = made.style.height = `${cell}px`;
            made.style.transform = `translate(${column * (cell + GAP)}px, ${line * (cell + GAP)}px)`;
            made.classList.toggle("lora-trainer-chosen", index === gallery.chosen);
            made.setAttribute("aria-selected", index === gallery.chosen);
            made.classList.toggle("lora-trainer-bare", Boolean(picture) && !picture.line);
            made.title = picture ? [picture.path, picture.line].filter(Boolean).join("\n") : "";
        };

        const thumbnail = (picture, index) => {
            const onclick = () => {
                element.focus({preventScroll: true});
                gallery.choose(index);
            };
            const made = lt.make("button.thumb", {onclick, tabIndex: -1, role: "option"});
            made.picture = picture;
            if (!picture) return made;
            const failed = () => image.replaceWith(lt.make("span.unseen", {}, picture.file));
            const source = {src: lt.set.thumbnail(picture), alt: picture.file};
            const image = lt.make("img", {...source, decoding: "async", onerror: failed});
            image.draggable = false;
            made.append(image);
            return made;
        };

        element.addEventListener("scroll", () => {
            cancelAnimationFrame(planned);
            planned = requestAnimationFrame(draw);
        });
        element.addEventListener("keydown", (event) => {
            const page = Math.max(1, Math.floor(element.clientHeight / (cell + GAP))) * columns;
            const lines = {ArrowUp: -columns, ArrowDown: columns, PageUp: -page, PageDown: page};
            const steps = {ArrowLeft: -1, ArrowRight: 1, ...lines};
            const ends = {Home: 0, End: gallery.count - 1};
            if (event.ctrlKey || event.altKey || event.metaKey || !(event.key in steps || event.key in ends)) return;
            event.preventDefault();
            gallery.choose(event.key in ends ? ends[event.key] : Math.max(0, gallery.chosen) + steps[event.key]);
        });
        new IntersectionObserver((entries) => {
            near = entries[entries.length - 1].isIntersecting;
            if (near && stale) ask();
        }, {rootMargin: NEAR}).observe(element);
        new ResizeObserver(() => {
            measure();
            draw();
        }).observe(element);
        return gallery;
    };

    /** Whether a thumbnail of the one is one of the other. */
    const isSame = (one, other) => one === other || (one && other && one.id === other.id && one.stamp === other.stamp);
})();
