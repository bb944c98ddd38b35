"""Boards as Markdown, LaTeX (booktabs), HTML and JSON: one sheet of text cells, four ways to write it."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tabulate import tabulate

from benchmark.core import escape
from benchmark.results.boards import standing
from benchmark.results.boards.boards import Board, Column, Entry, boards, flags, marks
from benchmark.results.boards.columns import FLAGS
from benchmark.results.boards.reported import Reported, by_cell
from benchmark.results.boards.terminal import MISSING, interval, seconds, size

FORMATS = ("table", "csv", "markdown", "latex", "json", "html")
LEGEND = (
    "Top-1 % after the last epoch, mean ± 95 % t interval over {over}; in brackets the gain over random real images, "
    "paired by seed (over the seeds that both have). Bold is the top set of a column: the best whole result and all "
    "whose difference from it is not significant (paired tests, Holm's correction); ? where too little is known (fewer "
    "than three shared seeds, or seeds that failed)."
)
GREY = "{style}: fewer than five seeds and an interval wider than ± {wide:g}, which says little."
WIDE = 5.0  # points of half an interval, of fewer than `STEADY` seeds, from which on a number is shown grey
STEADY = 5


@dataclass(frozen=True)
class Text:
    """One table cell; ``mark`` is ``top``, ``?`` or empty; ``wide``: few seeds and a wide interval, shown grey."""

    text: str
    mark: str = ""
    wide: bool = False


@dataclass
class Sheet:
    """A board as text. ``align`` is l or r for each column; ``legend`` and ``notes`` go below."""

    title: str
    headers: list[str]
    align: str
    legend: str = ""
    lines: list[list[Text]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def sheet(board: Board, reported: Sequence[Reported] = ()) -> Sheet:
    """The board's cells as text: results, cost, seeds, flags, then reported numbers in columns of their own."""
    marked = marks(board)
    published = by_cell(list(reported))
    once = {(c.student, c.ipc): c for c in reversed(board.columns)}.values()  # whatever the teacher
    shown = [c for c in sorted(once) if any(_published(board, e, c, published) for e in board.entries)]
    headers = ["method", *map(board.heading, board.columns), "seeds", "distil", "images", "labels", "flags"]
    headers += [f"reported {board.heading(c)}" for c in shown]
    out = Sheet(board.title, headers, "l" + "r" * (len(board.columns) + 4) + "l" + "r" * len(shown))
    scored = [row for e in board.entries for row in e.rows.values() if row["top1_last_half"] is not None]
    both = bool(scored) and all(row["top1_last_half_both"] is not None for row in scored)
    out.legend = LEGEND.format(over="seeds and test images" if both else "seeds")
    sources: list[str] = []
    for i, entry in enumerate(board.entries):
        line = [Text(entry.label)]
        line += [_cell(entry.rows.get(c), marked.get((i, c), ""), both) for c in board.columns]
        line += [Text(_seeds(entry)), *(Text(_costs(entry, *pair)) for pair in COSTS)]
        line.append(Text(", ".join(sorted({f for r in entry.rows.values() for f in r["flags"].split()}))))
        for column in shown:
            parts = []
            for item in _published(board, entry, column, published):
                note = f"{item.source}" + (f"; {item.note}" if item.note else "")
                if note not in sources:
                    sources.append(note)
                parts.append(f"{item.text} [{sources.index(note) + 1}]")
            line.append(Text(" / ".join(parts) or MISSING))
        out.lines.append(line)
    keep = [j for j, h in enumerate(headers) if h not in OPTIONAL or any(x[j].text not in EMPTY for x in out.lines)]
    out.headers = [headers[j] for j in keep]
    out.align = "".join(out.align[j] for j in keep)
    out.lines = [[line[j] for j in keep] for line in out.lines]
    columns = {(c.teacher, c.teacher_key) for c in board.columns}
    if len(columns) == 1 and board.columns[0].teacher:
        out.title += f", teacher {board.columns[0].teacher}"
    if len({c.student for c in board.columns}) == 1:
        out.title += f", student {board.columns[0].student}"
    out.notes = [*board.notes]
    out.notes += [f"{flag}: {FLAGS[flag]}." for flag in FLAGS if flag in flags(board)]
    out.notes += [f"[{n}] reported by: {source}." for n, source in enumerate(sources, start=1)]
    if any("?" in cell.text for line in out.lines for cell in line[-len(shown) :]) and shown:
        out.notes.append("? the number was seen only in a secondary summary of the paper.")
    return out


OPTIONAL = ("labels", "flags", "distil", "images")
EMPTY = ("", MISSING, "0 B")
COSTS = (("distill_seconds", seconds), ("image_bytes", size), ("label_bytes", size))


def _published(board: Board, entry: Entry, column: Column, published: dict) -> list[Reported]:
    return published.get((board.dataset, entry.method, column.student, column.ipc), [])


def _cell(row: dict | None, mark: str, both: bool) -> Text:
    if row is None:
        return Text(MISSING)
    if row["top1_last"] is None:
        return Text("failed" if row["failed"] else "skipped")
    half = row["top1_last_half_both" if both else "top1_last_half"]
    text = interval(row["top1_last"], half)
    text = text if row["gain_over_random"] is None else f"{text} ({row['gain_over_random']:+.1f})"
    return Text(text, "" if mark == standing.BELOW else mark, row["seeds"] < STEADY and (half or 0) > WIDE)


def _seeds(entry: Entry) -> str:
    """How many succeeded, and in brackets how many failed: ``3 (2 failed)``; least and most over the columns."""
    counts, failed = (sorted({row[name] for row in entry.rows.values()}) for name in ("seeds", "failed"))
    text = str(counts[0]) if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"
    return f"{text} ({failed[-1]} failed)" if failed[-1] else text


def _costs(entry: Entry, name: str, form) -> str:
    """One value an IPC, joined with slashes (students share a distilled set, so it is the same for all)."""
    by_ipc: dict[int, float] = {}
    for column, row in sorted(entry.rows.items(), key=lambda item: item[0].ipc):
        if row[name] is not None:
            by_ipc.setdefault(column.ipc, row[name])
    texts = [form(value) for value in by_ipc.values()]
    return " / ".join(texts) if len(set(texts)) > 1 else "".join(texts[:1]) or MISSING


def markdown(sheets: Sequence[Sheet]) -> str:
    """GitHub-flavoured Markdown; one heading a board."""
    blocks = []
    for s in sheets:
        lines = [f"**{escape.markdown(s.title)}**", "", "| " + " | ".join(map(escape.markdown, s.headers)) + " |"]
        lines.append("|" + "|".join("---:" if a == "r" else ":---" for a in s.align) + "|")
        for line in s.lines:
            cells = []
            for cell in line:
                text = escape.markdown(cell.text)
                text = f"_{text}_" if cell.wide else text
                cells.append({"top": f"**{text}**", "?": f"{text} ?"}.get(cell.mark, text))
            lines.append("| " + " | ".join(cells) + " |")
        lines += ["", _legend(s, "Italic")]
        if s.notes:
            lines += ["", *(f"- {escape.markdown(note)}" for note in s.notes)]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + ("\n" if blocks else "")


def plain(sheets: Sequence[Sheet]) -> str:
    """Text for a terminal."""
    blocks = []
    for s in sheets:
        lines = [
            [c.text + (" ~" if c.wide else "") + {"top": " *", "?": " ?"}.get(c.mark, "") for c in line]
            for line in s.lines
        ]
        align = ["right" if a == "r" else "left" for a in s.align]
        text = tabulate(lines, s.headers, tablefmt="simple", disable_numparse=True, colalign=align)
        legend = _legend(s, "~").replace("Bold is", "* is")
        blocks.append("\n".join([s.title, text, legend, *(f"  {note}" for note in s.notes)]))
    return "\n\n".join(blocks) + ("\n" if blocks else "")


def _legend(s: Sheet, style: str) -> str:
    """The legend; what `style` marks is said where it is used."""
    wide = any(cell.wide for line in s.lines for cell in line)
    return f"{s.legend} {GREY.format(style=style, wide=WIDE)}" if wide else s.legend


def latex(sheets: Sequence[Sheet]) -> str:
    """A ``table`` with ``booktabs`` rules for each board (needs that package, and ``xcolor`` for grey cells)."""
    blocks = []
    for s in sheets:
        lines = ["\\begin{table}[t]", "\\centering", f"\\caption{{{_tex(s.title)}. {_tex(_legend(s, 'Grey'))}}}"]
        lines += [f"\\begin{{tabular}}{{{s.align}}}", "\\toprule"]
        lines += [" & ".join(map(_tex, s.headers)) + " \\\\", "\\midrule"]
        for line in s.lines:
            cells = []
            for cell in line:
                text = _tex(cell.text)
                text = f"\\textcolor{{gray}}{{{text}}}" if cell.wide else text
                cells.append({"top": f"\\textbf{{{text}}}", "?": f"{text} ?"}.get(cell.mark, text))
            lines.append(" & ".join(cells) + " \\\\")
        lines += ["\\bottomrule", "\\end{tabular}"]
        if s.notes:
            notes = " \\\\\n".join(_tex(note) for note in s.notes)
            lines += ["", "\\smallskip", f"{{\\footnotesize\\raggedright {notes}\\par}}"]
        blocks.append("\n".join([*lines, "\\end{table}"]))
    wide = any(cell.wide for s in sheets for line in s.lines for cell in line)
    head = "% \\usepackage{booktabs" + (",xcolor" if wide else "") + "}\n"
    return head + "\n\n".join(blocks) + "\n"


_TEX = {
    "\\": "\\textbackslash{}", "&": "\\&", "%": "\\%", "$": "\\$", "#": "\\#", "_": "\\_", "{": "\\{", "}": "\\}",
    "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "±": "$\\pm$", "–": "--", "−": "$-$",
    "<": "$<$", ">": "$>$", "×": "$\\times$", "…": "\\ldots{}", "[": "{[}", "]": "{]}",
}  # fmt: skip


def _tex(text: str) -> str:
    """Escaped for LaTeX; ``(-2.3)`` gets a minus sign instead of a hyphen."""
    return re.sub(r"(?<=\()-(?=\d)", "$-$", "".join(_TEX.get(c, c) for c in escape.terminal(" ".join(text.split()))))


def html_page(sheets: Sequence[Sheet]) -> str:
    """Plain tables on one page without scripts (``ddbench report`` makes the interactive page)."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        "<title>ddbench leaderboard</title>",
        "<style>body{font:16px/1.5 system-ui,sans-serif;margin:2rem;color-scheme:light dark}",
        "div{overflow-x:auto}table{border-collapse:collapse}th,td{padding:.2rem .6rem;border-bottom:1px solid #8886;",
        "white-space:nowrap}th,td{text-align:left}.r{text-align:right}.top{font-weight:bold}.wide{color:#888}</style></head><body>",
        "<h1>ddbench leaderboard</h1>",
    ]
    for s in sheets:
        parts.append(f"<h2>{html.escape(s.title)}</h2>\n<p>{html.escape(_legend(s, 'Grey'))}</p>")
        parts.append(f"<div>{html_table(s)}</div>")
        if s.notes:
            parts.append("<ul>" + "".join(f"<li>{html.escape(note)}</li>" for note in s.notes) + "</ul>")
    return "\n".join([*parts, "</body></html>", ""])


def html_table(s: Sheet, beside: Mapping[tuple[int, int], str] = {}, folded: Container[int] = ()) -> str:
    """One sheet as ``<table>``.

    Args:
        beside: markup for a cell of its own to the right of (line, column).
        folded: lines that get the class ``more``.
    """

    def cell(tag: str, text: str, *classes: str, span: int = 1) -> str:
        names = " ".join(c for c in classes if c)
        attributes = (f' class="{names}"' if names else "") + (f' colspan="{span}"' if span > 1 else "")
        return f"<{tag}{attributes}>{html.escape(minus(text))}</{tag}>"

    right = ["r" if a == "r" else "" for a in s.align]
    wide = {column for _, column in beside}
    head = "".join(cell("th", h, r, span=1 + (j in wide)) for j, (h, r) in enumerate(zip(s.headers, right)))
    body = []
    for i, line in enumerate(s.lines):
        cells = []
        for j, (c, r) in enumerate(zip(line, right)):
            cells.append(
                cell("td", c.text + (" ?" if c.mark == "?" else ""), r, "top" * (c.mark == "top"), "wide" * c.wide)
            )
            if j in wide:
                cells.append(f'<td class="beside">{beside.get((i, j), "")}</td>')
        body.append(('<tr class="more">' if i in folded else "<tr>") + "".join(cells) + "</tr>")
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(body) + "\n</tbody></table>"


def minus(text: str) -> str:
    """With the minus sign U+2212 before negative numbers, as HTML has it; plain text, Markdown and data have ``-``."""
    return re.sub(r"(?<![\w.–-])-(?=\d)", "−", text)


def json_text(rows: list[dict[str, Any]], reported: Sequence[Reported] = ()) -> str:
    """Rows as in the CSV, unrounded, and the reported numbers of the same datasets apart."""
    datasets = {row["dataset"] for row in rows}
    published = [vars(item) for item in reported if item.dataset in datasets]
    rows = [{name: value for name, value in row.items() if name[0] != "_"} for row in rows]
    return json.dumps({"rows": rows, "reported": published}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def render(rows: list[dict[str, Any]], form: str, reported: Sequence[Reported] = (), notes: Sequence[str] = ()) -> str:
    """Rows in one of `FORMATS`; ``notes`` go below every board."""
    if form == "csv":
        from benchmark.results.boards.table import csv_text

        return csv_text(rows)
    if form == "json":
        return json_text(rows, reported)
    sheets = [sheet(board, reported) for board in boards(rows)]
    for s in sheets:
        s.notes += notes
    return {"table": plain, "markdown": markdown, "latex": latex, "html": html_page}[form](sheets)
