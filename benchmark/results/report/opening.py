"""The first thing on the page: one sentence, and one difference plot with a line a setting. Works without scripts."""

from __future__ import annotations

import html
from collections.abc import Sequence

from benchmark.results.boards import standing
from benchmark.results.boards.answer import Answer, Line, answers, sentence, verdict
from benchmark.results.boards.boards import Board
from benchmark.results.boards.cells import BASELINE
from benchmark.results.boards.terminal import interval, seconds

WIDTH, HEIGHT = 320, 26  # of a strip, in its own units
MOST = 12  # settings that are seen before the rest is unfolded


def opening(made: Sequence[Board]) -> str:
    """The sentence and the strips; nothing where no setting has two methods."""
    found = answers(made)
    if not found:
        return ""
    best = [(a.lines[0].gain or 0) + (a.lines[0].half or 0) for a in found]
    reach = max(5.0, min(30.0, max(best)))
    rows = [_row(a, reach) for a in found]
    more = f"<details><summary>{len(rows) - MOST} more settings</summary>{''.join(rows[MOST:])}</details>"
    return (
        f'<section id="answer"><p class="answer">{html.escape(sentence(found))}</p>'
        '<p class="soft">Each line is a setting, each mark a method: its gain over random real images in points, '
        f"paired by seed, from −{reach:.0f} to +{reach:.0f} (a bar at the left edge: less than that). Diamond: the "
        "best, with its 95 % interval; dots: no significant difference from it (the tests correct for the number of "
        "methods, so an interval may leave out 0 without significance); rings: below it, or too little known.</p>"
        + "".join(rows[:MOST])
        + (more if len(rows) > MOST else "")
        + "</section>"
    )


def _row(a: Answer, reach: float) -> str:
    best = a.lines[0]
    gain = "" if best.method == BASELINE else f" {interval(best.gain, best.half, signed=True)} points,"
    facts = f"{gain} {seconds(best.row['distill_seconds'])} a set; {verdict(a)}"
    data = {"dataset": a.board.dataset, "protocol": a.board.protocol, "student": a.column.student, "ipc": a.column.ipc}
    attributes = " ".join(f'data-{name}="{html.escape(str(value))}"' for name, value in data.items())
    return (
        f'<div class="setting" {attributes}><span>{html.escape(a.setting)}</span><strong>{html.escape(best.label)}'
        f"</strong>{_strip(a, reach)}<span>{html.escape(facts.strip())}</span></div>"
    )


def _strip(a: Answer, reach: float) -> str:
    def x(points: float) -> float:
        return round(WIDTH / 2 * (1 + max(-1.0, min(1.0, points / reach)) * 0.97), 1)

    y = HEIGHT // 2
    marks = [f'<line x1="{x(0)}" x2="{x(0)}" y1="0" y2="{HEIGHT}" class="level"/>']
    for line in reversed(a.lines):  # the best on top
        if line.gain is None:
            continue
        title = f"<title>{html.escape(_title(line))}</title>"
        if line.gain < -reach:
            marks.append(f'<path d="M{x(-reach)} {y - 5}v10" class="below">{title}</path>')
        elif line is a.lines[0]:
            half = line.half or 0
            span = f'x1="{x(line.gain - half)}" x2="{x(line.gain + half)}" y1="{y}" y2="{y}"'
            marks.append(f'<line {span} class="best"/>')
            marks.append(f'<path d="M{x(line.gain)} {y - 7}l7 7-7 7-7-7z" class="best">{title}</path>')
        else:
            kind = "equal" if line.standing == standing.TOP else "below"
            marks.append(f'<circle cx="{x(line.gain)}" cy="{y}" r="4" class="{kind}">{title}</circle>')
    label = html.escape(f"{a.setting}: gain over random real images by method")
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(marks)}</svg>'


def _title(line: Line) -> str:
    return f"{line.label}: {interval(line.gain, line.half, signed=True)} points"
