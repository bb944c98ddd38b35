"use strict";
// The data is in the page; nothing is fetched. Filters act on every section; plots are drawn from the filtered rows,
// one panel for each dataset and protocol, so that they are never mixed.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const COLOURS = ["#1f77b4", "#e07b00", "#2a9d4a", "#d1343f", "#8e5bd0", "#a0705a", "#d65fb0", "#6f7b85", "#a4a800", "#12a5b5"];
  const MARKS = ["circle", "square", "diamond", "triangle"];
  const DASHES = ["none", "6 3", "2 3"];
  const methods = [...new Set(data.rows.map((r) => r.label))].sort();
  // Colours come round after ten methods, marks after four and dashes with each round: no two of 20 look alike.
  function style(label) {
    const i = methods.indexOf(label), round = Math.floor(i / COLOURS.length);
    return { label, colour: COLOURS[i % COLOURS.length], mark: MARKS[(i + round) % MARKS.length], dash: DASHES[round % DASHES.length] };
  }
  const filters = { dataset: "", protocol: "", student: "", ipc: "", q: "" };
  let sort = { name: "top1_last", down: true };

  const $ = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";
  function make(parent, tag, attributes = {}, text) {
    const svg = parent && (parent.namespaceURI === SVG || tag === "svg");
    const node = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
    for (const [k, v] of Object.entries(attributes)) node.setAttribute(k, v);
    if (text !== undefined) node.textContent = text;
    if (parent) parent.append(node);
    return node;
  }
  const missing = (v) => v === null || v === undefined || v === "";
  const fixed = (v) => (missing(v) ? "–" : v.toFixed(1));
  const signed = (v) => (missing(v) ? "–" : (v >= 0 ? "+" : "−") + Math.abs(v).toFixed(1));
  const within = (v, half, form) => (missing(v) ? "–" : form(v) + (missing(half) ? "" : " ± " + half.toFixed(1)));
  const seconds = (v) => missing(v) ? "–" : v >= 7200 ? (v / 3600).toFixed(1) + " h" : v >= 120 ? (v / 60).toFixed(1) + " min" : v.toFixed(1) + " s";
  const bytes = (v) => missing(v) ? "–" : v >= 1e9 ? (v / 1e9).toFixed(1) + " GB" : v >= 1e6 ? (v / 1e6).toFixed(1) + " MB" : v >= 1e3 ? (v / 1e3).toFixed(1) + " kB" : v + " B";

  const COLUMNS = [
    ["label", "method", (r) => r.label],
    ["ipc", "IPC", (r) => String(r.ipc), "r"],
    ["top1_last", "top-1 last %", (r) => (missing(r.top1_last) ? (r.failed ? "failed" : "skipped") : within(r.top1_last, r.top1_last_half, fixed)), "r"],
    ["gain_over_random", "gain over random", (r) => within(r.gain_over_random, r.gain_half, signed), "r"],
    ["student", "student", (r) => r.student],
    ["dataset", "dataset", (r) => r.dataset],
    ["protocol", "protocol", (r) => r.protocol + " v" + r.protocol_version],
    ["top1_best", "top-1 best %", (r) => fixed(r.top1_best), "r"],
    ["seeds", "seeds", (r) => String(r.seeds), "r"],
    ["distill_seconds", "distil", (r) => seconds(r.distill_seconds), "r"],
    ["train_seconds", "train", (r) => seconds(r.train_seconds), "r"],
    ["image_bytes", "images", (r) => bytes(r.image_bytes), "r"],
    ["label_bytes", "labels", (r) => bytes(r.label_bytes), "r"],
    ["teacher", "teacher", (r) => r.teacher],
    ["backbone", "backbone", (r) => r.backbone],
    ["flags", "flags", (r) => r.flags, "flag"],
    ["reason", "reason", (r) => r.reason, "wrap"],
  ].filter(([name]) => data.rows.some((r) => !missing(r[name]) && r[name] !== 0));

  function shown() {
    const words = filters.q.toLowerCase().split(/\s+/).filter(Boolean);
    return data.rows.filter((r) =>
      ["dataset", "protocol", "student", "ipc"].every((n) => filters[n] === "" || String(r[n]) === filters[n]) &&
      words.every((w) => (r.label + " " + r.flags + " " + r.backbone + " " + r.teacher).toLowerCase().includes(w)));
  }

  function groups(rows) {
    const out = new Map();
    for (const r of rows) {
      const key = r.dataset + ", " + r.protocol + " v" + r.protocol_version + " (" + r.protocol_digest.slice(0, 6) + ", " + r.dataset_digest.slice(0, 6) + ")";
      if (!out.has(key)) out.set(key, []);
      out.get(key).push(r);
    }
    const bare = (key) => key.replace(/ \([^)]*\)$/, "");
    const twice = [...out.keys()].map(bare); // digests are named only where two groups would look the same
    return [...out].map(([key, members]) => [twice.filter((t) => t === bare(key)).length > 1 ? key : bare(key), members]);
  }

  // -- the table --------------------------------------------------------------------------------------------------
  function table(rows) {
    const head = $("head");
    head.textContent = "";
    for (const [name, title, , kind] of COLUMNS) {
      const th = make(head, "th", { class: kind === "r" ? "r" : "", scope: "col" });
      const state = sort.name === name ? (sort.down ? "descending" : "ascending") : "none";
      const button = make(th, "button", { "aria-sort": state, "data-sort": name, type: "button" }, title);
      button.addEventListener("click", () => {
        const numeric = data.rows.some((r) => typeof r[name] === "number");
        sort = { name, down: sort.name === name ? !sort.down : numeric };
        table(shown());
      });
    }
    const sorted = [...rows].sort((a, b) => {
      const [x, y] = [a[sort.name], b[sort.name]];
      if (missing(x) || missing(y)) return missing(x) - missing(y);
      return (typeof x === "number" ? x - y : String(x).localeCompare(String(y))) * (sort.down ? -1 : 1);
    });
    const body = $("rows");
    body.textContent = "";
    for (const r of sorted) {
      const tr = make(body, "tr");
      for (const [, , text, kind] of COLUMNS) make(tr, "td", kind ? { class: kind } : {}, text(r));
    }
    $("count").textContent = sorted.length + " of " + data.rows.length + " cells";
  }

  // -- plots ------------------------------------------------------------------------------------------------------
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
  function plot(parent, caption, series, { xlabel, log = false, lines = true, level }) {
    const mean = (s) => s.points.reduce((sum, p) => sum + p.y, 0) / s.points.length;
    series = series.filter((s) => s.points.length).sort((a, b) => mean(b) - mean(a)); // the key reads like the plot
    const points = series.flatMap((s) => s.points);
    if (!points.length) return;
    const figure = make(parent, "figure");
    const width = Math.max(280, figure.clientWidth - 24 || 440), height = 270;
    const left = 40, right = 12, top = 24, bottom = 38;
    const fx = log ? (v) => Math.log10(v) : (v) => v;
    let [x0, x1] = [Math.min(...points.map((p) => fx(p.x))), Math.max(...points.map((p) => fx(p.x)))];
    const across = level ? [level.y] : [];
    let y0 = Math.min(...across, ...points.map((p) => p.y - (p.half || 0)));
    let y1 = Math.max(...across, ...points.map((p) => p.y + (p.half || 0)));
    const padX = (x1 - x0) * 0.06 || 0.5, padY = (y1 - y0) * 0.08 || 1;
    [x0, x1, y0, y1] = [x0 - padX, x1 + padX, Math.max(0, y0 - padY), Math.min(100, y1 + padY)];
    if (y1 <= y0) y1 = y0 + 1;
    const X = (v) => left + ((fx(v) - x0) / (x1 - x0)) * (width - left - right);
    const Y = (v) => height - bottom - ((v - y0) / (y1 - y0)) * (height - top - bottom);
    const svg = make(figure, "svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": caption });
    make(svg, "text", { x: 4, y: 12 }, "top-1 %");
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
    for (const v of xs) make(svg, "text", { x: X(v), y: height - bottom + 15, "text-anchor": "middle" }, number(v));
    make(svg, "line", { x1: left, x2: width - right, y1: height - bottom, y2: height - bottom, class: "axis" });
    make(svg, "text", { x: (left + width) / 2, y: height - 6, "text-anchor": "middle" }, xlabel);
    if (level) make(svg, "line", { x1: left, x2: width - right, y1: Y(level.y), y2: Y(level.y), class: "level" });
    for (const s of series) {
      const sorted = [...s.points].sort((a, b) => a.x - b.x);
      if (lines && sorted.length > 1) make(svg, "polyline", { points: sorted.map((p) => X(p.x) + "," + Y(p.y)).join(" "), fill: "none", stroke: s.colour, "stroke-width": 1.6, "stroke-dasharray": s.dash || "none" });
      for (const p of sorted) {
        if (p.half) make(svg, "line", { x1: X(p.x), x2: X(p.x), y1: Y(Math.max(y0, p.y - p.half)), y2: Y(Math.min(y1, p.y + p.half)), stroke: s.colour });
        if (p.bare) continue;
        const mark = dot(svg, s.mark || "circle", X(p.x), Y(p.y), s.colour);
        make(mark, "title", {}, s.label + ": " + p.title);
      }
    }
    make(figure, "figcaption", {}, caption);
    const key = make(figure, "div", { class: "key" });
    if (level) {
      const item = make(key, "span");
      make(make(item, "svg", { viewBox: "0 0 26 12", width: 26, height: 12, "aria-hidden": "true" }), "line", { x1: 0, x2: 26, y1: 6, y2: 6, class: "level" });
      item.append(level.label);
    }
    for (const s of series.slice(0, 24)) {
      const item = make(key, "span");
      const sign = make(item, "svg", { viewBox: "0 0 26 12", width: 26, height: 12, "aria-hidden": "true" });
      if (lines) make(sign, "line", { x1: 0, x2: 26, y1: 6, y2: 6, stroke: s.colour, "stroke-width": 1.6, "stroke-dasharray": s.dash || "none" });
      dot(sign, s.mark || "circle", 13, 6, s.colour);
      item.append(s.label);
    }
    if (series.length > 24) make(key, "span", {}, "… " + (series.length - 24) + " more");
  }

  function dot(svg, mark, x, y, fill) {
    if (mark === "square") return make(svg, "rect", { x: x - 4, y: y - 4, width: 8, height: 8, fill });
    if (mark === "diamond") return make(svg, "path", { d: `M${x} ${y - 5.5}l5.5 5.5-5.5 5.5-5.5-5.5z`, fill });
    if (mark === "triangle") return make(svg, "path", { d: `M${x} ${y - 5}l5 9h-10z`, fill });
    return make(svg, "circle", { cx: x, cy: y, r: 4, fill });
  }

  const MOST = 12;
  const FEW = 6;
  // The first panels of one dataset and protocol; a word about the rest.
  function some(box, found, draw) {
    for (const [name, members] of found.slice(0, FEW)) draw(name, members);
    if (found.length > FEW) make(box, "p", { class: "soft" }, found.length - FEW + " more pairs of student and IPC: use the filters.");
  }
  function panels(id, rows, draw) {
    const box = $(id);
    box.textContent = "";
    const found = groups(rows);
    for (const [name, members] of found.slice(0, MOST)) draw(box, name, members);
    if (found.length > MOST) make(box, "p", { class: "soft" }, found.length - MOST + " more pairs of dataset and protocol: use the filters.");
    box.closest("section").hidden = !box.children.length;
  }

  const by = (rows, f) => {
    const out = new Map();
    for (const r of rows) {
      const key = f(r);
      if (!out.has(key)) out.set(key, []);
      out.get(key).push(r);
    }
    return [...out];
  };
  // The teacher of a row for captions; its key tells teachers of one name apart. What differs is never one panel.
  const taught = (rows) => {
    const several = new Set(rows.map((r) => r.teacher_key)).size > new Set(rows.map((r) => r.teacher)).size;
    return (r) => (r.teacher ? ", teacher " + r.teacher + (several ? " " + r.teacher_key.slice(0, 6) : "") : "");
  };
  const describe = (r) => within(r.top1_last, r.top1_last_half, fixed) + " %, " + r.student + ", IPC " + r.ipc + ", " + seconds(r.distill_seconds) + ", " + r.seeds + " seeds";

  const LEAST = 0.01; // seconds; what is faster costs nothing, and a logarithm needs a left edge

  function cost(rows) {
    panels("cost", rows.filter((r) => !missing(r.top1_last) && !missing(r.distill_seconds)), (box, name, members) => {
      const teacher = taught(members);
      const student = members[0].student; // students share a set and its cost; the filter shows another's accuracy
      some(box, by(members.filter((r) => r.student === student), (r) => student + ", IPC " + r.ipc + teacher(r)), (column, rs) => {
        const floor = rs.find((r) => r.method === "random");
        const series = by(rs.filter((r) => r !== floor), (r) => r.label).map(([label, own]) => ({
          ...style(label),
          points: own.map((r) => ({ x: Math.max(LEAST, r.distill_seconds), y: r.top1_last, half: r.top1_last_half, title: describe(r) })),
        }));
        const level = floor && { y: floor.top1_last, label: "random real images" };
        plot(box, name + ", " + column, series, { xlabel: "seconds to distil one set (" + LEAST + " and less at the left)", log: true, lines: false, level });
      });
    });
  }

  function curves(rows) {
    const several = rows.filter((r) => !missing(r.top1_last));
    panels("ipc", several, (box, name, members) => {
      const teacher = taught(members);
      for (const [student, rs] of by(members, (r) => r.student + teacher(r))) {
        if (new Set(rs.map((r) => r.ipc)).size < 2) continue;
        const series = by(rs, (r) => r.label).map(([label, line]) => ({
          ...style(label), points: line.map((r) => ({ x: r.ipc, y: r.top1_last, half: r.top1_last_half, title: describe(r) })),
        }));
        plot(box, name + ", " + student, series, { xlabel: "images per class", log: true });
      }
    });
  }

  function heat(rows) {
    panels("heat", rows.filter((r) => !missing(r.top1_last)), (box, name, members) => {
      const teacher = taught(members);
      for (const [column, rs] of by(members, (r) => "IPC " + r.ipc + teacher(r))) {
        const students = [...new Set(rs.map((r) => r.student))].sort();
        if (students.length < 2) continue;
        const values = rs.map((r) => r.top1_last);
        const [low, high] = [Math.min(...values), Math.max(...values)];
        const figure = make(box, "figure");
        const scroll = make(figure, "div", { class: "scroll" });
        const t = make(scroll, "table", { class: "heat" });
        const head = make(make(t, "thead"), "tr");
        for (const text of ["method", ...students]) make(head, "th", {}, text);
        const body = make(t, "tbody");
        const mean = (line) => line.reduce((sum, r) => sum + r.top1_last, 0) / line.length;
        for (const [label, line] of by(rs, (r) => r.label).sort((a, b) => mean(b[1]) - mean(a[1]))) {
          const tr = make(body, "tr");
          make(tr, "td", {}, label);
          for (const student of students) {
            const r = line.find((x) => x.student === student);
            const share = r ? Math.round(8 + 52 * ((r.top1_last - low) / (high - low || 1))) : 0;
            make(tr, "td", { style: `background:color-mix(in srgb, var(--accent) ${share}%, transparent)` }, r ? within(r.top1_last, r.top1_last_half, fixed) : "–");
          }
        }
        make(figure, "figcaption", {}, name + ", " + column + ": top-1 % by student");
      }
    });
  }

  const curved = (r) => r.curve && r.curve.length > 1;
  function training(rows) {
    panels("training", rows.filter(curved), (box, name, members) => {
      const teacher = taught(members);
      some(box, by(members, (r) => r.student + ", IPC " + r.ipc + teacher(r)), (column, rs) => {
        const series = rs.map((r) => ({ ...style(r.label), points: r.curve.map(([x, y]) => ({ x, y, bare: true, title: "" })) }));
        plot(box, name + ", " + column, series, { xlabel: "epoch" });
      });
    });
  }

  // -- the rest ---------------------------------------------------------------------------------------------------
  function sections() {
    for (const node of document.querySelectorAll("[data-dataset]")) {
      const { dataset, protocol, student, ipc } = node.dataset;
      node.hidden = [["dataset", dataset], ["protocol", protocol], ["student", student], ["ipc", ipc]]
        .some(([n, v]) => v !== undefined && filters[n] !== "" && v !== filters[n]);
    }
    for (const section of document.querySelectorAll("section[data-group]"))
      section.hidden = ![...section.querySelectorAll("[data-dataset]")].some((n) => !n.hidden);
  }

  function render() {
    const rows = shown();
    table(rows);
    for (const draw of [cost, curves, heat]) draw(rows);
    if ($("curves").open) training(rows);
    else $("curves").closest("section").hidden = !rows.some(curved);
    sections();
  }

  for (const name of ["dataset", "protocol", "student", "ipc"]) {
    const values = [...new Set(data.rows.map((r) => r[name]))].sort((a, b) => (typeof a === "number" ? a - b : a < b ? -1 : 1));
    const select = $("f-" + name);
    for (const v of values) make(select, "option", { value: v }, v);
    select.addEventListener("change", () => { filters[name] = select.value; render(); });
  }
  $("f-q").addEventListener("input", (e) => { filters.q = e.target.value; render(); });
  $("reset").addEventListener("click", () => {
    for (const n of Object.keys(filters)) { filters[n] = ""; $("f-" + n).value = ""; }
    render();
  });
  $("curves").addEventListener("toggle", render); // drawn when they are seen: a closed box has no width
  let timer, before = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === before) return;
    before = innerWidth;
    clearTimeout(timer);
    timer = setTimeout(render, 150);
  });
  render();
  document.documentElement.dataset.ready = "yes";
})();
