"""Two methods side by side: paired by seed inside a cell, counted over cells, never over protocols."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.errors import MissingError, UsageError, unknown_name
from benchmark.leaderboard.boards import labels
from benchmark.leaderboard.cells import Cell, rows_of
from benchmark.leaderboard.terminal import verdict
from benchmark.metrics.statistics import mean_interval, paired_difference
from benchmark.outputs import whole_file
from benchmark.records.remake import split_commas

PLOTS = (".svg", ".png", ".pdf")
BEGINNINGS = ("backbone_key", "inputs", "set")  # what a selector may name by its beginning
BESIDES = ("backbone", "precision", "method_version", *BEGINNINGS)  # and what all it may name besides parameters


@dataclass(frozen=True)
class Pair:
    """One cell of the comparison; numbers are percent and points, ``half`` None for a single shared seed."""

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
    verdict: str  # of a against b: better, worse, undecided
    note: str = ""


@dataclass(frozen=True)
class Summary:
    """Over the cells of one dataset and protocol: wins and losses are intervals beyond 0, ties the rest.

    ``positive`` counts cells with a difference above 0 and ``p`` is the two-sided sign test over cells (equal cells
    left out). Cells share data, so ``p`` is a description, not a proof.
    """

    dataset: str
    protocol: str
    cells: int
    wins: int
    ties: int
    losses: int
    positive: int
    mean_difference: float
    p: float


def parse_selector(text: str) -> tuple[str, dict[str, Any]]:
    """``d3hr`` or ``d3hr:depth=30,backbone=tiny`` as (method, wanted values); what is no parameter stays text."""
    import yaml

    method, _, rest = text.partition(":")
    wanted = {}
    for part in split_commas(rest):
        key, equals, value = (word.strip() for word in part.partition("="))
        if not equals:
            raise UsageError(f"{part!r} is not KEY=VALUE", where=text, hint="e.g. d3hr:depth=30,backbone=tiny")
        try:
            wanted[key] = value if key in BESIDES else yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UsageError(f"cannot read {value!r}", where=text, hint="e.g. d3hr:depth=30,backbone=tiny") from error
    return method, wanted


def choose(cells: Sequence[Cell], text: str) -> dict[tuple, Cell]:
    """The cell that a selector means in each column of comparison.

    Raises:
        UsageError: unknown method or parameter (nearest named), or several variants in one column.
        MissingError: no cell with these values.
    """
    method, wanted = parse_selector(text)
    mine = [c for c in cells if c.key.method == method]
    if not mine:
        raise unknown_name("method", method, {c.key.method for c in cells}, where="the records")
    known = {k for c in mine for k in json.loads(c.key.params)} | set(BESIDES)
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
        columns[cell.key.column].append(cell)
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


def _variants(cells: list[Cell]) -> list[str]:
    return labels(rows_of(cells))


def _fits(cell: Cell, name: str, wanted: Any) -> bool:
    """Whether a parameter is ``wanted``, or a key or one of the inputs begins so; no text means none."""
    if name in BEGINNINGS:
        value = getattr(cell.key, name)
        return any(v.startswith(wanted) for v in (value, *value.split(", "))) if wanted else not value
    value = getattr(cell.key, name) if name in BESIDES else json.loads(cell.key.params).get(name)
    return value == wanted or str(value) == str(wanted)


def compare(cells: Sequence[Cell], first: str, second: str, score: str = "top1_last") -> list[Pair]:
    """``first`` minus ``second`` in every cell that both have with a shared seed.

    Raises:
        UsageError: ``score`` is in no record of the two.
        MissingError: there is no such cell.
    """
    a, b = choose(cells, first), choose(cells, second)
    names = {name for cell in (*a.values(), *b.values()) for sample in cell.samples for name in sample.scores}
    if names and score not in names:
        raise _unknown_score(score, names)
    pairs = []
    for column in sorted(set(a) & set(b)):
        ours, theirs = a[column].by_seed(score), b[column].by_seed(score)
        mean, half, n = paired_difference(ours, theirs)
        if not n:
            continue
        known = None if math.isnan(half) else half
        shared = sorted(set(ours) & set(theirs))
        key, other = a[column].key, b[column].key
        notes = [
            f"{name}: {getattr(key, name)} against {getattr(other, name)}"
            for name in ("inputs", "backbone", "backbone_key", "precision")
            if getattr(key, name) and getattr(other, name) and getattr(key, name) != getattr(other, name)
        ]
        pairs.append(
            Pair(
                key.dataset,
                f"{key.protocol} v{key.protocol_version}",
                key.teacher,
                key.teacher_key,
                key.student,
                key.ipc,
                mean_interval([ours[s] for s in shared])[0],
                mean_interval([theirs[s] for s in shared])[0],
                mean,
                known,
                n,
                verdict(mean, known),
                "; ".join(notes),
            )
        )
    if not pairs:
        raise MissingError(
            f"no cell holds both {first} and {second} with a shared seed",
            allowed="same dataset, protocol, teacher, student and IPC for both",
            hint=f"ddbench run --method {first.partition(':')[0]},{second.partition(':')[0]} …",
        )
    return pairs


def _unknown_score(score: str, known: set[str]) -> UsageError:
    hint = "ddbench leaderboard --format csv shows every score; ddbench run --metric NAME adds one"
    return unknown_name("score", score, known, where="--score", hint=hint)


def summarise(pairs: Sequence[Pair]) -> list[Summary]:
    """One summary for each dataset and protocol."""
    from scipy.stats import binomtest

    groups: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    for pair in pairs:
        groups[pair.dataset, pair.protocol].append(pair)
    out = []
    for (dataset, protocol), members in sorted(groups.items()):
        verdicts = [p.verdict for p in members]
        positive, negative = (sum(s * p.difference > 0 for p in members) for s in (1, -1))
        out.append(
            Summary(
                dataset,
                protocol,
                len(members),
                verdicts.count("better"),
                verdicts.count("undecided"),
                verdicts.count("worse"),
                positive,
                math.fsum(p.difference for p in members) / len(members),
                float(binomtest(positive, positive + negative).pvalue) if positive + negative else 1.0,
            )
        )
    return out


def teachers(pairs: Sequence[Pair]) -> list[str]:
    """Each pair's teacher, with its key where several have one name; nothing where there is but one teacher."""
    found = {(p.teacher, p.teacher_key) for p in pairs if p.teacher}
    names = Counter(name for name, _ in found)
    if len(found) < 2:
        return [""] * len(pairs)
    return [f"{p.teacher} {p.teacher_key[:6]}" if names[p.teacher] > 1 else p.teacher for p in pairs]


def plot(pairs: Sequence[Pair], first: str, second: str, path: Path) -> None:
    """A forest plot: one line a cell, the difference with its interval, 0 marked. SVG, PNG or PDF by suffix.

    Raises:
        UsageError: another suffix, or a path that cannot be written.
    """
    if path.suffix.lower() not in PLOTS:
        raise UsageError(f"cannot draw to {path.name}", where="--plot", allowed=", ".join(f"NAME{s}" for s in PLOTS))
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    colours = {"better": "#1a7f37", "worse": "#c0392b", "undecided": "#777777"}
    figure, axes = plt.subplots(figsize=(7, 1.2 + 0.32 * len(pairs)), layout="constrained")
    for y, pair in enumerate(reversed(pairs)):
        axes.errorbar(pair.difference, y, xerr=pair.half or 0, fmt="o", capsize=3, color=colours[pair.verdict])
    names = [
        ", ".join(filter(None, (p.dataset, p.protocol, teacher, p.student, f"IPC {p.ipc} ({p.seeds})")))
        for p, teacher in zip(pairs, teachers(pairs))
    ]
    axes.set_yticks(range(len(pairs)), names[::-1])
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel(f"{first} − {second}, points of top-1 (95 % interval, paired; seeds in brackets)")
    try:
        with whole_file(path, "--plot") as temporary:
            figure.savefig(temporary, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)
    finally:
        plt.close(figure)
