"""The scores of :mod:`benchmark.results.boards.robust_scores` for every distilled set whose records allow them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from benchmark.core.errors import UsageError
from benchmark.results.boards.cells import BASELINE, Cell, Key, baseline_of, number
from benchmark.results.boards.robust_scores import (
    augmentation_robust_score,
    gain_over_random,
    label_gap,
    label_robust_score,
)
from benchmark.results.statistics import mean_interval

Value = tuple[float, float | None] | None  # mean over seeds and half width of its 95 % t interval; None: unknown


@dataclass(frozen=True)
class Row:
    """One method's scores with one student; all fractions but ``full`` (percent).

    Attributes:
        full: accuracy of training on all the real data with hard labels, or None where nobody knows it.
        gap: how far hard-label training on the set stays below ``full`` (HLR, smaller is better).
        gain: gain over random real images under the same soft labels (IOR).
        label, augmentation: LRS and ARS, in 0..1.
        missing: what would have to be run for the scores that are None.
    """

    dataset: str
    student: str
    ipc: int
    method: str
    params: str
    teacher: str
    seeds: int
    full: float | None
    gap: Value
    gain: Value
    label: Value
    augmentation: Value
    missing: str


def robust_rows(cells: Iterable[Cell], hard: str, soft: str, plain: str, full: float | None = None) -> list[Row]:
    """One row a cell of the protocol ``soft``; each score over the seeds that all its ingredients share.

    Args:
        cells: of one results folder.
        hard, soft, plain: protocols: class labels; a teacher's labels; the same as ``soft`` without augmentation.
        full: accuracy in percent of a student trained on all the data. Without it the teacher's accuracy serves where
            teacher and student are the same architecture (it was trained on all the data with hard labels).

    Of several versions of a protocol the highest counts.

    Raises:
        UsageError: ``full`` is given, and there are several datasets or students.
    """
    cells = [c for c in cells if any(s.status == "ok" for s in c.samples)]
    newest = _newest(cells)
    wanted = [cell for cell in newest if cell.key.protocol == soft]
    pairs = sorted({f"{cell.key.student} on {cell.key.dataset}" for cell in wanted})
    if full is not None and len(pairs) > 1:
        raise UsageError(
            f"one accuracy cannot hold for {len(pairs)} pairs of student and dataset",
            where=f"--full {full:g}",
            allowed=f"one of {', '.join(pairs)}",
            hint="choose it with --dataset and --student",
        )
    return [_row(cell, cells, newest, hard, plain, full) for cell in wanted]


def _newest(cells: list[Cell]) -> list[Cell]:
    """Of cells that differ in the protocol's version alone the one of the highest."""
    best: dict[Key, Cell] = {}
    for cell in sorted(cells, key=_version):
        best[cell.key._replace(protocol_version="", protocol_digest="")] = cell
    return [best[key] for key in sorted(best)]


def _version(cell: Cell) -> tuple[int, str]:
    text = cell.key.protocol_version
    return int(text) if text.isdecimal() else 0, text


def _row(cell: Cell, cells: list[Cell], newest: list[Cell], hard: str, plain: str, full: float | None) -> Row:
    key = cell.key
    if full is None and key.teacher == key.student:
        full = next((s.teacher_accuracy for s in cell.samples if s.teacher_accuracy is not None), None)
    floor = _floor(cell, cells)
    with_classes = _same_set(cell, newest, hard, teacher="")
    unchanged = _same_set(cell, newest, plain, teacher=key.teacher_key)
    missing = [f"{BASELINE} under {key.protocol}"] * (floor is None)
    missing += [f"protocol {hard}"] * (with_classes is None) + ["--full"] * (full is None)
    plain_floor = _floor(unchanged, cells) if unchanged else None
    if unchanged is None:
        missing.append(f"protocol {plain}")
    elif plain_floor is None:
        missing.append(f"{BASELINE} under {plain}")
    return Row(
        key.dataset,
        key.student,
        key.ipc,
        key.method,
        key.params,
        key.teacher,
        len(cell.by_seed()),
        full,
        _over_seeds(lambda h: label_gap(h, full), with_classes) if full is not None else None,
        _over_seeds(gain_over_random, cell, floor),
        _over_seeds(lambda h, s, r: label_robust_score(h, full, s, r), with_classes, cell, floor)
        if full is not None
        else None,
        _over_seeds(augmentation_robust_score, cell, floor, unchanged, plain_floor),
        ", ".join(missing),
    )


def _same_set(cell: Cell, cells: list[Cell], protocol: str, teacher: str) -> Cell | None:
    """The cell of the same sets and student under another protocol; of several teachers the wanted one's."""
    wanted = cell.key._replace(
        protocol=protocol, protocol_version="", protocol_digest="", teacher="", teacher_key=teacher
    )
    for other in cells:
        if other.key._replace(protocol_version="", protocol_digest="", teacher="") == wanted:
            return other
    return None


def _floor(cell: Cell, cells: list[Cell]) -> Cell | None:
    """Random real images in the cell's column."""
    return baseline_of(cell, [c for c in cells if c.key.column == cell.key.column])


def _over_seeds(score, *cells: Cell | None) -> Value:
    """Mean and half interval of ``score(accuracy of each cell)`` over the seeds that all cells have."""
    if any(cell is None for cell in cells):
        return None
    accuracies = [cell.by_seed() for cell in cells]
    shared = sorted(set.intersection(*(set(a) for a in accuracies)))
    if not shared:
        return None
    mean, half = mean_interval([score(*(a[seed] for a in accuracies)) for seed in shared])
    return mean, number(half)
