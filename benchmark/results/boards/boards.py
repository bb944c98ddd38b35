"""Boards: rows of one dataset and protocol, methods down, IPC × student across; best, top sets and notes."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from benchmark.core.errors import UsageError, unknown_name
from benchmark.core.foreign import parse_yaml
from benchmark.plugins import registry
from benchmark.results.boards import standing
from benchmark.results.boards.cells import AUTHORS, MEMBER, Cell


class Column(NamedTuple):
    """Results in one column may be compared: same student, IPC and teacher (and the board's dataset and protocol)."""

    student: str
    ipc: int
    teacher: str
    teacher_key: str


@dataclass
class Entry:
    """A method with its parameters, backbone and precision: one line of a board."""

    label: str
    method: str
    rows: dict[Column, dict[str, Any]]


@dataclass
class Board:
    """Entries sorted best first; ``notes`` say what differs inside the board."""

    dataset: str
    dataset_digest: str
    protocol: str
    protocol_version: str
    protocol_digest: str
    columns: list[Column]
    entries: list[Entry]
    notes: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """For people: dataset and protocol."""
        return f"{self.dataset}, protocol {self.protocol} v{self.protocol_version}"

    def heading(self, column: Column) -> str:
        """A column's name: what all columns share is left out."""
        parts = [f"IPC {column.ipc}"]
        if len({c.student for c in self.columns}) > 1:
            parts.append(column.student)
        if len({(c.teacher, c.teacher_key) for c in self.columns if c.student == column.student}) > 1:
            name = column.teacher or "no teacher"
            keys = {c.teacher_key for c in self.columns if c.teacher == column.teacher}
            parts.append(f"{name} {column.teacher_key[:6]}" if len(keys) > 1 else name)
        return " ".join(parts)


IDENTITY = ("method", "method_version", "params", "inputs", "backbone", "backbone_key", "precision", "set")
LATER = ("inputs", "backbone", "backbone_key")  # of these, what a skipped cell may not know


def boards(rows: Iterable[dict[str, Any]]) -> list[Board]:
    """Split rows by dataset digest and protocol digest and arrange each part; never mixes either."""
    groups: dict[tuple, list[dict]] = defaultdict(list)
    for row in rows:
        group = ("dataset", "dataset_digest", "protocol", "protocol_version", "protocol_digest")
        groups[tuple(row[name] for name in group)].append(row)
    return [_board(group, members) for group, members in sorted(groups.items())]


def _board(group: tuple, rows: list[dict]) -> Board:
    place = _places(rows)
    columns = sorted(set(place.values()))
    known = _identities(rows)
    line = _lines(rows, known)
    named = [row for row in rows if line[id(row)] == known[id(row)]]
    names = dict(zip((known[id(row)] for row in named), labels(named)))
    lines: dict[tuple, dict[Column, dict]] = defaultdict(dict)
    for row in sorted(rows, key=_skipped):  # what ran goes first
        lines[line[id(row)]].setdefault(place[id(row)], row)
    entries = [Entry(names[identity], identity[0], cells) for identity, cells in lines.items()]

    def order(entry: Entry) -> tuple:
        """Whole lines first, by their mean over the columns: who else is on the board does not move them."""
        known = [row["top1_last"] for row in entry.rows.values() if row["top1_last"] is not None]
        gaps = len(columns) - len(known)
        lost = sum(row["failed"] for row in entry.rows.values())
        return (not known, bool(lost), gaps, -_mean(known), entry.label)

    return Board(*group, columns=columns, entries=sorted(entries, key=order), notes=_notes(rows))


def _places(rows: list[dict]) -> dict[int, Column]:
    """The column of each row, by ``id(row)``.

    A cell that was skipped before its teacher was known belongs with those that ran: same student, same IPC.
    """
    ran = {column_of(row) for row in rows if row["seeds"] or row["teacher"]}
    places = {}
    for row in rows:
        column = column_of(row)
        if column not in ran:
            column = min((c for c in ran if c[:2] == column[:2]), default=column)
        places[id(row)] = column
    return places


def _lines(rows: list[dict], known: dict[int, tuple]) -> dict[int, tuple]:
    """What identifies the line of each row, by ``id(row)``, from their own identities ``known``.

    A cell that was skipped before its backbone and inputs were known belongs to the line of those that ran, where
    there is one only.
    """
    ran = {known[id(row)] for row in rows if not _skipped(row)}
    lines = {}
    for row in rows:
        own = known[id(row)]
        found = [other for other in ran if _may_be(own, other)] if _skipped(row) else []
        lines[id(row)] = found[0] if len(found) == 1 else own
    return lines


def _may_be(skipped: tuple, other: tuple) -> bool:
    """Whether two identities are equal in all that the skipped cell knew."""
    return all(a == b or (not a and name in LATER) for name, a, b in zip(IDENTITY, skipped, other))


def _identities(rows: Sequence[dict]) -> dict[int, tuple]:
    """What tells lines apart, by ``id(row)``; of a tuned line not the parameters, which may differ by IPC."""
    tuned = _tuned(rows)
    return {
        id(row): tuple(row["tuned"] if name == "params" and id(row) in tuned else row[name] for name in IDENTITY)
        for row in rows
    }


def _tuned(rows: Sequence[dict]) -> set[int]:
    """``id`` of the rows to be shown as their method's tuned ones: where each column has but one."""
    found: dict[tuple, list[dict]] = defaultdict(list)
    for row in rows:
        if row["tuned"]:
            found[row["dataset_digest"], row["protocol_digest"], column_of(row), _kind(row)].append(row)
    several = {_kind(row) for members in found.values() if len(members) > 1 for row in members}
    return {id(row) for members in found.values() for row in members if _kind(row) not in several}


def _kind(row: dict) -> tuple[str, bool]:
    """Tuned rows of a method are one line, those at its authors' settings another."""
    return row["method"], row["tuned"] == AUTHORS


def _skipped(row: dict) -> bool:
    return bool(row["skipped"] and not row["seeds"] and not row["failed"])


def _mean(values: Sequence[float | None]) -> float:
    values = [v for v in values if v is not None]
    return math.fsum(values) / len(values) if values else 0.0


def column_of(row: dict) -> Column:
    """The column that a row belongs to."""
    return Column(row["student"], row["ipc"], row["teacher"], row["teacher_key"])


def labels(rows: Sequence[dict]) -> list[str]:
    """A name for each row: the method, and of parameters, version, backbone and precision what tells rows apart."""
    by_method: dict[str, list[dict]] = defaultdict(list)
    for row in rows:
        by_method[row["method"]].append(row)
    tuned = _tuned(rows)
    varying: dict[str, list[str]] = {}
    for method, members in by_method.items():
        params = [json.loads(text) for text in sorted({row["params"] for row in members if id(row) not in tuned})]
        keys = sorted({key for document in params for key in document})
        varying[method] = [k for k in keys if len({json.dumps(p.get(k, "–"), sort_keys=True) for p in params}) > 1]
    several = {
        (method, name): len({row[name] for row in members}) > 1
        for method, members in by_method.items()
        for name in ("method_version", "inputs", "backbone", "backbone_key", "precision")
    }
    out = []
    for row in rows:
        method, parts = row["method"], []
        values = json.loads(row["params"])
        if id(row) in tuned:
            parts.append("authors" if row["tuned"] == AUTHORS else "tuned")
        else:
            parts += [f"{key}={_short(values.get(key, '–'))}" for key in varying[method]]
        if several[method, "method_version"]:
            parts.append(f"v{row['method_version']}")
        if several[method, "inputs"]:
            parts.append(row["inputs"] or "no inputs")
        if several[method, "backbone"]:
            parts.append(f"on {row['backbone'] or 'no backbone'}")
        if several[method, "backbone_key"]:
            parts.append(f"backbone {row['backbone_key'][:6] or 'none'}")
        if several[method, "precision"]:
            parts.append(row["precision"])
        if row["set"]:
            parts.append(f"set {row['set'][:6]}")
        out.append(f"{method} ({', '.join(parts)})" if parts else method)
    return out


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def _notes(rows: list[dict]) -> list[str]:
    """Sentences about what a reader must not overlook in a board."""
    notes = []
    backbones = sorted({(r["backbone"], r["backbone_key"]) for r in rows if r["backbone"]})
    if len(backbones) > 1:
        names = ", ".join(f"{name} ({key[:6]})" for name, key in backbones)
        notes.append(f"Methods stand on {len(backbones)} different backbones: {names}.")
    shared = sorted({r["method"] for r in rows if r["backbone"] and r["seeds"] > 1})
    if shared:
        notes.append(
            f"All seeds of {', '.join(shared)} use one backbone: intervals leave out the variation between trainings."
        )
    once = [name for name in sorted({r["method"] for r in rows if r["seeds"] > 1}) if _fine_tunes_once(name)]
    if once:
        notes.append(f"All seeds of {', '.join(once)} use one fine-tuned model, likewise.")
    teachers = sorted({(r["teacher"], r["teacher_key"]) for r in rows if r["teacher"]})
    if len(teachers) > 1:
        names = ", ".join(f"{name} ({key[:6]})" for name, key in teachers)
        notes.append(f"Students learn from {len(teachers)} different teachers: {names}; columns keep them apart.")
    if len({r["precision"] for r in rows}) > 1:
        notes.append(f"Precisions differ: {', '.join(sorted({r['precision'] for r in rows}))}.")
    notes += [f"Tuned: {text}." for text in sorted({r["tuned"] for r in rows if r["tuned"]} - {AUTHORS})]
    if any(r["tuned"] == AUTHORS for r in rows):
        notes.append("Rows (authors): what the method's authors set, where our default is another.")
    return notes


def _fine_tunes_once(method: str) -> bool:
    """Whether the method, where it is installed, trains something once for all its seeds."""
    info = registry().items["method"].get(method)
    return info is not None and info.trains_once


def marks(board: Board) -> dict[tuple[int, Column], str]:
    """``top``, ``below`` or ``?`` for (entry index, column), by the tests of `standing` among the board's entries."""
    out = {}
    for column in board.columns:
        cells = [(i, e.rows[column]) for i, e in enumerate(board.entries) if column in e.rows]
        cells = [(i, row) for i, row in cells if row["top1_last"] is not None]
        tests = standing.Column([row[MEMBER] for _, row in cells])
        out |= {(i, column): tests.standing(place) for place, (i, _) in enumerate(cells) if len(cells) > 1}
    return out


def flags(board: Board) -> Counter:
    """How many rows of the board carry each flag."""
    return Counter(flag for e in board.entries for row in e.rows.values() for flag in row["flags"].split())


def select(rows: list[dict], wanted: dict[str, Sequence[str]]) -> list[dict]:
    """Rows whose columns match; values are names, wildcards or comma-separated lists of them, ``ipc`` numbers.

    A method may be a variant: ``d3hr:decode_guidance=3``, as in ``compare``, with one parameter.

    Raises:
        UsageError: a value that no row has (nearest one named).
    """
    for name, values in wanted.items():
        patterns = [p.strip() for value in values for p in str(value).split(",") if p.strip()]
        if not patterns:
            continue
        known = sorted({str(row[name]) for row in rows})
        for pattern in patterns:
            if not any(_matches(row, name, pattern) for row in rows):
                if not known:
                    raise UsageError("there are no records to choose from", where=f"--{name} {pattern}")
                if name == "method" and ":" in pattern:
                    _refuse_variant(rows, pattern)
                error = unknown_name(name, pattern, known, where=f"--{name}")
                raise UsageError(
                    error.what.replace("unknown", "no record has the", 1),
                    where=error.where,
                    allowed=error.allowed,
                    hint="ddbench leaderboard --format csv shows everything that there is",
                )
        rows = [row for row in rows if any(_matches(row, name, p) for p in patterns)]
    return rows


def _matches(row: dict, name: str, pattern: str) -> bool:
    pattern, colon, setting = pattern.partition(":") if name == "method" else (pattern, "", "")
    if not fnmatchcase(str(row[name]), pattern):
        return False
    key, equals, value = setting.partition("=")
    params = json.loads(row["params"]) if colon else {}
    return not colon or (bool(equals) and key in params and params[key] == parse_yaml(value, f"--{name}"))


def _refuse_variant(rows: list[dict], pattern: str) -> None:
    """Say why no row is the variant ``pattern`` of a method (``d3hr:decode_guidance=9``).

    Raises:
        UsageError: no KEY=VALUE, no such parameter (nearest named), or another value than those that there are. Nothing
            is raised where no row has the method.
    """
    method, _, setting = pattern.partition(":")
    mine = [json.loads(row["params"]) for row in rows if fnmatchcase(str(row["method"]), method)]
    if not mine:
        return
    key, equals, _ = setting.partition("=")
    where, known = f"--method {pattern}", sorted({k for params in mine for k in params})
    if not equals:
        raise UsageError(
            f"{setting!r} is not KEY=VALUE",
            where=where,
            allowed=f"{method}:KEY=VALUE; KEY is {', '.join(known) or 'none: it has no parameters'}",
        )
    if key not in known:
        raise unknown_name("parameter", key, known, where=where)
    values = sorted({json.dumps(params[key]) for params in mine if key in params})
    raise UsageError(
        f"no record has {setting}", where=where, allowed=", ".join(f"{method}:{key}={value}" for value in values[:12])
    )


def select_cells(cells: Iterable[Cell], wanted: dict[str, Sequence[str]]) -> list[Cell]:
    """`select` for cells, by their keys."""
    rows = [{**cell.key._asdict(), "cell": cell} for cell in cells]
    return [row["cell"] for row in select(rows, wanted)]
