"""What a reader asks first: which method to use in each setting, by how much it beats random real images, at what cost.

A setting is a column of a board: one dataset, protocol, teacher, student and IPC. The answer is its best whole result
by `standing.Column`; what the tests of the column say is said with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmark.results.boards import standing
from benchmark.results.boards.boards import Board, Column
from benchmark.results.boards.cells import BASELINE, MEMBER
from benchmark.results.boards.terminal import interval, seconds

BETTER, UNDECIDED, FLOOR, UNKNOWN = "better", "undecided", "floor", "?"


@dataclass(frozen=True)
class Line:
    """One method of a setting; ``gain`` and ``half`` in points, None where random real images share no seed."""

    label: str
    method: str
    standing: str
    row: dict[str, Any]

    @property
    def gain(self) -> float | None:
        """Gain over random real images; 0 for these themselves."""
        return 0.0 if self.method == BASELINE else self.row["gain_over_random"]

    @property
    def half(self) -> float | None:
        """Half of its 95 % interval."""
        return None if self.method == BASELINE else self.row["gain_half"]


@dataclass(frozen=True)
class Answer:
    """A setting with its methods, best first.

    Attributes:
        lines: ``lines[0]`` is the answer.
        against_random: what the tests say of it against random real images: ``better``, ``undecided``, ``?`` (too
            little is known: fewer than three shared seeds, failures, no random real images); ``floor``: these are the
            best.
    """

    board: Board
    column: Column
    lines: list[Line]
    against_random: str

    @property
    def setting(self) -> str:
        """``digits, hard, IPC 1``, with student and teacher where the board has several."""
        return f"{self.board.dataset}, {self.board.protocol}, {self.board.heading(self.column)}"

    @property
    def equals(self) -> list[str]:
        """The other members of the top set."""
        return [line.label for line in self.lines[1:] if line.standing == standing.TOP]


def answers(made: Sequence[Board]) -> list[Answer]:
    """The settings of boards in which at least two methods have a result, by dataset, IPC and protocol."""
    found = [answer for board in made for column in board.columns if (answer := _answer(board, column))]
    return sorted(found, key=lambda a: (a.board.dataset, a.column.ipc, a.board.protocol, a.column))


def _answer(board: Board, column: Column) -> Answer | None:
    entries = [(e, e.rows[column]) for e in board.entries if column in e.rows]
    entries = [(e, row) for e, row in entries if row["top1_last"] is not None]
    if len(entries) < 2:
        return None
    tests = standing.Column([row[MEMBER] for _, row in entries])
    lines = [Line(e.label, e.method, tests.standing(i), row) for i, (e, row) in enumerate(entries)]
    best = tests.best if tests.best is not None else max(range(len(lines)), key=lambda i: lines[i].row["top1_last"])
    floor = next((i for i, line in enumerate(lines) if line.method == BASELINE), None)
    order = sorted(range(len(lines)), key=lambda i: (i != best, -lines[i].row["top1_last"], lines[i].label))
    if floor == best:
        against_random = FLOOR
    else:
        differ = None if floor is None or tests.best is None else tests.differ(best, floor)
        against_random = UNKNOWN if differ is None else BETTER if differ else UNDECIDED
    return Answer(board, column, [lines[i] for i in order], against_random)


def sentence(found: Sequence[Answer]) -> str:
    """Who wins over all settings, by how much over random real images, at what cost; empty without a setting."""
    if not found:
        return ""
    winners = Counter(a.lines[0].method for a in found)
    first = sorted(winners, key=lambda m: (-winners[m], m))[:3]
    parts = []
    for method in first:
        own = [a.lines[0] for a in found if a.lines[0].method == method]
        if method == BASELINE:
            parts.append(f"random real images in {len(own)}")
            continue
        gains = sorted(line.gain for line in own if line.gain is not None)
        costs = sorted(line.row["distill_seconds"] for line in own if line.row["distill_seconds"] is not None)
        facts = []
        if gains:
            span = interval(gains[-1], None, signed=True)
            span = f"{interval(gains[0], None, signed=True)} to {span}" if gains[0] != gains[-1] else span
            facts.append(f"{span} points over random real images")
        if costs:
            low, high = seconds(costs[0]), seconds(costs[-1])
            facts.append(f"{low} a set" if low == high else f"{low} to {high} a set")
        parts.append(f"{method} in {len(own)}" + (f" ({', '.join(facts)})" if facts else ""))
    rest = sum(winners.values()) - sum(winners[m] for m in first)
    parts += [f"another in {rest}"] if rest else []
    many = len(found)
    sure = sum(a.against_random == BETTER for a in found)
    sure_text = f"in {sure} of {many} the best method is significantly better than random real images"
    return f"Best of {many} setting{'s' * (many > 1)}: {', '.join(parts)}; {sure_text}."
