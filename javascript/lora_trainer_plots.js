// Plots as SVG: their colours are the page's own, so that they follow its theme.
"use strict";

(() => {
    const lt = (window.loraTrainer = window.loraTrainer || {});
    const NAMESPACE = "http://www.w3.org/2000/svg";
    const HEIGHT = 190;
    const ROOM = {left: 52, right: 10, top: 8, bottom: 22}; // pixels around the lines, for the numbers
    const COLOURS = 6;
    const OUTLIERS = 0.01; // this part of a faint line's highest values may leave the plot

    const plots = (lt.plots = {});

    /**
     * A plot whose points are {step, ...}. `series`: of the points, [{name, faint, value(point) -> number or null}].
     * `fromZero`: 0 is always in it. Returns {element, draw(points)}.
     */
    plots.plot = (title, series, {fromZero = false} = {}) => {
        const svg = drawn("svg", {role: "img", "aria-label": title, height: HEIGHT, width: "100%"});
        const told = lt.make("span.plot-told");
        const head = lt.make("div.plot-head", {}, lt.make("span.plot-title", {}, title), told);
        const mark = drawn("line", {class: "lora-trainer-plot-mark"});
        const plot = {svg, told, series, fromZero, mark, points: [], scale: null};
        const element = lt.make("div.plot", {}, head, svg);
        svg.addEventListener("pointermove", (event) => point(plot, event));
        svg.addEventListener("pointerleave", () => unpoint(plot));
        new ResizeObserver(() => redraw(plot)).observe(svg);
        return {
            element,
            draw(points) {
                plot.points = points;
                redraw(plot);
            },
        };
    };

    /** Every other point of a list that has become longer than `most`; the last one stays. */
    plots.thinned = (points, most) => {
        const odd = (points.length - 1) % 2;
        return points.length > most ? points.filter((_, place) => place % 2 === odd) : points;
    };

    /** About `count` round numbers from `low` to `high`. */
    plots.ticks = (low, high, count) => {
        if (!(high > low)) return [low];
        const rough = (high - low) / count;
        const power = 10 ** Math.floor(Math.log10(rough));
        const step = [1, 2, 5, 10].map((round) => round * power).find((round) => round >= rough) || 10 * power;
        const first = Math.ceil(low / step - 1e-9);
        const last = Math.floor(high / step + 1e-9);
        return Array.from({length: last - first + 1}, (_, place) => (first + place) * step);
    };

    /** A number in a few letters: 0.0823, 1.2e-5, 12000. */
    plots.short = (value) => {
        if (value === null || value === undefined || !Number.isFinite(value)) return "–";
        const size = Math.abs(value);
        if (size && size < 0.001) return value.toExponential(2).replace(/\.?0+e/, "e");
        return size >= 1000 ? String(Math.round(value)) : String(Number(value.toPrecision(3)));
    };

    function drawn(name, attributes, ...children) {
        const element = document.createElementNS(NAMESPACE, name);
        for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
        element.append(...children);
        return element;
    }

    function redraw(plot) {
        const width = plot.svg.clientWidth;
        if (!width) return;
        const lines = plot.series(plot.points);
        plot.scale = scaled(plot, lines, width);
        const parts = [...grid(plot.scale), ...lines.map((line, place) => path(plot, line, place))];
        plot.svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
        plot.svg.replaceChildren(...parts, plot.mark);
        unpoint(plot);
    }

    function scaled({points, fromZero}, lines, width) {
        const steps = points.map((point) => point.step);
        const values = lines.flatMap((line) => within(points.map(line.value).filter(Number.isFinite), line.faint));
        const first = steps.length ? Math.min(0, steps[0]) : 0;
        const last = Math.max(steps[steps.length - 1] || 0, first + 1);
        const low = values.length && !fromZero ? smallest(values) : 0;
        const high = values.length ? largest(values) : 1;
        const air = (high - low || Math.abs(high) || 1) * 0.06;
        const bottom = low >= 0 ? Math.max(0, low - air) : low - air;
        const [inner, tall] = [width - ROOM.left - ROOM.right, HEIGHT - ROOM.top - ROOM.bottom];
        return {
            first, last, low: bottom, high: high + air, width,
            x: (step) => ROOM.left + ((step - first) / (last - first)) * inner,
            y: (value) => ROOM.top + (1 - (value - bottom) / (high + air - bottom)) * tall,
            step: (x) => first + ((x - ROOM.left) / inner) * (last - first),
        };
    }

    function within(values, faint) {
        if (!faint || values.length < 50) return values;
        const sorted = [...values].sort((one, other) => one - other);
        return [sorted[0], sorted[Math.floor((sorted.length - 1) * (1 - OUTLIERS))]];
    }

    const smallest = (values) => values.reduce((one, other) => Math.min(one, other));
    const largest = (values) => values.reduce((one, other) => Math.max(one, other));

    function grid(scale) {
        const right = scale.width - ROOM.right;
        const line = {x1: ROOM.left, x2: right, class: "lora-trainer-plot-grid"};
        const across = plots.ticks(scale.low, scale.high, 4).flatMap((value) => [
            drawn("line", {...line, y1: scale.y(value), y2: scale.y(value)}),
            drawn("text", {x: ROOM.left - 6, y: scale.y(value) + 4, "text-anchor": "end"}, plots.short(value)),
        ]);
        const whole = plots.ticks(scale.first, scale.last, Math.max(2, scale.width / 110)).filter(Number.isInteger);
        const along = whole.map((step) => {
            const [x, anchor] = scale.x(step) > right - 14 ? [right, "end"] : [scale.x(step), "middle"];
            return drawn("text", {x, y: HEIGHT - 6, "text-anchor": anchor}, step);
        });
        return [...across, ...along];
    }

    function path(plot, line, place) {
        let pen = "M";
        const moves = plot.points.map((point) => {
            const value = line.value(point);
            if (!Number.isFinite(value)) {
                pen = "M";
                return "";
            }
            const move = `${pen}${plot.scale.x(point.step).toFixed(1)} ${plot.scale.y(value).toFixed(1)}`;
            pen = "L";
            return move;
        });
        const colour = `lora-trainer-plot-${place % COLOURS}`;
        const kind = line.faint ? "lora-trainer-plot-faint" : "lora-trainer-plot-line";
        return drawn("path", {d: moves.join(""), class: `${kind} ${line.faint ? "" : colour}`});
    }

    function point(plot, event) {
        if (!plot.points.length || !plot.scale) return;
        const box = plot.svg.getBoundingClientRect();
        const step = plot.scale.step(event.clientX - box.left);
        const off = (one) => Math.abs(one.step - step);
        const nearest = plot.points.reduce((one, other) => (off(other) < off(one) ? other : one));
        const x = plot.scale.x(nearest.step);
        const place = {x1: x, x2: x, y1: ROOM.top, y2: HEIGHT - ROOM.bottom, visibility: "visible"};
        for (const [key, value] of Object.entries(place)) plot.mark.setAttribute(key, value);
        tell(plot, nearest);
    }

    function unpoint(plot) {
        plot.mark.setAttribute("visibility", "hidden");
        tell(plot, plot.points[plot.points.length - 1]);
    }

    function tell(plot, point) {
        const values = (line) => `${line.name} ${plots.short(line.value(point))}`;
        const words = point ? [lt.say("step {step}", {step: point.step}), ...plot.series(plot.points).map(values)] : [];
        plot.told.textContent = words.join(" · ");
    }
})();
