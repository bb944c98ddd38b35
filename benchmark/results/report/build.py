"""Builds the report page from a results folder: records, contact sheets, pictures, protocols. Nothing is fetched.

The page depends on the records alone: no time of building, no machine's name.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from benchmark.results.boards.boards import boards
from benchmark.results.boards.cells import collect, rows_of
from benchmark.results.boards.columns import COLUMNS
from benchmark.results.boards.formats import LEGEND
from benchmark.results.boards.reported import read_reported
from benchmark.results.boards.table import cell_text, csv_text
from benchmark.results.report.boards import board_section, uses
from benchmark.results.report.facts import Facts
from benchmark.results.report.opening import opening
from benchmark.results.report.parts import script_json
from benchmark.results.report.pictures import Budget, pictures, sheets
from benchmark.results.report.studies import studies
from benchmark.results.report.tables import failures, protocols, provenance, reported

SCRIPTS = ("plots.js", "page.js")
SENT = tuple(name for name, _, _ in COLUMNS if name not in ("params", "seed_list", "method_version", "top1_last_std"))


def build(records: Iterable[dict], results: Path, title: str = "ddbench results") -> str:
    """The page as text.

    Args:
        records: verified records, read one at a time.
        results: folder whose ``sets/``, ``grids/`` and ``diagnostics/`` hold pictures, and ``studies/`` more records.
    """
    facts = Facts()
    cells = collect(facts.watch(records))
    rows = rows_of(cells)
    made = boards(rows)
    label = {id(row): entry.label for board in made for entry in board.entries for row in entry.rows.values()}
    sent = []
    for cell, row in zip(cells, rows):
        item = {name: _rounded(row[name]) for name in SENT} | {"reason": cell_text(row["reason"], "reason")}
        item["uses"] = uses(row["method"])
        item["label"] = label.get(id(row), row["method"])
        curve = facts.curve(cell)
        if curve:
            item["curve"] = curve
        sent.append(item)
    budget = Budget(results)
    names = {(row["dataset"], row["protocol"]) for row in rows}
    counts = {"record": facts.count, "cell": len(rows), "dataset": len({d for d, _ in names})}
    counts |= {"protocol": len({p for _, p in names}), "method": len({r["method"] for r in rows})}
    summary = (
        ", ".join(f"{number} {noun}{'s' * (number != 1)}" for noun, number in counts.items()) + ". "
        "Rows of different protocols, datasets, teachers or precisions are never averaged."
    )
    page = files("benchmark.results.report")
    below = [
        sheets(facts, label, rows, cells, budget),
        studies(results),
        pictures(results, budget),
        reported(rows, read_reported()),
        protocols(facts.protocols, facts.resolved),
        failures(rows, label),
        provenance(facts),
    ]
    text = Template(page.joinpath("page.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(title),
        summary=html.escape(summary),
        opening=opening(made),
        legend=html.escape(LEGEND.format(over="seeds")),
        css=page.joinpath("page.css").read_text(encoding="utf-8"),
        js="".join(page.joinpath(name).read_text(encoding="utf-8") for name in SCRIPTS),
        csv="data:text/csv;charset=utf-8;base64," + base64.b64encode(csv_text(rows).encode()).decode(),
        data=script_json({"rows": sent}),
        boards=board_section(made),
        below="\n".join(part for part in below if part),
        contents="$contents",
    )
    return text.replace("$contents", _contents(text), 1)


def _contents(page: str) -> str:
    """Links to the page's sections."""
    found = re.findall(r'<section (?:data-group )?id="([a-z]+)"[^>]*><h2>([^<]+)</h2>', page)
    return "".join(f'<a href="#at={name}">{title}</a>' for name, title in found)


def _rounded(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else value
