"use strict";
// Scatter and line plots with axes, intervals and one key; what they show is for page.js to say.
const drawing = (() => {
  const SVG = "http://www.w3.org/2000/svg";
  function make(parent, tag, attributes = {}, text) {
    const svg = parent && (parent.namespaceURI === SVG || tag === "svg");
    const node = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
    for (const [k, v] of Object.entries(attributes)) node.setAttribute(k, v);
    if (text !== undefined) node.textContent = text;
    if (parent) parent.append(node);
    return node;
  }
  function ticks(low, high, count = 5) {
    const rough = (high - low) / count || 1;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
    const out = [];
    for (let v = Math.ceil(low / step) * step; v <= high + 1e-9; v += step) out.push(+v.toPrecision(10));
    return out;
  }

  const number = (v) => v >= 1e6 || (v && v < 1e-4) ? v.toExponential(0) : +v.toPrecision(3);

  // series: [{label, colour, mark, dash, points: [{x, y, half, title}]}]; level: {label, y}, a line across.
  function plot(parent, caption, series, { xlabel, ylabel = "top-1 %", log = false, lines = true, level, names = false }) {
    const mean = (s) => s.points.reduce((sum, p) => sum + p.y, 0) / s.points.length;
    series = series.filter((s) => s.points.length).sort((a, b) => mean(b) - mean(a)); // the key reads like the plot
    const points = series.flatMap((s) => s.points);
    if (!points.length) return;
    const figure = make(parent, "figure");
    const width = Math.max(240, figure.clientWidth - 16 || 350), tall = 200;
    const left = 36, right = 12, top = 20, bottom = 34;
    const fx = log ? (v) => Math.log10(v) : (v) => v;
    let [x0, x1] = [Math.min(...points.map((p) => fx(p.x))), Math.max(...points.map((p) => fx(p.x)))];
    const across = level ? [level.y] : [];
    const low = points.map((p) => p.y).sort((a, b) => a - b)[Math.floor(points.length / 8)];
    let y0 = Math.min(...across, low); // one in eight may lie below the frame: it is drawn at its edge
    let y1 = Math.max(...across, ...points.map((p) => p.y + (p.half || 0)));
    const padX = (x1 - x0) * 0.06 || 0.5, padY = (y1 - y0) * 0.08 || 1;
    [x0, x1, y0, y1] = [x0 - padX, x1 + padX, y0 - padY, y1 + padY];
    if (y1 <= y0) y1 = y0 + 1;
    const X = (v) => left + ((fx(v) - x0) / (x1 - x0)) * (width - left - right);
    const Y = (v) => tall - bottom - ((v - y0) / (y1 - y0)) * (tall - top - bottom);
    const svg = make(figure, "svg", { viewBox: `0 0 ${width} ${tall}`, role: "img", "aria-label": caption });
    make(svg, "text", { x: 4, y: 12 }, ylabel);
    for (const v of ticks(y0, y1)) {
      make(svg, "line", { x1: left, x2: width - right, y1: Y(v), y2: Y(v), class: "gridline" });
      make(svg, "text", { x: left - 5, y: Y(v) + 4, "text-anchor": "end" }, v);
    }
    let xs = log ? [...new Set(points.map((p) => p.x))].sort((a, b) => a - b) : ticks(x0, x1);
    if (log && xs.length > 8) {
      xs = [];
      const parts = (x1 - x0) * 2 > (width - left - right) / 44 ? [1] : [1, 3];
      for (let e = Math.floor(x0); e <= x1; e++) for (const m of parts) if (Math.log10(m) + e >= x0 && Math.log10(m) + e <= x1) xs.push(m * 10 ** e);
    }
    let last = -Infinity;
    for (const v of xs.filter((v) => X(v) - last >= 34 && (last = X(v)))) make(svg, "text", { x: X(v), y: tall - bottom + 15, "text-anchor": "middle" }, number(v));
    make(svg, "line", { x1: left, x2: width - right, y1: tall - bottom, y2: tall - bottom, class: "axis" });
    make(svg, "text", { x: (left + width) / 2, y: tall - 6, "text-anchor": "middle" }, xlabel);
    if (level) make(svg, "line", { x1: left, x2: width - right, y1: Y(level.y), y2: Y(level.y), class: "level" });
    for (const s of series) {
      const sorted = [...s.points].sort((a, b) => a.x - b.x);
      if (lines && sorted.length > 1) make(svg, "polyline", { points: sorted.map((p) => X(p.x) + "," + Y(Math.max(y0, p.y))).join(" "), fill: "none", stroke: s.colour, "stroke-width": 1.6, "stroke-dasharray": s.dash || "none" });
      for (const p of sorted) {
        if (p.half && p.y >= y0) make(svg, "line", { x1: X(p.x), x2: X(p.x), y1: Y(Math.max(y0, p.y - p.half)), y2: Y(Math.min(y1, p.y + p.half)), stroke: s.colour });
        if (p.bare) continue;
        const mark = p.y < y0 ? make(svg, "text", { x: X(p.x), y: Y(y0), "text-anchor": "middle", style: `fill: ${s.colour}` }, "▼") : dot(svg, s.mark, X(p.x), Y(p.y), s.colour);
        make(mark, "title", {}, s.label + ": " + p.title);
      }
    }
    if (names) {
      const p = series[0].points[0], end = X(p.x) > width / 2;
      make(svg, "text", { x: X(p.x) + (end ? -8 : 8), y: Y(p.y) - 6, "text-anchor": end ? "end" : "start" }, series[0].label);
    }
    make(figure, "figcaption", {}, caption);
  }

  // What the marks of a section's panels mean, once for all of them.
  function key(box, series, lines, level) {
    const parent = make(box, "div", { class: "key" });
    const entry = (draw, text) => {
      const item = make(parent, "span");
      draw(make(item, "svg", { viewBox: "0 0 26 12", width: 26, height: 12, "aria-hidden": "true" }));
      item.append(text);
    };
    if (level) entry((sign) => make(sign, "line", { x1: 0, x2: 26, y1: 6, y2: 6, class: "level" }), "random real images");
    for (const s of series)
      entry((sign) => {
        if (lines) make(sign, "line", { x1: 0, x2: 26, y1: 6, y2: 6, stroke: s.colour, "stroke-width": 1.6, "stroke-dasharray": s.dash });
        dot(sign, s.mark, 13, 6, s.colour);
      }, s.label);
  }

  function dot(svg, mark, x, y, fill) {
    if (mark === "square") return make(svg, "rect", { x: x - 4, y: y - 4, width: 8, height: 8, fill });
    if (mark === "diamond") return make(svg, "path", { d: `M${x} ${y - 5.5}l5.5 5.5-5.5 5.5-5.5-5.5z`, fill });
    if (mark === "triangle") return make(svg, "path", { d: `M${x} ${y - 5}l5 9h-10z`, fill });
    return make(svg, "circle", { cx: x, cy: y, r: 4, fill });
  }

  return { make, plot, key };
})();
