"""The first thing on the page: one sentence, and a line a setting with its best method. Works without scripts."""

from __future__ import annotations

import html
from collections.abc import Sequence
from urllib.parse import urlencode

from benchmark.results.boards import standing
from benchmark.results.boards.answer import BETTER, FLOOR, UNDECIDED, UNKNOWN, Answer, Line, answers, sentence
from benchmark.results.boards.boards import Board
from benchmark.results.boards.cells import BASELINE
from benchmark.results.boards.terminal import interval, seconds
from benchmark.results.report.strip import Mark, Scale, reach, strip

MOST = 12  # settings that are seen before the rest is unfolded
HEADS = ("setting", "best method", "gain over random real images", "points", "cost of a set", "better than random?")
VERDICTS = {BETTER: "yes", UNDECIDED: "not significantly", UNKNOWN: "too few seeds", FLOOR: "random is best"}
LEGEND = (
    "Each mark of a line is a method: its gain over random real images in points of top-1, paired by seed, from "
    "−{reach:.0f} to +{reach:.0f} (a bar at the left edge: less). Diamond: the best, with its 95 % interval; dots: no "
    "significant difference from it; rings: below it, or too little known. The tests correct for the number of "
    "methods, so an interval may leave out 0 without significance. A setting's name filters the whole page."
)


def opening(made: Sequence[Board]) -> str:
    """The sentence and the settings; nothing where no setting has two methods."""
    found = answers(made)
    if not found:
        return ""
    return f'<section id="answer"><p class="answer">{html.escape(sentence(found))}</p>{settings(found)}</section>'


def settings(found: Sequence[Answer]) -> str:
    """A line each: the best method, every method's gain, the cost and what the tests say; how to read it, folded."""
    far = reach((a.lines[0].gain or 0) + (a.lines[0].half or 0) for a in found)
    rows = [_row(a, Scale(-far, far, 320)) for a in found]
    more = f"<details><summary>{len(rows) - MOST} more settings</summary>{''.join(rows[MOST:])}</details>"
    heads = "".join(f"<span>{head}</span>" for head in HEADS)
    return (
        f'<div class="setting heads">{heads}</div>{"".join(rows[:MOST])}{more if len(rows) > MOST else ""}'
        f'<details class="soft"><summary>How to read this</summary><p>{LEGEND.format(reach=far)}</p></details>'
    )


def _row(a: Answer, scale: Scale) -> str:
    best = a.lines[0]
    place = {"dataset": a.board.dataset, "protocol": a.board.protocol, "student": a.column.student, "ipc": a.column.ipc}
    attributes = " ".join(f'data-{name}="{html.escape(str(value))}"' for name, value in place.items())
    rest = a.board.heading(a.column).removeprefix(f"IPC {a.column.ipc}")
    name = f"<b>{html.escape(a.board.dataset)}, IPC {a.column.ipc}</b>, {html.escape(a.board.protocol + rest)}"
    gain = "–" if best.method == BASELINE else interval(best.gain, best.half, signed=True)
    texts = [gain, seconds(best.row["distill_seconds"]), VERDICTS[a.against_random]]
    label = f"{a.setting}: gain over random real images by method"
    marks = [_mark(line, line is best) for line in a.lines if line.gain is not None]
    return (
        f'<div class="setting" {attributes}><a href="#{html.escape(urlencode(place))}">{name}</a>'
        f"<strong>{html.escape(best.label)}</strong>{strip(marks, scale, label)}"
        + "".join(f"<span>{html.escape(text)}</span>" for text in texts)
        + "</div>"
    )


def _mark(line: Line, best: bool) -> Mark:
    title = f"{line.label}: {interval(line.gain, line.half, signed=True)} points"
    kind = "best" if best else "equal" if line.standing == standing.TOP else "below"
    return Mark(line.gain or 0.0, (line.half or 0.0) if best else None, kind, title)
