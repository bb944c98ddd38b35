"""Which methods of a column are its best: the one set of tests behind boards, ``compare`` and the report.

A column is what may be compared: one dataset, protocol, teacher, student and IPC. Its best is the whole result with the
highest mean. Every other is tested against it, paired by seed (and by test image where records hold them), with Holm's
correction for the number of methods (`statistics.comparisons_with_best`). The best
and all whose difference from it is not significant form the top set.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from benchmark.results.statistics import (
    MIN_SHARED,
    Estimate,
    Results,
    comparisons_with_best,
    difference,
    holm,
    mean_std,
)

ALPHA = 0.05
TOP, BELOW, UNKNOWN = "top", "below", "?"


class Member(NamedTuple):
    """One method of a column; ``whole``: no seed of it failed or was refused."""

    results: Results
    whole: bool = True


class Column:
    """The tests of one column, made when they are asked for."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = members
        self.best = _best(members)
        self._against_best: dict[int, float] | None = None
        self._all: dict[tuple[int, int], float] | None = None

    def standing(self, i: int) -> str:
        """``top`` (the best, or not significantly different from it), ``below``, or ``?`` (too little is known).

        ``?``: fewer than three seeds are shared with the best, or seeds failed, so that the mean is the survivors'.
        """
        if self.best is None or not self.members[i].results.scores:
            return UNKNOWN if self.members[i].results.scores else ""
        if i == self.best:
            return TOP
        p = self.against_best().get(i, math.nan)
        if not math.isnan(p) and p < ALPHA:
            return BELOW
        return UNKNOWN if math.isnan(p) or not self.members[i].whole else TOP

    def against_best(self) -> dict[int, float]:
        """Adjusted p values of "no worse than the best", by place; those that cannot be tested are left out."""
        if self._against_best is None:
            self._against_best = self._step_down() if self.best is not None else {}
        return self._against_best

    def _step_down(self) -> dict[int, float]:
        found = []
        for i, member in enumerate(self.members):
            if i != self.best and member.results.scores:
                d = difference(self.members[self.best].results, member.results)
                if d.seeds >= MIN_SHARED:
                    found.append((d.p if d.mean > 0 else 1.0, d.freedom, i))
        adjusted, running = {}, 0.0
        for place, (p, freedom, i) in enumerate(sorted(found)):
            running = max(running, min(1.0, p * comparisons_with_best(len(found) + 1 - place, freedom)))
            adjusted[i] = running
        return adjusted

    def differ(self, i: int, j: int) -> bool | None:
        """Whether the tests tell two members apart; None where they share fewer than three seeds.

        With the best of the column as the board does, any other pair with Holm's correction over all pairs.
        """
        if difference(self.members[i].results, self.members[j].results).seeds < MIN_SHARED:
            return None
        if self.best in (i, j):
            return self.standing(j if i == self.best else i) == BELOW
        if self._all is None:
            self._all = self._pairs()
        return self._all[min(i, j), max(i, j)] < ALPHA

    def _pairs(self) -> dict[tuple[int, int], float]:
        places = [(i, j) for j in range(len(self.members)) for i in range(j)]
        found = [difference(self.members[i].results, self.members[j].results) for i, j in places]
        return dict(zip(places, holm([d.p if d.seeds >= MIN_SHARED else math.nan for d in found])))


def _best(members: Sequence[Member]) -> int | None:
    """The highest mean of the members that are whole and have seeds enough to be tested."""
    found = []
    for i, m in enumerate(members):
        if m.whole and len(m.results.scores) >= MIN_SHARED:
            mean, std = mean_std(list(m.results.scores.values()))
            found.append(
                (mean, -std, sorted(m.results.scores.items()), i)
            )  # of equal means whatever the members' order
    return max(found)[-1] if len(found) > 1 else None


def verdict(d: Estimate, differ: bool | None) -> str:
    """Of a difference: ``better``, ``worse``, ``undecided``, or ``?`` where too few seeds are shared."""
    if differ is None:
        return UNKNOWN
    return ("better" if d.mean > 0 else "worse") if differ else "undecided"
