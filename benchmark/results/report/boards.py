"""Boards with their paired differences drawn beside the numbers, with intervals: from random real images, and from
the best of the column."""

from __future__ import annotations

import html
from collections.abc import Sequence

from benchmark.core.sheet import html_table
from benchmark.plugins import registry
from benchmark.plugins.infos import USES
from benchmark.results.boards import standing
from benchmark.results.boards.boards import Board, Column
from benchmark.results.boards.cells import BASELINE, MEMBER, number
from benchmark.results.boards.formats import sheet
from benchmark.results.boards.terminal import interval
from benchmark.results.report.parts import data
from benchmark.results.report.strip import Mark, Scale, reach, strip
from benchmark.results.statistics import difference

SEEN = 8  # lines of a board that are seen before the rest is unfolded


def board_section(made: Sequence[Board]) -> str:
    """All boards."""
    return "\n".join(_board(board) for board in made)


def _board(board: Board) -> str:
    s = sheet(board)
    beside = {}
    for column in board.columns:
        at = s.headers.index(board.heading(column))
        for line, text in _strips(board, column).items():
            beside[line, at] = text
    for i, entry in enumerate(board.entries):
        beside[i, 0] = f'<small class="uses">{uses(entry.method)}</small>'
    place = data(dataset=board.dataset, protocol=board.protocol)
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in s.notes)
    folded = f'<details class="soft"><summary>Notes</summary><ul>{notes}</ul></details>' if notes else ""
    hidden = [i for i, e in enumerate(board.entries) if i >= SEEN and e.method != BASELINE]
    unfold = f'<label class="unfold"><input type="checkbox"> all {len(board.entries)} methods</label>' if hidden else ""
    return (
        f'<div class="board" {place}><h3>{html.escape(s.title)}</h3>'
        f'<div class="scroll">{html_table(s, beside, set(hidden))}</div>{unfold}{folded}</div>'
    )


def uses(method: str) -> str:
    """What a method that is installed needs: ``images``, ``classifier``, ``backbone``; else nothing."""
    info = registry().items["method"].get(method)
    return info.uses if info and info.uses in USES else ""


def _strips(board: Board, column: Column) -> dict[int, str]:
    """For each line with a result in the column: the difference from random real images and from the best, drawn."""
    rows = {i: e.rows[column] for i, e in enumerate(board.entries) if column in e.rows}
    rows = {i: row for i, row in rows.items() if row["top1_last"] is not None}
    tests = standing.Column([row[MEMBER] for row in rows.values()])
    best = list(rows)[tests.best] if tests.best is not None else None
    gains = {i: _gain(board.entries[i].method, row) for i, row in rows.items()}
    far = reach(mean + (half or 0) for mean, half in gains.values() if mean is not None)
    out = {}
    for place, (i, row) in enumerate(rows.items()):
        label = board.entries[i].label
        equal = "equal" if tests.standing(place) == standing.TOP else "below"
        drawn = [_drawn("random", gains[i], Scale(-far, far), f"{label} − random", equal)]
        if best is not None:
            d = difference(row[MEMBER].results, rows[best][MEMBER].results)
            found = (0.0, None) if i == best else (d.mean if d.seeds else None, number(d.half) if d.seeds else None)
            title = f"{label} − {board.entries[best].label}"
            drawn.append(_drawn("best", found, Scale(-1.6 * far, 0.4 * far), title, equal))
        out[i] = "".join(drawn)
    return out


def _gain(method: str, row: dict) -> tuple[float | None, float | None]:
    return (0.0, None) if method == BASELINE else (row["gain_over_random"], row["gain_half"])


def _drawn(kind: str, found: tuple[float | None, float | None], scale: Scale, title: str, mark: str) -> str:
    mean, half = found
    if mean is None:
        return f'<span class="to-{kind}">–</span>'
    text = f"{title}: {interval(mean, half, signed=True)} points"
    return f'<span class="to-{kind}">{strip([Mark(mean, half, mark, text)], scale, text)}</span>'
