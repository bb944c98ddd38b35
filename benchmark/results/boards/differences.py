"""Comparisons as sheets, CSV, JSON and a forest plot. A comparison is the list of pairs of two selectors."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from benchmark.core.errors import UsageError
from benchmark.core.escape import csv_cell
from benchmark.core.outputs import whole_file
from benchmark.core.sheet import FORMATS, Sheet, Text, choose, simple
from benchmark.core.sheet import render as write
from benchmark.results.boards.compare import Pair, Summary, summarise, table_p
from benchmark.results.boards.standing import ALPHA
from benchmark.results.boards.terminal import MISSING, interval
from benchmark.results.statistics import MIN_SHARED, holm

__all__ = ["FORMATS", "cells", "markdown", "names", "overview", "plot", "render"]

PLOTS = (".svg", ".png", ".pdf")
LEGEND = (
    "Points of top-1, paired by seed ({seeds} of them), mean ± 95 % t interval over {over}. Bold where Holm's "
    "correction over the {cells} cells of this table leaves a difference (p < 0.05), † where the tests of the column's "
    "board tell the two apart. All cells: each seed's mean over the line's cells, which share distilled sets and are "
    "one experiment."
)
COLOURS = {"better": "#1a7f37", "worse": "#c0392b", "undecided": "#777777", "?": "#777777"}


def render(found: Sequence[Sequence[Pair]], form: str, columns: Sequence[str] = ()) -> str:
    """Comparisons in one of `FORMATS`; ``columns``: only these, of tables."""
    if form in ("csv", "json"):
        return {"csv": csv_text, "json": json_text}[form](found)
    made = cells(found) if form == "table" else overview(found)
    choose(made, columns)
    return write(made, form, "ddbench compare")


def names(found: Sequence[Sequence[Pair]]) -> tuple[str, list[str]]:
    """What is subtracted from what in all comparisons, and a short name of each."""
    first, second = ([getattr(pairs[0], side) for pairs in found] for side in ("first", "second"))
    if len(found) == 1:
        return f"{first[0]} − {second[0]}", [f"{first[0]} − {second[0]}"]
    if len(set(first)) == 1:
        return f"{first[0]} − …", [f"− {text}" for text in second]
    return "each method", [text.partition(":")[0] for text in first]


def teachers(pairs: Sequence[Pair]) -> list[str]:
    """Each pair's teacher, with its key where several have one name; nothing where its table has but one teacher."""
    tables: dict[tuple[str, str], set[tuple[str, str]]] = defaultdict(set)
    for p in pairs:
        if p.teacher:
            tables[p.dataset, p.protocol].add((p.teacher, p.teacher_key))
    out = []
    for p in pairs:
        found = tables[p.dataset, p.protocol]
        several = sum(name == p.teacher for name, _ in found) > 1
        out.append("" if len(found) < 2 else f"{p.teacher} {p.teacher_key[:6]}" if several else p.teacher)
    return out


def cells(found: Sequence[Sequence[Pair]]) -> list[Sheet]:
    """A sheet a comparison, a line a cell, then wins over cells; for a terminal."""
    made = []
    for pairs in found:
        taught = teachers(pairs)
        first, second = pairs[0].first, pairs[0].second
        lines = [
            [p.dataset, p.protocol, teacher, p.student, p.ipc, f"{p.a:.1f}", f"{p.b:.1f}"]
            + [interval(p.difference, p.half, signed=True), p.seeds, p.verdict, p.note]
            for p, teacher in zip(pairs, taught)
        ]
        headers = ["dataset", "protocol", "teacher", "student", "IPC", first, second]
        headers += ["difference", "seeds", "verdict", "note"]
        s = simple("", headers, lines, "llllrrrrrll")
        s.legend = "difference: paired by seed, ± 95 % t interval; better or worse by the tests of the column's board\n"
        s.keep([j for j in range(len(headers)) if headers[j] not in ("teacher", "note") or any(x[j] for x in lines)])
        for over in summarise(pairs):
            s.notes.append(
                f"{over.dataset}, {over.protocol}: {first} wins {over.wins}, ties {over.ties}, loses {over.losses} of "
                f"{over.cells} cells; mean over cells {interval(over.mean_difference, over.half, signed=True)}"
                + ("" if over.p is None else f" over {over.seeds} seeds (p = {over.p:.2g})")
            )
        made.append(s)
    return made


def markdown(found: Sequence[Sequence[Pair]]) -> str:
    """`overview` as Markdown."""
    return write(overview(found), "markdown")


def overview(found: Sequence[Sequence[Pair]]) -> list[Sheet]:
    """A sheet for each dataset and protocol: a line a comparison, a column a student and IPC."""
    what, lines = names(found)
    tables: dict[tuple, dict[tuple, dict[int, Pair]]] = defaultdict(lambda: defaultdict(dict))
    for number, pair, teacher in _each(found):
        tables[pair.dataset, pair.protocol][pair.student, teacher, pair.ipc][number] = pair
    made = []
    for (dataset, protocol), columns in sorted(tables.items()):
        groups = [" ".join(filter(None, (student, teacher))) for student, teacher, _ in sorted(columns)]
        heads = [f"IPC {ipc} {group}" for (*_, ipc), group in zip(sorted(columns), groups)]
        s = Sheet(f"{dataset}, protocol {protocol}: {what}", ["", *heads, "all cells"], "l" + "r" * (len(heads) + 1))
        s.groups = ["", *groups, ""]
        shown = [pair for cells in columns.values() for pair in cells.values()]
        held = {id(pair): p < ALPHA for pair, p in zip(shown, table_p(shown))}
        numbers = sorted({n for cells in columns.values() for n in cells})
        mine = {n: [columns[column].get(n) for column in sorted(columns)] for n in numbers}
        over = {n: summarise([pair for pair in cells if pair])[0] for n, cells in mine.items()}
        told = dict(zip(numbers, holm([_p(over[n]) for n in numbers])))
        for n in numbers:
            total = interval(over[n].mean_difference, over[n].half, signed=True)
            s.lines.append(
                [
                    Text(lines[n]),
                    *(_cell(pair, held) for pair in mine[n]),
                    Text(total, "top" * bool(told[n] < ALPHA)),
                ]
            )
        over_what = "seeds and test images" if all(pair.images for pair in shown) else "seeds"
        s.legend = LEGEND.format(seeds=_seeds(shown), over=over_what, cells=len(shown))
        made.append(s)
    return made


def _each(found: Sequence[Sequence[Pair]]) -> list[tuple[int, Pair, str]]:
    """(number of the comparison, pair, teacher to be named) of every pair."""
    numbered = [(number, pair) for number, pairs in enumerate(found) for pair in pairs]
    return [(*item, teacher) for item, teacher in zip(numbered, teachers([pair for _, pair in numbered]))]


def _seeds(pairs: Iterable[Pair]) -> str:
    counts = sorted({pair.seeds for pair in pairs})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def _p(summary: Summary) -> float:
    return math.nan if summary.p is None or summary.seeds < MIN_SHARED else summary.p


def _cell(pair: Pair | None, held: dict[int, bool]) -> Text:
    if pair is None:
        return Text(MISSING)
    text = interval(pair.difference, pair.half, signed=True)
    text += {"undecided": "", "?": " ?"}.get(pair.verdict, " †")
    return Text(text, "top" * held[id(pair)])


def csv_text(found: Sequence[Sequence[Pair]]) -> str:
    """A line a pair."""
    text = io.StringIO()
    documents = [_document(pair) for pairs in found for pair in pairs]
    writer = csv.DictWriter(text, list(documents[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: csv_cell(value) for name, value in document.items()} for document in documents)
    return text.getvalue()


def _document(pair: Pair) -> dict[str, Any]:
    return {f.name: getattr(pair, f.name) for f in fields(pair) if f.name != "results"}


def json_text(found: Sequence[Sequence[Pair]]) -> str:
    """All pairs, then a summary for each comparison, dataset and protocol."""
    sides = [{"first": pairs[0].first, "second": pairs[0].second} for pairs in found]
    summaries = [side | asdict(s) for side, pairs in zip(sides, found) for s in summarise(pairs)]
    document = {"pairs": [_document(pair) for pairs in found for pair in pairs], "summary": summaries}
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def plot(found: Sequence[Sequence[Pair]], path: Path) -> None:
    """A forest plot: a panel a comparison, a line a cell, the difference with its interval, 0 marked.

    Raises:
        UsageError: a suffix that is not one of `PLOTS`, or a path that cannot be written.
    """
    if path.suffix.lower() not in PLOTS:
        raise UsageError(f"cannot draw to {path.name}", where="--plot", allowed=", ".join(f"NAME{s}" for s in PLOTS))
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "ddbench"  # the same bytes every time
    import matplotlib.pyplot as plt

    places: dict[tuple, int] = {}
    for key in sorted((p.dataset, p.protocol, teacher, p.student, p.ipc) for _, p, teacher in _each(found)):
        places.setdefault(key, -len(places))
    size = (4.2 + 2.2 * len(found), 1.3 + 0.26 * len(places))
    figure, panels = plt.subplots(
        1, len(found), figsize=size, layout="constrained", sharex=True, sharey=True, squeeze=False
    )
    for number, pair, teacher in _each(found):
        place = places[pair.dataset, pair.protocol, teacher, pair.student, pair.ipc]
        style = {"ms": 4, "capsize": 2, "color": COLOURS[pair.verdict]}
        panels[0][number].errorbar(pair.difference, place, xerr=pair.half or 0, fmt="o", **style)
    what, titles = names(found)
    for axes, title in zip(panels[0], titles):
        axes.set_title(title if len(found) > 1 else "", fontsize=9)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.tick_params(axis="y", length=0)
    texts = [", ".join(filter(None, (*words, f"IPC {ipc}"))) for *words, ipc in places]
    panels[0][0].set_ylim(-len(places) + 0.4, 0.6)
    panels[0][0].set_yticks(list(places.values()), texts, fontsize=8)
    seeds = _seeds(pair for pairs in found for pair in pairs)
    figure.supxlabel(f"{what}, points of top-1 (95 % interval, paired by seed, {seeds} of them)", fontsize=9)
    try:
        with whole_file(path, "--plot") as temporary:
            figure.savefig(temporary, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)
    finally:
        plt.close(figure)
