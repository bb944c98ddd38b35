"""Which published numbers were attempted here: one line a cell, ours computed from records, theirs from reported.csv.

``results/reproduction.yaml`` says which cell of which paper is meant, which records are ours, what differs and why a
number was missed; this module finds both numbers, compares them and writes the table as Markdown and CSV. Nothing in
the table is typed in but words. A cell::

    - paper: RDED, arXiv 2312.03526
      published: {method: rded, dataset: cifar10, ipc: 10, student: convnet3_bn}   # one row of reported.csv
      ours: {protocol: rded-paper, teacher: convnet3_bn}                           # columns of leaderboard.csv
      results: studies/NAME           # the results folder, relative to the file; default: that of the file
      score: top1_best                # as the paper scores: its best evaluation; default top1_last
      differs: what is not as in the paper
      why: the reason where the number was missed or not attempted
      command: ddbench run …

Long texts and keys (`BEGINNINGS`) are matched by their beginning. Without ``ours`` the cell was not attempted.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark.core.errors import DataError, MissingError, UsageError
from benchmark.core.foreign import read_yaml
from benchmark.results.boards.reported import Reported, read_reported

WITHIN = 2.0  # points: so near counts as met (or the published number lies in our interval)
FIELDS = ("paper", "published", "ours", "results", "score", "differs", "why", "command")
SCORES = ("top1_last", "top1_best")
BEGINNINGS = ("source", "params", "inputs", "teacher_key", "backbone_key")
COLUMNS = (
    ("paper", "whose number"),
    ("method", "as in reported.csv"),
    ("dataset", "as in reported.csv"),
    ("ipc", "images per class"),
    ("student", "as in reported.csv"),
    ("published", "their number, percent"),
    ("deviation", "as they give it"),
    ("grade", "primary or secondary: what was seen of the source"),
    ("score", "top1_last, or top1_best where the paper takes the best of its evaluations"),
    ("measured", "our mean, percent"),
    ("half", "half width of our 95 % t interval over seeds"),
    ("seeds", "how many"),
    ("difference", "ours minus theirs, points"),
    ("status", "met, above, missed, no records, not attempted"),
    ("differs", "what is not as in the paper"),
    ("why", "the reason for what is not met"),
    ("command", "what made the records"),
)

Rows = Callable[[Path], list[dict[str, Any]]]  # a results folder's rows, as leaderboard.csv has them


def read(file: Path) -> list[dict[str, Any]]:
    """The cells of a ``reproduction.yaml``.

    Raises:
        MissingError: there is none; DataError: a cell with unknown or missing fields; names it.
    """
    if not file.is_file():
        raise MissingError(f"no {file}", hint="a table of reproductions is described beside it, in reproduction.yaml")
    try:
        cells = read_yaml(file)
        assert isinstance(cells, list) and all(isinstance(cell, dict) for cell in cells)
        assert all(isinstance(cell.get(name, {}), dict) for cell in cells for name in ("published", "ours"))
    except (UsageError, AssertionError) as error:
        raise DataError("not a list of cells", where=str(file), allowed=", ".join(FIELDS)) from error
    for number, cell in enumerate(cells, start=1):
        wrong = sorted(set(cell) - set(FIELDS)) or sorted({"paper", "published"} - set(cell))
        if not wrong and "ours" not in cell and not cell.get("why"):
            wrong = ["why (the cell was not attempted)"]
        if not wrong and cell.get("score", SCORES[0]) not in SCORES:
            wrong = [f"score {cell['score']}"]
        if wrong:
            where = f"{file}, cell {number} ({cell.get('paper', 'no paper')})"
            raise DataError(f"unknown or missing: {', '.join(wrong)}", where=where, allowed=", ".join(FIELDS))
    return cells


def table(file: Path, rows: Rows, reported: list[Reported] | None = None) -> list[dict[str, Any]]:
    """The cells of the file with both numbers, in its order; keys as in `COLUMNS`, missing numbers None.

    Raises:
        DataError: a cell's published number is not exactly one, or several rows are ours.
    """
    known = read_reported() if reported is None else reported
    return [_line(cell, number, file, rows, known) for number, cell in enumerate(read(file), start=1)]


def _line(cell: dict[str, Any], number: int, file: Path, rows: Rows, reported: list[Reported]) -> dict[str, Any]:
    where = f"{file}, cell {number} ({cell['paper']})"
    wanted = cell["published"]
    theirs = _one([vars(item) for item in reported], wanted, "published", where)
    if theirs is None:
        raise DataError(f"no reported number is {wanted}", where=where, hint="add it to reported.csv, with its source")
    score = cell.get("score", SCORES[0])
    line = {name: cell.get(name, "") for name in ("paper", "differs", "why", "command")}
    line |= {name: theirs[name] for name in ("method", "dataset", "ipc", "student", "deviation", "grade")}
    line |= {"published": theirs["value"], "score": score, "measured": None, "half": None, "seeds": None}
    line["difference"] = None
    if "ours" not in cell:
        return line | {"status": "not attempted"}
    same = {name: wanted[name] for name in ("method", "dataset", "ipc", "student") if name in wanted}
    found = [row for row in rows(file.parent / cell.get("results", ".")) if row["seeds"]]
    ours = _one(found, same | cell["ours"], "ours", where)
    if ours is None:
        return line | {"status": "no records"}
    line |= {"measured": ours[score], "half": ours[f"{score}_half"], "seeds": ours["seeds"]}
    line["difference"] = difference = ours[score] - theirs["value"]
    near = abs(difference) <= max(WITHIN, line["half"] or 0.0)
    line["status"] = "met" if near else "above" if difference > 0 else "missed"
    if not near:
        line["why"] = line["why"] or "the reason is not found yet"
    return line


def _one(rows: list[dict[str, Any]], wanted: dict[str, Any], kind: str, where: str) -> dict[str, Any] | None:
    """The row that has all of ``wanted``, or None."""
    unknown = sorted(set(wanted) - set(rows[0])) if rows else []
    if unknown:
        raise DataError(f"{kind} names no column: {', '.join(unknown)}", where=where, allowed=", ".join(rows[0]))
    for name, value in wanted.items():
        begins = name in BEGINNINGS
        rows = [row for row in rows if row[name] == value or (begins and str(row[name]).startswith(value))]
    if len(rows) > 1:
        differing = [name for name in rows[0] if len({str(row[name]) for row in rows}) > 1]
        raise DataError(f"{kind} means {len(rows)} rows", where=where, hint=f"they differ in {', '.join(differing)}")
    return rows[0] if rows else None


def markdown(lines: list[dict[str, Any]]) -> str:
    """The table, with a count of each status above it."""
    counts = {status: sum(line["status"] == status for line in lines) for status in _statuses(lines)}
    out = [", ".join(f"{n} {status}" for status, n in counts.items()) + ".", ""]
    out += ["| paper | cell | theirs | ours | status | what differs; why | command |", "|:--|:--|--:|--:|:--|:--|:--|"]
    for line in lines:
        cell = f"{line['method']}, {line['dataset']}, IPC {line['ipc']}, {line['student']}"
        theirs = _number(line["published"], line["deviation"]) + (" ?" if line["grade"] == "secondary" else "")
        ours = "–" if line["measured"] is None else _number(line["measured"], line["half"]) + f" ({line['seeds']})"
        ours += " best" if line["measured"] is not None and line["score"] == "top1_best" else ""
        words = "; ".join(_text(line[name]) for name in ("differs", "why") if line[name])
        command = f"`{_text(line['command'])}`" if line["command"] else ""
        parts = [_text(line["paper"]), cell, theirs, ours, line["status"], words, command]
        out.append("| " + " | ".join(parts) + " |")
    return "\n".join(out) + "\n"


def _statuses(lines: list[dict[str, Any]]) -> list[str]:
    order = ("met", "above", "missed", "no records", "not attempted")
    return [status for status in order if any(line["status"] == status for line in lines)]


def _number(value: float, spread: float | None) -> str:
    return f"{value:.1f}" if spread is None else f"{value:.1f} ± {spread:.1f}"


def _text(value: str) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def csv_text(lines: list[dict[str, Any]]) -> str:
    """The table as CSV, numbers to four decimals."""
    out = io.StringIO()
    writer = csv.DictWriter(out, [name for name, _ in COLUMNS], lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow(
            {
                k: f"{v:.4f}" if isinstance(v, float) else " ".join(str("" if v is None else v).split())
                for k, v in line.items()
            }
        )
    return out.getvalue()
