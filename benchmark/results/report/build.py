"""Builds the report page from a results folder: records, contact sheets, pictures, protocols. Nothing is fetched.

The page depends on the records alone: no time of building, no machine's name.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from benchmark.core.errors import DDBenchError
from benchmark.core.foreign import inside, opened_image, read_bytes
from benchmark.results.boards.boards import boards
from benchmark.results.boards.cells import Cell, Key, collect, key_of, rows_of
from benchmark.results.boards.columns import COLUMNS
from benchmark.results.boards.formats import LEGEND, html_table, sheet
from benchmark.results.boards.reported import Reported, by_cell, read_reported
from benchmark.results.boards.table import cell_text, csv_text
from benchmark.results.records.remake import split_commas
from benchmark.results.report.opening import opening

PICTURE_BYTES = 5_000_000  # of all embedded pictures together; further ones are named, not shown
PICTURE_WIDTH = 900  # pixels; wider contact sheets are scaled down
CURVE_POINTS = 40  # a training curve is thinned to that many
SENT = tuple(name for name, _, _ in COLUMNS if name not in ("params", "seed_list", "method_version", "top1_last_std"))


def build(records: Iterable[dict], results: Path, title: str = "ddbench results") -> str:
    """The page as text.

    Args:
        records: verified records, read one at a time.
        results: folder whose ``sets/``, ``grids/`` and ``diagnostics/`` hold pictures.
    """
    facts = _Facts()
    cells = collect(facts.watch(records))
    rows = rows_of(cells)
    made = boards(rows)
    label = {id(row): entry.label for board in made for entry in board.entries for row in entry.rows.values()}
    sent = []
    for cell, row in zip(cells, rows):
        item = {name: _rounded(row[name]) for name in SENT} | {"reason": cell_text(row["reason"], "reason")}
        item["label"] = label.get(id(row), row["method"])
        curve = facts.curve(cell)
        if curve:
            item["curve"] = curve
        sent.append(item)
    budget = _Budget(results)
    reported = read_reported()
    names = {(row["dataset"], row["protocol"]) for row in rows}
    counts = {"record": facts.count, "cell": len(rows), "dataset": len({d for d, _ in names})}
    counts |= {"protocol": len({p for _, p in names}), "method": len({r["method"] for r in rows})}
    summary = (
        ", ".join(f"{number} {noun}{'s' * (number != 1)}" for noun, number in counts.items()) + ". "
        "Rows of different protocols, datasets, teachers or precisions are never averaged."
    )
    page = files("benchmark.results.report")
    return Template(page.joinpath("page.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(title),
        summary=html.escape(summary),
        opening=opening(made),
        legend=html.escape(LEGEND.format(over="seeds")),
        css=page.joinpath("page.css").read_text(encoding="utf-8"),
        js=page.joinpath("page.js").read_text(encoding="utf-8"),
        csv="data:text/csv;charset=utf-8;base64," + base64.b64encode(csv_text(rows).encode()).decode(),
        data=_script_json({"rows": sent}),
        boards="\n".join(_board(b) for b in made),
        sheets=_sheets(facts, label, rows, cells, budget),
        pictures=_pictures(results, budget),
        reported=_reported(rows, reported),
        protocols=_protocols(facts.protocols),
        failures=_failures(rows, label),
        provenance=_provenance(facts),
    )


def _script_json(document: Any) -> str:
    """JSON for a ``<script>`` element. Without any ``<`` the parser finds no end tag, comment or script in it."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _rounded(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else value


Protocols = dict[tuple[str, str, str], dict[str, Any]]  # name, version and digest to the document, where recorded


class _Facts:
    """What the page needs of each record beyond its cell, gathered while records stream past."""

    def __init__(self) -> None:
        self.count = 0
        self.curves: dict[tuple[Key, int, str], list[list]] = {}
        self.provenance: Counter = Counter()
        self.created: list[str] = []
        self.sheets: dict[tuple[Key, int, str], str] = {}
        self.gates: Counter = Counter()
        self.protocols: Protocols = {}

    def watch(self, records: Iterable[dict]) -> Iterable[dict]:
        for record in records:
            self.count += 1
            identity = record["identity"]
            place = key_of(identity), identity["seed"], identity["set"]
            if record["scores"].get("curve"):
                self.curves[place] = record["scores"]["curve"]
            if record["artifacts"].get("contact_sheet"):
                self.sheets[place] = record["artifacts"]["contact_sheet"]
            known = record["provenance"]
            names = ("ddbench", "python", "torch", "torchvision", "diffusers", "commit")
            self.provenance[(*(str(known.get(n) or "–") for n in names), _machine(known.get("hardware")))] += 1
            self.created.append(str(known.get("created", "")))
            protocol = record["identity"]["protocol"]
            key = (protocol["name"], str(protocol["version"]), protocol["digest"])
            self.protocols[key] = record["artifacts"].get("protocol") or self.protocols.get(key, {})
            gate = (record["gates"].get("set") or {}).get("status", "not recorded")
            self.gates[gate] += 1
            yield record

    @staticmethod
    def places(cell: Cell) -> list[tuple[Key, int, str]]:
        """Where the facts of a cell's records lie, by seed."""
        return [(cell.key._replace(set=""), sample.seed, sample.set) for sample in cell.samples]

    def sheet(self, cell: Cell) -> tuple[int, str] | None:
        """Seed and path of the cell's first contact sheet."""
        return next(((place[1], self.sheets[place]) for place in self.places(cell) if place in self.sheets), None)

    def curve(self, cell: Cell) -> list[list[float]]:
        """Mean top-1 over seeds at the epochs that all seeds have, thinned."""
        members = [self.curves[place] for place in self.places(cell) if place in self.curves]
        if not members:
            return []
        common = set.intersection(*({point[0] for point in curve} for curve in members))
        totals: dict[Any, list[float]] = {epoch: [] for epoch in sorted(common)}
        for curve in members:
            for point in curve:
                if point[0] in totals:
                    totals[point[0]].append(point[1])
        points = [[epoch, round(sum(v) / len(v), 2)] for epoch, v in totals.items()]
        step = -(-len(points) // CURVE_POINTS) if points else 1
        return points[::-1][::step][::-1]  # the last epoch stays


def _machine(hardware: Any) -> str:
    """``AMD EPYC, 2 CPUs, x86_64``."""
    if not isinstance(hardware, dict):
        return str(hardware or "–")
    parts = [f"{value} CPUs" if name == "cpus" else str(value) for name, value in sorted(hardware.items()) if value]
    return ", ".join(parts) or "–"


class _Budget:
    """Reads pictures below the results folder as data URIs while there is room."""

    def __init__(self, results: Path) -> None:
        self.results, self.left = results.resolve(), PICTURE_BYTES

    def uri(self, name: str) -> str:
        """The picture of this name in the results folder; an empty string where it is missing, unreadable, outside the
        folder or too much."""
        try:
            path = inside(self.results, name)
            if path.suffix == ".svg":
                content, kind = read_bytes(path, most=self.left), "svg+xml"
            else:
                content, kind = _small_png(path), "png"
        except (DDBenchError, OSError):
            return ""
        if not content or len(content) > self.left:
            return ""
        self.left -= len(content)
        return f"data:image/{kind};base64," + base64.b64encode(content).decode()


def _small_png(path: Path) -> bytes:
    from PIL import Image

    with opened_image(path) as image:
        if image.width <= PICTURE_WIDTH and image.format == "PNG":
            return read_bytes(path, most=PICTURE_BYTES)
        height = max(1, round(image.height * PICTURE_WIDTH / image.width))
        small = image.convert("RGB").resize((PICTURE_WIDTH, height), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, "PNG", optimize=True)
    return out.getvalue()


# -- sections ------------------------------------------------------------------------------------------------------


def _data(**names: Any) -> str:
    return " ".join(f'data-{name}="{html.escape(str(value))}"' for name, value in names.items())


def _board(board) -> str:
    s = sheet(board)
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in s.notes)
    return (
        f"<div {_data(dataset=board.dataset, protocol=board.protocol)}><h3>{html.escape(s.title)}</h3>"
        f'<div class="scroll">{html_table(s)}</div>' + (f'<ul class="soft">{notes}</ul>' if notes else "") + "</div>"
    )


def _sheets(facts: _Facts, label: dict[int, str], rows: list[dict], cells: list[Cell], budget: _Budget) -> str:
    """Contact sheets side by side: one a method for each dataset and IPC (students and protocols share a set)."""
    groups: dict[tuple, dict[str, tuple]] = defaultdict(dict)
    for cell, row in zip(cells, rows):
        found = facts.sheet(cell)
        if found:
            name = label.get(id(row), row["method"])
            groups[cell.key.dataset, cell.key.ipc].setdefault(name, found)
    if not groups:
        return ""
    parts, lost = [], 0
    for (dataset, ipc), members in sorted(groups.items()):
        figures = []
        for name, (seed, path) in sorted(members.items()):
            uri = budget.uri(path)
            lost += not uri
            if uri:
                caption = html.escape(f"{name}, seed {seed}")
                figures.append(
                    f'<figure><img src="{uri}" alt="distilled images of {caption}">'
                    f"<figcaption>{caption}</figcaption></figure>"
                )
        if figures:
            parts.append(
                f"<div {_data(dataset=dataset, ipc=ipc)}><h3>{html.escape(dataset)}, IPC {ipc}</h3>"
                f'<div class="sheets">{"".join(figures)}</div></div>'
            )
    note = f'<p class="soft">{lost} contact sheets are not shown (missing, or the page is full).</p>' if lost else ""
    return f"<section data-group><h2>Distilled images</h2>{note}{''.join(parts)}</section>" if parts else ""


def _pictures(results: Path, budget: _Budget) -> str:
    """Diagnostics (``diagnostics/``) and plots of grids (``grids/*/plots/``), with the file's name as caption."""
    parts = []
    for title, pattern in (("Diagnostics", "diagnostics/**/*"), ("Grids", "grids/*/plots/*")):
        found = sorted(p for p in results.glob(pattern) if p.suffix in (".svg", ".png"))
        figures = []
        for path in found:
            where = path.relative_to(results)
            uri = budget.uri(where.as_posix())
            if uri:
                caption = html.escape(where.parts[1] if title == "Grids" else where.stem.replace("_", " "))
                figures.append(f'<figure><img src="{uri}" alt="{caption}"><figcaption>{caption}</figcaption></figure>')
        if figures:
            parts.append(f'<section><h2>{title}</h2><div class="plots">{"".join(figures)}</div></section>')
    return "".join(parts)


def _table(head: Sequence[str], lines: Iterable[tuple[str, Sequence[str]]], wrap: Sequence[int] = ()) -> str:
    """A plain table; each line is (attributes of its row, cells)."""
    body = []
    for attributes, cells in lines:
        texts = (
            f'<td class="wrap">{html.escape(c)}</td>' if i in wrap else f"<td>{html.escape(c)}</td>"
            for i, c in enumerate(cells)
        )
        body.append(f"<tr {attributes}>{''.join(texts)}</tr>")
    heads = "".join(f"<th>{html.escape(h)}</th>" for h in head)
    return (
        f'<div class="scroll tall"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
    )


def _reported(rows: list[dict], reported: Sequence[Reported]) -> str:
    """Published numbers of the datasets at hand, beside what was measured here (each variant and protocol apart)."""
    datasets = {row["dataset"] for row in rows}
    measured = defaultdict(list)
    for row in rows:
        if row["top1_last"] is not None:
            key = (row["dataset"], row["method"], row["student"], row["ipc"])
            measured[key].append(f"{row['top1_last']:.1f} ({row['protocol']})")
    lines = []
    for key, items in by_cell([item for item in reported if item.dataset in datasets]).items():
        for i in items:
            texts = [i.method, i.dataset, str(i.ipc), i.student, i.label_type, i.text, "; ".join(measured.get(key, []))]
            note = f" ({i.note})" if i.note else ""
            lines.append((_data(dataset=i.dataset, ipc=i.ipc), [*texts, i.source + note]))
    if not lines:
        return ""
    head = ["method", "dataset", "IPC", "student", "labels", "reported %", "measured here % (protocol)", "source"]
    return (
        '<section data-group><h2>Reported by papers</h2><p class="soft">Other code, other protocols, other hardware; '
        "never averaged with measured numbers. ? marks a number seen only in a secondary summary.</p>"
        + _table(head, lines, wrap=(6, 7))
        + "</section>"
    )


def _protocols(used: Protocols) -> str:
    """Every field of the protocols that records were made with; fields in which the registered ones differ first.

    A version that is registered here is explained; of another (older, or with changes) the fields that its records
    carry are shown; what neither has is named.
    """
    from benchmark.core.errors import DDBenchError
    from benchmark.evaluation.protocols import describe, load_protocol
    from benchmark.plugins import registry

    registered = registry().items["protocol"]
    known, recorded, lost = [], [], []
    for (name, version, digest), document in sorted(used.items(), key=lambda item: item[0]):
        base, _, changes = name.partition("+")  # hard+steps=200: made of hard and what --set changed
        found = None
        try:
            if base in registered:
                found = load_protocol(base, dict(part.split("=", 1) for part in split_commas(changes)) or None)
        except (DDBenchError, ValueError):
            pass  # a field that protocols of today do not have
        if found is not None and found.digest != digest:
            found = None
        if found is not None and not changes:
            known.append(name)
        elif document or found is not None:
            recorded.append((f"{name} v{version}", document or found.document()))
        else:
            lost.append(f"{name} v{version}")
    note = f"Neither registered here nor in the records: {html.escape(', '.join(lost))}." if lost else ""
    if not used:
        return ""
    parts = ["<section><h2>Protocols</h2>" + (f'<p class="soft">{note}</p>' if note else "")]
    if len(known) > 1:
        parts.append("<h3>Where they differ</h3>")
        rows = (("", tuple(map(str, row))) for row in describe(*known))
        parts.append(_table(["field", *known, "meaning"], rows, wrap=tuple(range(1, len(known) + 2))))
    for name in known:
        table = (("", tuple(map(str, row))) for row in describe(name))
        parts.append(f"<details {_data(protocol=name, dataset='')}><summary>{html.escape(name)}: every field</summary>")
        parts.append(_table(["field", "value", "meaning"], table, wrap=(1, 2)) + "</details>")
    for name, document in recorded:
        table = (("", (field, json.dumps(value, ensure_ascii=False))) for field, value in sorted(document.items()))
        parts.append(f"<details><summary>{html.escape(name)}: every field</summary>")
        parts.append(_table(["field", "value"], table, wrap=(1,)) + "</details>")
    return "".join(parts).replace(' data-dataset=""', "") + "</section>"


def _failures(rows: list[dict], label: dict[int, str]) -> str:
    lines = [
        (
            _data(dataset=r["dataset"], protocol=r["protocol"], student=r["student"], ipc=r["ipc"]),
            [label.get(id(r), r["method"]), r["dataset"], r["protocol"], r["student"], str(r["ipc"])]
            + [str(r["failed"]), str(r["skipped"]), cell_text(r["reason"], "reason")],
        )
        for r in rows
        if r["failed"] or r["skipped"]
    ]
    if not lines:
        return ""
    head = ["method", "dataset", "protocol", "student", "IPC", "failed", "skipped", "reason"]
    return "<section data-group><h2>Failed and skipped</h2>" + _table(head, lines, wrap=(7,)) + "</section>"


def _provenance(facts: _Facts) -> str:
    dates = sorted({d[:10] for d in facts.created if d})
    when = f"Records were made between {dates[0]} and {dates[-1]}. " if len(dates) > 1 else ""
    when = f"Records were made on {dates[0]}. " if len(dates) == 1 else when
    gates = ", ".join(f"{n} {status}" for status, n in sorted(facts.gates.items()))
    head = ["records", "ddbench", "python", "torch", "torchvision", "diffusers", "commit", "hardware"]
    lines = [("", [str(n), *key]) for key, n in sorted(facts.provenance.items(), key=lambda kv: (-kv[1], kv[0]))]
    return (
        f'<section><h2>Provenance</h2><p class="soft">{html.escape(when)}Gate of the distilled sets (the teacher '
        f"recognises them): {html.escape(gates)}.</p>" + _table(head, lines, wrap=(7,)) + "</section>"
    )
