// The data is in the page; nothing is fetched. Filters act on every section; plots are drawn from the filtered rows,
// one panel for each dataset and protocol, so that they are never mixed.
(() => {
  const { make, plot, key } = drawing;
  const data = JSON.parse(document.getElementById("data").textContent);
  const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#9a9a2a", "#8a8a8a"]; // after Okabe and Ito
  const MARKS = ["circle", "square", "diamond", "triangle"];
  const DASHES = ["none", "6 3", "2 3"];
  const methods = [...new Set(data.rows.map((r) => r.label))].sort();
  // Colours come round after eight methods, marks after four and dashes with each round: no two of 20 look alike.
  function style(label) {
    const i = methods.indexOf(label), round = Math.floor(i / COLOURS.length);
    return { label, colour: COLOURS[i % COLOURS.length], mark: MARKS[(i + round) % MARKS.length], dash: DASHES[round % DASHES.length] };
  }
  // What the page shows; it stands in the address, so that a view can be sent: #dataset=digits&ipc=10&at=boards
  const CHOSEN = ["dataset", "protocol", "student", "ipc", "uses"];
  const NAMES = [...CHOSEN, "from", "y", "q"];
  const filters = Object.fromEntries(NAMES.map((n) => [n, ""]));
  let sort = { name: "top1_last", down: true };

  const $ = (id) => document.getElementById(id);
  const missing = (v) => v === null || v === undefined || v === "";
  const fixed = (v) => (missing(v) ? "–" : v.toFixed(1));
  const signed = (v) => (missing(v) ? "–" : (v >= 0 ? "+" : "−") + Math.abs(v).toFixed(1));
  const gained = (r) => (r.method === "random" ? 0 : r.gain_over_random);
  const place = (r) => [r.dataset_digest, r.protocol_digest, r.student].join();
  const floored = new Set(data.rows.filter((r) => !missing(r.gain_over_random)).map(place)); // elsewhere no gain is known
  const relative = (r) => filters.y !== "top1" && floored.has(place(r));
  const height = (r) => (relative(r) ? gained(r) : r.top1_last);
  const spread = (r) => (relative(r) ? r.gain_half : r.top1_last_half);
  const plotted = (r) => !missing(height(r)) && (filters.q !== "" || !r.flags.includes("gate-waived")); // noise, if asked for
  const within = (v, half, form) => (missing(v) ? "–" : form(v) + (missing(half) ? "" : " ± " + half.toFixed(1)));
  const seconds = (v) => missing(v) ? "–" : v >= 7200 ? (v / 3600).toFixed(1) + " h" : v >= 120 ? (v / 60).toFixed(1) + " min" : v.toFixed(1) + " s";
  const bytes = (v) => missing(v) ? "–" : v >= 1e9 ? (v / 1e9).toFixed(1) + " GB" : v >= 1e6 ? (v / 1e6).toFixed(1) + " MB" : v >= 1e3 ? (v / 1e3).toFixed(1) + " kB" : v + " B";

  const COLUMNS = [
    ["label", "method", (r) => r.label],
    ["ipc", "IPC", (r) => String(r.ipc), "r"],
    ["top1_last", "top-1 last %", (r) => (missing(r.top1_last) ? (r.failed ? "failed" : "skipped") : within(r.top1_last, r.top1_last_half, fixed)), "r"],
    ["gain_over_random", "gain over random", (r) => within(r.gain_over_random, r.gain_half, signed), "r"],
    ["uses", "needs", (r) => r.uses],
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
      CHOSEN.every((n) => filters[n] === "" || String(r[n]) === filters[n]) &&
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
  const MOST = 12;
  const FEW = 6;
  // The first panels of one dataset and protocol; a word about the rest.
  function some(box, found, draw) {
    for (const [name, members] of found.slice(0, FEW)) draw(name, members);
    if (found.length > FEW) make(box, "p", { class: "soft" }, found.length - FEW + " more pairs of student and IPC: use the filters.");
  }
  function panels(id, rows, draw, lines = false) {
    const section = $(id), box = section.querySelector(".plots");
    box.textContent = "";
    const found = groups(rows);
    for (const [name, members] of found.slice(0, MOST)) draw(box, name, members);
    if (found.length > MOST) make(box, "p", { class: "soft" }, found.length - MOST + " more pairs of dataset and protocol: use the filters.");
    section.hidden = !box.children.length;
    if (box.querySelector("figure > svg")) key(box, ranked(rows), lines, box.querySelector(".level"));
  }
  // Labels, those that do best on the whole first.
  function ranked(rows) {
    const mean = (own) => own.reduce((sum, r) => sum + r.top1_last, 0) / own.length;
    return by(rows, (r) => r.label).sort((a, b) => mean(b[1]) - mean(a[1])).map(([label]) => style(label));
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

  const ylabel = (r) => (relative(r) ? "points over random" : "top-1 %");
  const point = (r, x) => ({ x, y: height(r), half: spread(r), title: describe(r) });

  function cost(rows) {
    panels("cost", rows.filter((r) => plotted(r) && !missing(r.distill_seconds)), (box, name, members) => {
      const teacher = taught(members);
      const student = members[0].student; // students share a set and its cost; the filter shows another's accuracy
      some(box, by(members.filter((r) => r.student === student), (r) => student + ", IPC " + r.ipc + teacher(r)), (column, rs) => {
        const floor = rs.find((r) => r.method === "random");
        const series = by(rs.filter((r) => r !== floor), (r) => r.label).map(([label, own]) => ({
          ...style(label), points: own.map((r) => point(r, Math.max(LEAST, r.distill_seconds))),
        }));
        const options = { xlabel: "seconds to distil one set", ylabel: ylabel(rs[0]), log: true, lines: false, names: true };
        plot(box, name + ", " + column, series, { ...options, level: floor && { y: height(floor) } });
      });
    });
  }

  function curves(rows) {
    panels("ipc", rows.filter(plotted), (box, name, members) => {
      const teacher = taught(members);
      for (const [student, rs] of by(members, (r) => r.student + teacher(r))) {
        if (new Set(rs.map((r) => r.ipc)).size < 2) continue;
        const series = by(rs, (r) => r.label).map(([label, line]) => ({ ...style(label), points: line.map((r) => point(r, r.ipc)) }));
        plot(box, name + ", " + student, series, { xlabel: "images per class", ylabel: ylabel(rs[0]), log: true });
      }
    }, true);
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
    panels("training", rows.filter((r) => curved(r) && plotted(r)), (box, name, members) => {
      const teacher = taught(members);
      some(box, by(members, (r) => r.student + ", IPC " + r.ipc + teacher(r)), (column, rs) => {
        const series = rs.map((r) => ({ ...style(r.label), points: r.curve.map(([x, y]) => ({ x, y, bare: true, title: "" })) }));
        plot(box, name + ", " + column, series, { xlabel: "epoch" });
      });
    }, true);
  }

  // -- the rest ---------------------------------------------------------------------------------------------------
  function sections() {
    for (const node of document.querySelectorAll("[data-dataset]")) {
      const { dataset, protocol, student, ipc } = node.dataset;
      node.hidden = [["dataset", dataset], ["protocol", protocol], ["student", student], ["ipc", ipc]]
        .some(([n, v]) => v !== undefined && filters[n] !== "" && v !== filters[n]);
    }
    for (const cell of document.querySelectorAll(".uses"))
      cell.closest("tr").hidden = filters.uses !== "" && cell.textContent !== filters.uses;
    for (const section of document.querySelectorAll("section[data-group]"))
      section.hidden = ![...section.querySelectorAll("[data-dataset]")].some((n) => !n.hidden);
    for (const link of document.querySelectorAll("nav a")) link.hidden = $(link.hash.replace("#at=", "")).hidden;
  }

  function render() {
    const rows = shown();
    document.body.dataset.from = filters.from;
    table(rows);
    for (const draw of [cost, curves, heat]) draw(rows);
    if ($("curves").open) training(rows);
    else $("training").hidden = !rows.some(curved);
    sections();
  }

  // -- the address: #dataset=…&at=SECTION -----------------------------------------------------------------------------
  const address = () => "#" + new URLSearchParams(NAMES.filter((n) => filters[n] !== "").map((n) => [n, filters[n]]));
  function changed() { // by hand
    history.replaceState(null, "", address());
    $("link").href = address();
    render();
  }
  function arrived() { // by a link
    const asked = new URLSearchParams(location.hash.slice(1));
    const at = asked.get("at");
    if (!at || [...asked].length > 1) // a link of the contents moves, and leaves the filters
      for (const n of NAMES) {
        const field = $("f-" + n);
        field.value = asked.get(n) || "";
        filters[n] = field.value || ""; // what is not on the page is no filter
        if (field.value !== (asked.get(n) || "")) field.value = "";
      }
    changed();
    if (at && $(at)) {
      const folded = $(at).querySelector(":scope > h2 + details:not(.soft)");
      if (folded) folded.open = true;
      $(at).scrollIntoView();
    }
  }

  for (const name of CHOSEN) {
    const values = [...new Set(data.rows.map((r) => r[name]))].sort((a, b) => (typeof a === "number" ? a - b : a < b ? -1 : 1));
    for (const v of values.filter((v) => v !== "")) make($("f-" + name), "option", { value: v }, v);
  }
  for (const n of NAMES) $("f-" + n).addEventListener("input", (e) => { filters[n] = e.target.value; changed(); });
  $("reset").addEventListener("click", () => {
    for (const n of NAMES) filters[n] = $("f-" + n).value = "";
    changed();
  });
  $("curves").addEventListener("toggle", render); // drawn when they are seen: a closed box has no width
  addEventListener("hashchange", arrived);
  let timer, before = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === before) return;
    before = innerWidth;
    clearTimeout(timer);
    timer = setTimeout(render, 150);
  });
  arrived();
  document.documentElement.dataset.ready = "yes";
})();
