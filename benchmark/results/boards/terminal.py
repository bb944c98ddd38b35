"""The table that ends ``ddbench run``: one block a column of comparison, every number with its interval."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from benchmark.core.sheet import plain, simple
from benchmark.results.boards.boards import labels
from benchmark.results.boards.cells import Cell, collect, number, rows_of
from benchmark.results.boards.columns import FLAGS
from benchmark.results.boards.standing import Column, Member, verdict
from benchmark.results.statistics import difference

MISSING = "–"


def table(records: Iterable[dict], *, focus: Sequence[str] = (), beside: Iterable[dict] = ()) -> str:
    """Text tables of the records, best first: top-1 ± 95 % interval, gain over random, seconds, bytes, flags.

    Args:
        beside: all records of the results folder: where ``records`` (those of one run) hold no random real images,
            gains are measured against these.
        focus: method names; for each a column "NAME − this" holds the difference paired by seed, and what the tests
            of the column say of it.
    """
    cells = collect(records)
    blocks: dict[tuple, list[tuple[Cell, dict]]] = defaultdict(list)
    for cell, row in zip(cells, rows_of(cells, collect(beside))):
        blocks[cell.key.column].append((cell, row))
    return "\n\n".join(_block(members, focus) for members in blocks.values())


def _block(members: list[tuple[Cell, dict]], focus: Sequence[str]) -> str:
    names = labels([row for _, row in members])
    order = sorted(
        range(len(members)),
        key=lambda i: (
            members[i][1]["top1_last"] is None,
            members[i][1]["failed"] > 0,
            -(members[i][1]["top1_last"] or 0),
        ),
    )
    stars = [
        max((c for c, _ in members if c.key.method == name), key=lambda c: len(c.by_seed()), default=None)
        for name in focus
    ]
    stars = [star for star in stars if star is not None and star.by_seed()]
    cells = [cell for cell, _ in members]
    tests = Column([Member(cell.results(), cell.whole) for cell in cells])
    lines, used = [], set()
    for i in order:
        cell, row = members[i]
        used |= set(row["flags"].split())
        lines.append(
            [
                names[i],
                interval(row["top1_last"], row["top1_last_half"]) if row["seeds"] else _failure(row),
                f"{row['seeds']} ({row['failed']} failed)" if row["failed"] and row["seeds"] else row["seeds"],
                interval(row["gain_over_random"], row["gain_half"], signed=True),
                *(_versus(tests, cells, star, cell) for star in stars),
                seconds(row["distill_seconds"]),
                seconds(row["train_seconds"]),
                size(row["image_bytes"]),
                size(row["label_bytes"]),
                row["flags"],
            ]
        )
    headers = ["method", "top-1 %", "seeds", "gain over random"]
    headers += [f"{names[[c for c, _ in members].index(star)]} − this" for star in stars]
    headers += ["distil", "train", "images", "labels", "flags"]
    key = members[0][0].key
    title = f"{key.dataset}, IPC {key.ipc}, {key.student}, protocol {key.protocol} v{key.protocol_version}"
    title += f", teacher {key.teacher}" if key.teacher else ""
    sheet = simple(title, headers, lines, "l" + "r" * (len(headers) - 2) + "l")
    sheet.keep([j for j in range(len(headers)) if j < 2 or any(line[j] not in ("", MISSING) for line in lines)])
    sheet.legend = (
        "± is the 95 % t interval over seeds; differences are paired by seed, better or worse by the column's tests "
        "with Holm's correction; accuracy after the last epoch."
    )
    sheet.notes = [f"{flag}: {FLAGS[flag]}" for flag in sorted(used) if flag in FLAGS]
    sheet.notes += sorted({f"{names[i]}: {members[i][1]['reason']}" for i in order if members[i][1]["reason"]})
    return plain([sheet]).rstrip("\n")


def _failure(row: dict) -> str:
    return "failed" if row["failed"] else "skipped"


def _versus(tests: Column, cells: Sequence[Cell], star: Cell, cell: Cell) -> str:
    if star is cell:
        return MISSING
    d = difference(star.results(), cell.results())
    if not d.seeds:
        return MISSING
    told = verdict(d, tests.differ(_at(cells, star), _at(cells, cell)))
    return f"{interval(d.mean, number(d.half), signed=True)} {told}"


def _at(cells: Sequence[Cell], wanted: Cell) -> int:
    return next(i for i, cell in enumerate(cells) if cell is wanted)


def interval(mean: float | None, half: float | None, *, signed: bool = False) -> str:
    """``86.5 ± 1.0``; without an interval the mean alone; a dash for nothing."""
    if mean is None:
        return MISSING
    text = f"{mean:+.1f}" if signed else f"{mean:.1f}"
    return text if half is None else f"{text} ± {half:.1f}"


def seconds(value: float | None) -> str:
    """``12 s``, ``3.4 min``, ``2.1 h``."""
    if value is None:
        return MISSING
    for unit, length in (("h", 3600), ("min", 60)):
        if value >= 2 * length:
            return f"{value / length:.1f} {unit}"
    return f"{value:.1f} s"


def size(value: float | None) -> str:
    """Bytes in decimal units: ``2.0 kB``."""
    if value is None:
        return MISSING
    for unit, length in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= length:
            return f"{value / length:.1f} {unit}"
    return f"{value:.0f} B"
