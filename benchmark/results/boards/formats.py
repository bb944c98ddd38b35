"""Boards as sheets of text cells, which `benchmark.core.sheet` writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from benchmark.core.sheet import FORMATS, STEADY, WIDE, Sheet, Text, choose
from benchmark.core.sheet import render as write
from benchmark.results.boards import standing
from benchmark.results.boards.boards import Board, Column, Entry, boards, flags, marks
from benchmark.results.boards.columns import FLAGS
from benchmark.results.boards.reported import Reported, by_cell
from benchmark.results.boards.terminal import MISSING, interval, seconds, size

__all__ = ["FORMATS", "LEGEND", "render", "sheet"]

LEGEND = (
    "Top-1 % after the last epoch, mean ± 95 % t interval over {over}; in brackets the gain over random real images, "
    "paired by seed (over the seeds that both have). Bold is the top set of a column: the best result without failed "
    "seeds and all whose difference from it is not significant (paired tests, Holm's correction); ? where too little "
    "is known (fewer than three shared seeds, or seeds that failed)."
)


def sheet(board: Board, reported: Sequence[Reported] = ()) -> Sheet:
    """The board's cells as text: results, cost, seeds, flags, then reported numbers in columns of their own."""
    marked = marks(board)
    published = by_cell(list(reported))
    once = {(c.student, c.ipc): c for c in reversed(board.columns)}.values()  # whatever the teacher
    shown = [c for c in sorted(once) if any(_published(board, e, c, published) for e in board.entries)]
    headers = ["method", *map(board.heading, board.columns), "seeds", "distil", "images", "labels", "flags"]
    headers += [f"reported {board.heading(c)}" for c in shown]
    out = Sheet(board.title, headers, "l" + "r" * (len(board.columns) + 4) + "l" + "r" * len(shown))
    scored = [row for e in board.entries for row in e.rows.values() if row["top1_last_half"] is not None]
    both = bool(scored) and all(row["top1_last_half_both"] is not None for row in scored)
    out.legend = LEGEND.format(over="seeds and test images" if both else "seeds")
    sources: list[str] = []
    for i, entry in enumerate(board.entries):
        line = [Text(entry.label)]
        line += [_cell(entry.rows.get(c), marked.get((i, c), ""), both) for c in board.columns]
        line += [Text(_seeds(entry)), *(Text(_costs(entry, *pair)) for pair in COSTS)]
        line.append(Text(", ".join(sorted({f for r in entry.rows.values() for f in r["flags"].split()}))))
        for column in shown:
            parts = []
            for item in _published(board, entry, column, published):
                note = f"{item.source}" + (f"; {item.note}" if item.note else "")
                if note not in sources:
                    sources.append(note)
                parts.append(f"{item.text} [{sources.index(note) + 1}]")
            line.append(Text(" / ".join(parts) or MISSING))
        out.lines.append(line)
    groups = [board.heading(c).partition(f"IPC {c.ipc} ")[2] for c in board.columns]
    out.groups = ["", *groups, *[""] * (len(headers) - 1 - len(groups))]
    out.keep([j for j, h in enumerate(headers) if h not in OPTIONAL or any(x[j].text not in EMPTY for x in out.lines)])
    columns = {(c.teacher, c.teacher_key) for c in board.columns}
    if len(columns) == 1 and board.columns[0].teacher:
        out.title += f", teacher {board.columns[0].teacher}"
    if len({c.student for c in board.columns}) == 1:
        out.title += f", student {board.columns[0].student}"
    out.notes = [*board.notes]
    out.notes += [f"{flag}: {FLAGS[flag]}." for flag in FLAGS if flag in flags(board)]
    out.notes += [f"[{n}] reported by: {source}." for n, source in enumerate(sources, start=1)]
    if any("?" in cell.text for line in out.lines for cell in line[-len(shown) :]) and shown:
        out.notes.append("? the number was seen only in a secondary summary of the paper.")
    return out


OPTIONAL = ("labels", "flags", "distil", "images")
EMPTY = ("", MISSING, "0 B")
COSTS = (("distill_seconds", seconds), ("image_bytes", size), ("label_bytes", size))


def _published(board: Board, entry: Entry, column: Column, published: dict) -> list[Reported]:
    return published.get((board.dataset, entry.method, column.student, column.ipc), [])


def _cell(row: dict | None, mark: str, both: bool) -> Text:
    if row is None:
        return Text(MISSING)
    if row["top1_last"] is None:
        return Text("failed" if row["failed"] else "skipped")
    half = row["top1_last_half_both" if both else "top1_last_half"]
    text = interval(row["top1_last"], half)
    text = text if row["gain_over_random"] is None else f"{text} ({row['gain_over_random']:+.1f})"
    return Text(text, "" if mark == standing.BELOW else mark, row["seeds"] < STEADY and (half or 0) > WIDE)


def _seeds(entry: Entry) -> str:
    """How many succeeded, and in brackets how many failed: ``3 (2 failed)``; least and most over the columns."""
    counts, failed = (sorted({row[name] for row in entry.rows.values()}) for name in ("seeds", "failed"))
    text = str(counts[0]) if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"
    return f"{text} ({failed[-1]} failed)" if failed[-1] else text


def _costs(entry: Entry, name: str, form) -> str:
    """One value an IPC, joined with slashes (students share a distilled set, so it is the same for all)."""
    by_ipc: dict[int, float] = {}
    for column, row in sorted(entry.rows.items(), key=lambda item: item[0].ipc):
        if row[name] is not None:
            by_ipc.setdefault(column.ipc, row[name])
    texts = [form(value) for value in by_ipc.values()]
    return " / ".join(texts) if len(set(texts)) > 1 else "".join(texts[:1]) or MISSING


def json_text(rows: list[dict[str, Any]], reported: Sequence[Reported] = ()) -> str:
    """Rows as in the CSV, unrounded, and the reported numbers of the same datasets apart."""
    datasets = {row["dataset"] for row in rows}
    published = [vars(item) for item in reported if item.dataset in datasets]
    rows = [{name: value for name, value in row.items() if name[0] != "_"} for row in rows]
    return json.dumps({"rows": rows, "reported": published}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def render(
    rows: list[dict[str, Any]],
    form: str,
    reported: Sequence[Reported] = (),
    notes: Sequence[str] = (),
    columns: Sequence[str] = (),
) -> str:
    """Rows in one of `FORMATS`; ``notes`` go below every board; ``columns``: only these, where the boards are text."""
    if form == "csv":
        from benchmark.results.boards.table import csv_text

        return csv_text(rows)
    if form == "json":
        return json_text(rows, reported)
    sheets = [sheet(board, reported) for board in boards(rows)]
    for s in sheets:
        s.notes += notes
    choose(sheets, columns)
    return write(sheets, form, "ddbench leaderboard")
