"""Small drawings of differences on one scale: a mark each, an interval, a line at 0. They work without scripts."""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import dataclass

HEIGHT = 22  # of a strip, in its own units


@dataclass(frozen=True)
class Scale:
    """What a strip shows: points from ``low`` to ``high``; what lies below becomes a bar at the left edge."""

    low: float
    high: float
    width: int = 160

    def x(self, points: float) -> float:
        """The place of a difference."""
        share = (min(max(points, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.width * (0.03 + 0.94 * share), 1)


@dataclass(frozen=True)
class Mark:
    """One difference in points: ``kind`` is ``best``, ``equal`` or ``below``; ``half`` draws its interval."""

    points: float
    half: float | None
    kind: str
    title: str


def reach(ends: Iterable[float]) -> float:
    """How far a scale goes from 0 so that the upper ends of intervals fit: 5 to 30 points."""
    return max(5.0, min(30.0, max(ends, default=0.0)))


def strip(marks: Iterable[Mark], scale: Scale, label: str) -> str:
    """The drawing; the first of ``marks`` lies on top."""
    y = HEIGHT // 2
    parts = [f'<line x1="{scale.x(0)}" x2="{scale.x(0)}" y1="0" y2="{HEIGHT}" class="level"/>']
    for mark in reversed(list(marks)):
        x, title = scale.x(mark.points), f"<title>{html.escape(mark.title)}</title>"
        if mark.points < scale.low:
            parts.append(f'<path d="M{x} {y - 5}v10" class="below">{title}</path>')
            continue
        if mark.half is not None:
            ends = scale.x(mark.points - mark.half), scale.x(mark.points + mark.half)
            parts.append(f'<line x1="{ends[0]}" x2="{ends[1]}" y1="{y}" y2="{y}" class="{mark.kind}"/>')
        if mark.kind == "best":
            parts.append(f'<path d="M{x} {y - 6}l6 6-6 6-6-6z" class="best">{title}</path>')
        else:
            parts.append(f'<circle cx="{x}" cy="{y}" r="4" class="{mark.kind}">{title}</circle>')
    size = f'viewBox="0 0 {scale.width} {HEIGHT}"'
    return f'<svg class="strip" {size} role="img" aria-label="{html.escape(label)}">{"".join(parts)}</svg>'
