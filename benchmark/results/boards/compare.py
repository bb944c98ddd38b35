"""Methods side by side: paired by seed inside a cell, one number over cells, never over protocols."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from benchmark.core.errors import MissingError, UsageError, unknown_name
from benchmark.core.foreign import parse_yaml
from benchmark.results.boards.boards import labels
from benchmark.results.boards.cells import Cell, Key, number, rows_of
from benchmark.results.boards.standing import Column, Member, verdict
from benchmark.results.records.remake import split_commas
from benchmark.results.statistics import MIN_SHARED, Results, difference, holm, mean_difference, mean_interval

BEGINNINGS = ("backbone_key", "inputs", "set")  # what a selector may name by its beginning
BESIDES = ("backbone", "precision", "method_version", "tuned", *BEGINNINGS)  # and what it may name besides parameters
# What a selector may name of the cell itself (wildcards allowed), each with what is then left out of the pairing.
ACROSS = {
    "protocol": ("protocol", "protocol_version", "protocol_digest", "teacher", "teacher_key"),
    "student": ("student",),
}


@dataclass(frozen=True)
class Pair:
    """One cell of the comparison; numbers are percent and points, ``half`` None for a single shared seed."""

    first: str
    second: str
    dataset: str
    protocol: str
    teacher: str
    teacher_key: str
    student: str
    ipc: int
    a: float
    b: float
    difference: float
    half: float | None
    seeds: int
    verdict: str  # of a against b by the tests of their column: better, worse, undecided, ? (fewer than three seeds)
    images: bool = False  # whether the interval is over test images as well
    p: float | None = None  # two-sided, of this pair alone
    note: str = ""
    results: tuple[Results, Results] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Summary:
    """Over the cells of one dataset and protocol: one number a pair, the mean over cells of each seed.

    Cells that share distilled sets are one experiment, so ``mean_difference`` has an interval over seeds, ``half``
    (None for a single seed), and ``p`` is that of its t test. Wins and losses are verdicts of the cells' columns.
    """

    dataset: str
    protocol: str
    cells: int
    wins: int
    ties: int
    losses: int
    mean_difference: float
    half: float | None
    seeds: int
    p: float | None


def parse_selector(text: str) -> tuple[str, dict[str, Any]]:
    """``d3hr`` or ``d3hr:depth=30,backbone=tiny`` as (method, wanted values); what is no parameter stays text."""
    method, colon, rest = text.partition(":")
    if colon and not rest.strip():
        raise UsageError(f"no KEY=VALUE after the colon of {text!r}", where=text, hint="e.g. d3hr:depth=30")
    wanted = {}
    for part in split_commas(rest):
        key, equals, value = (word.strip() for word in part.partition("="))
        if not equals:
            raise UsageError(f"{part!r} is not KEY=VALUE", where=text, hint="e.g. d3hr:depth=30,backbone=tiny")
        wanted[key] = value if key in BESIDES or key in ACROSS else parse_yaml(value, text)
    return method, wanted


def choose(cells: Sequence[Cell], text: str, across: frozenset[str] = frozenset()) -> dict[tuple, Cell]:
    """The cell that a selector means in each column of comparison, less the fields ``across`` of the column.

    Raises:
        UsageError: unknown method or parameter (nearest named), or several variants in one column.
        MissingError: no cell with these values.
    """
    method, wanted = parse_selector(text)
    mine = [c for c in cells if c.key.method == method]
    if not mine:
        raise unknown_name("method", method, {c.key.method for c in cells}, where="the records")
    known = {k for c in mine for k in json.loads(c.key.params)} | {*BESIDES, *ACROSS}
    for key in wanted:
        if key not in known:
            raise unknown_name("parameter", key, known, where=text, hint=f"ddbench show method {method}")
    found = [c for c in mine if all(_fits(c, k, v) for k, v in wanted.items())]
    if not found:
        raise MissingError(
            f"no record of {text}",
            allowed="; ".join(sorted(set(_variants(mine)))),
            hint="ddbench leaderboard --method " + method,
        )
    columns: dict[tuple, list[Cell]] = defaultdict(list)
    scored = [cell for cell in found if cell.by_seed()]  # what was only skipped or failed is no variant to choose
    for cell in scored or found:
        columns[_column(cell.key, across)].append(cell)
    for column, members in columns.items():
        own = [c for c in members if not c.key.set]  # before folders evaluated under the method's name
        if own and "set" not in wanted:
            columns[column] = members = own
        if len(members) > 1:
            raise UsageError(
                f"{text} means {len(members)} variants on {members[0].key.dataset}; choose one",
                where="compare",
                allowed="; ".join(_variants(members)),
                hint=f"ddbench compare {method}:KEY=VALUE …; KEY is a parameter or one of {', '.join(BESIDES)}",
            )
    return {column: members[0] for column, members in columns.items()}


def _column(key: Key, across: frozenset[str]) -> tuple:
    return tuple(value for name, value in zip(Key._fields, key.column) if name not in across)


def _variants(cells: list[Cell]) -> list[str]:
    names = labels(rows_of(cells))
    for word in ACROSS:
        if len({getattr(c.key, word) for c in cells}) > 1:
            names = [f"{name} with {word}={getattr(c.key, word)}" for name, c in zip(names, cells)]
    return names


def _fits(cell: Cell, name: str, wanted: Any) -> bool:
    """Whether a parameter is ``wanted``, or a key or one of the inputs begins so; no text means none."""
    if name in ACROSS:
        return fnmatchcase(getattr(cell.key, name), wanted)
    if name == "tuned":
        return cell.tuned.startswith(wanted) if wanted else not cell.tuned
    if name in BEGINNINGS:
        value = getattr(cell.key, name)
        return any(v.startswith(wanted) for v in (value, *value.split(", "))) if wanted else not value
    value = getattr(cell.key, name) if name in BESIDES else json.loads(cell.key.params).get(name)
    return value == wanted or str(value) == str(wanted)


def comparisons(
    cells: Sequence[Cell], first: str, others: Sequence[str], score: str = "top1_last", beside: Sequence[Cell] = ()
) -> list[list[Pair]]:
    """:func:`compare` of ``first`` with each of ``others``, in their order.

    A wildcard for the method on both sides pairs every method with itself: ``*:protocol=soft``, ``*:protocol=hard``.

    Raises:
        UsageError: as `compare`; a wildcard on one side only.
        MissingError: there is nothing to pair.
    """
    pattern = parse_selector(first)[0]
    if not any(c in text.partition(":")[0] for text in (first, *others) for c in "*?["):
        return [compare(cells, first, other, score, beside) for other in others]
    if len(others) != 1 or parse_selector(others[0])[0] != pattern:
        raise UsageError(
            "a wildcard pairs each method with itself: it stands on both sides",
            where=" ".join([first, *others]),
            hint="ddbench compare '*:protocol=soft' '*:protocol=hard'",
        )
    found, problem = [], None
    for method in sorted({c.key.method for c in cells if fnmatchcase(c.key.method, pattern)}):
        sides = [method + text.removeprefix(pattern) for text in (first, *others)]
        try:
            found.append(compare(cells, *sides, score, beside))
        except MissingError as error:  # a method that has one side only
            problem = error
    if not found:
        raise problem or unknown_name("method", pattern, {c.key.method for c in cells}, where="the records")
    return found


def compare(
    cells: Sequence[Cell], first: str, second: str, score: str = "top1_last", beside: Sequence[Cell] = ()
) -> list[Pair]:
    """``first`` minus ``second`` in every cell that both have with a shared seed.

    Verdicts are those of the column that both stand in, as on its board: corrected for all methods there. ``beside``
    holds the cells of the whole results folder, where ``cells`` are a part of it.

    Where both name a protocol (a student), cells are paired whatever their protocol and teacher (their student) are.

    Raises:
        UsageError: ``score`` is in no record of the two.
        MissingError: there is no such cell.
    """
    named = set(ACROSS).intersection(parse_selector(first)[1], parse_selector(second)[1])
    across = frozenset(field for name in named for field in ACROSS[name])
    a, b = choose(cells, first, across), choose(cells, second, across)
    names = {name for cell in (*a.values(), *b.values()) for sample in cell.samples for name in sample.scores}
    if names and score not in names:
        raise _unknown_score(score, names)
    pairs = []
    for column in sorted(set(a) & set(b)):
        results = a[column].results(score), b[column].results(score)
        d = difference(*results)
        if not d.seeds:
            continue
        ours, theirs = results[0].scores, results[1].scores
        shared = sorted(set(ours) & set(theirs))
        key, other = a[column].key, b[column].key
        notes = [
            f"{name}: {getattr(key, name)} against {getattr(other, name)}"
            for name in ("inputs", "backbone", "backbone_key", "precision")
            if getattr(key, name) and getattr(other, name) and getattr(key, name) != getattr(other, name)
        ]
        pairs.append(
            Pair(
                first,
                second,
                key.dataset,
                _both(f"{key.protocol} v{key.protocol_version}", f"{other.protocol} v{other.protocol_version}"),
                _both(key.teacher, other.teacher),
                _both(key.teacher_key, other.teacher_key),
                _both(key.student, other.student),
                key.ipc,
                mean_interval([ours[s] for s in shared])[0],
                mean_interval([theirs[s] for s in shared])[0],
                d.mean,
                number(d.half),
                d.seeds,
                verdict(d, _differ(a[column], b[column], beside or cells, score)),
                d.images,
                number(d.p),
                "; ".join(notes),
                results,
            )
        )
    if not pairs:
        raise MissingError(
            f"no cell holds both {first} and {second} with a shared seed",
            allowed="same dataset, protocol, teacher, student and IPC for both (what both name may differ)",
            hint=f"ddbench run --method {first.partition(':')[0]},{second.partition(':')[0]} …",
        )
    return pairs


def _differ(a: Cell, b: Cell, cells: Sequence[Cell], score: str) -> bool | None:
    """What the tests of the column say of two cells; two columns' cells are a column of their own."""
    same = a.key.column == b.key.column
    peers = [c for c in cells if c.key.column == a.key.column] if same else [a, b]
    tests = Column([Member(c.results(score), c.whole) for c in peers])
    return tests.differ(*(next(i for i, c in enumerate(peers) if c.key == x.key) for x in (a, b)))


def _both(a: str, b: str) -> str:
    return a if a == b else f"{a or 'none'} − {b or 'none'}"


def _unknown_score(score: str, known: set[str]) -> UsageError:
    hint = "ddbench leaderboard --format csv shows every score; ddbench run --metric NAME adds one"
    return unknown_name("score", score, known, where="--score", hint=hint)


def table_p(pairs: Sequence[Pair]) -> list[float]:
    """p values of pairs that are shown together, with Holm's correction over them; NaN where there is none."""
    return holm([math.nan if p.p is None or p.seeds < MIN_SHARED else p.p for p in pairs])


def summarise(pairs: Sequence[Pair]) -> list[Summary]:
    """One summary for each dataset and protocol."""
    groups: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    for pair in pairs:
        groups[pair.dataset, pair.protocol].append(pair)
    out = []
    for (dataset, protocol), members in sorted(groups.items()):
        verdicts = [p.verdict for p in members]
        over = mean_difference([p.results for p in members])
        out.append(
            Summary(
                dataset,
                protocol,
                len(members),
                verdicts.count("better"),
                len(verdicts) - verdicts.count("better") - verdicts.count("worse"),
                verdicts.count("worse"),
                over.mean if over.seeds else math.fsum(p.difference for p in members) / len(members),
                number(over.half),
                over.seeds,
                number(over.p),
            )
        )
    return out
