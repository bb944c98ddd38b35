"""The one table writer: a sheet of text cells as plain text, Markdown, LaTeX (booktabs), HTML, CSV or JSON.

Every command that prints a table makes sheets and calls `render`. Negative numbers have one sign in each format: ``-``
in plain text, Markdown, CSV and JSON, U+2212 in HTML, ``$-$`` in LaTeX.
"""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import groupby
from typing import Any

from benchmark.core import escape
from benchmark.core.errors import unknown_name

FORMATS = ("table", "csv", "markdown", "latex", "json", "html")
GREY = "{style}: fewer than five seeds and an interval wider than ± {wide:g}, which says little."
WIDE = 5.0  # points of half an interval, of fewer than `STEADY` seeds, from which on a number is shown grey
STEADY = 5
MARKED = {
    "table": {"top": "{} *", "?": "{} ?"},
    "markdown": {"top": "**{}**", "?": "{} ?"},
    "latex": {"top": "\\textbf{{{}}}", "?": "{} ?"},
}


@dataclass(frozen=True)
class Text:
    """One table cell; ``mark`` is ``top``, ``?`` or empty; ``wide``: few seeds and a wide interval, shown grey."""

    text: str
    mark: str = ""
    wide: bool = False


@dataclass
class Sheet:
    """A table as text.

    Attributes:
        title: above it, and LaTeX's caption.
        align: l or r for each column.
        legend, notes: below it.
        groups: for each column the end of its header that neighbours share (a student), or nothing; LaTeX and HTML
            write it once above them.
        documents: what CSV and JSON hold, a mapping a line; without them the headers and texts.
        widths: for each column the characters after which plain text is wrapped, or None.
    """

    title: str
    headers: list[str]
    align: str
    legend: str = ""
    lines: list[list[Text]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    documents: list[dict[str, Any]] | None = None
    widths: list[int | None] = field(default_factory=list)

    def keep(self, columns: Sequence[int]) -> None:
        """Leave these columns, in this order."""
        self.headers = [self.headers[j] for j in columns]
        self.align = "".join(self.align[j] for j in columns)
        self.lines = [[line[j] for j in columns] for line in self.lines]
        self.groups = [self.groups[j] for j in columns] if self.groups else []
        self.widths = [self.widths[j] for j in columns] if self.widths else []


def simple(title: str, headers: Sequence[str], rows: Sequence[Sequence[Any]], align: str = "", **more: Any) -> Sheet:
    """A sheet of plain values; None is a dash; columns of numbers stand right where ``align`` says nothing."""
    if not align:
        numbers = [all(isinstance(row[j], (int, float)) for row in rows) and bool(rows) for j in range(len(headers))]
        align = "".join("r" if number else "l" for number in numbers)
    lines = [[Text("–" if value is None else str(value)) for value in row] for row in rows]
    return Sheet(title, list(headers), align, lines=lines, **more)


def plain_table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table without title or notes, for a terminal."""
    return plain([simple("", headers, rows)]).rstrip("\n")


def choose(sheets: Sequence[Sheet], wanted: Sequence[str]) -> None:
    """Leave the columns whose headers are ``wanted`` (wildcards and commas allowed), in that order.

    Raises:
        UsageError: a column that no sheet has.
    """
    patterns = [part.strip() for text in wanted for part in text.split(",") if part.strip()]
    known = [h for s in sheets for h in s.headers]
    for pattern in patterns:
        if not any(fnmatchcase(h, pattern) for h in known):
            raise unknown_name("column", pattern, sorted(set(known)), where="--columns")
    for s in sheets if patterns else ():
        found = [j for pattern in patterns for j, h in enumerate(s.headers) if fnmatchcase(h, pattern)]
        s.keep(list(dict.fromkeys(found)))


def render(sheets: Sequence[Sheet], form: str, heading: str = "ddbench") -> str:
    """Sheets in one of `FORMATS`; ``heading`` is the HTML page's."""
    if form == "html":
        return html_page(sheets, heading)
    return {"table": plain, "markdown": markdown, "latex": latex, "csv": csv_text, "json": json_text}[form](sheets)


def plain(sheets: Sequence[Sheet]) -> str:
    """Text for a terminal."""
    from tabulate import tabulate

    blocks = []
    for s in sheets:
        lines = [[_marked(c.text + (" ~" if c.wide else ""), c, "table") for c in line] for line in s.lines]
        more = {"colalign": ["right" if a == "r" else "left" for a in s.align]} if lines else {}
        text = tabulate(
            lines, s.headers, tablefmt="simple", disable_numparse=True, maxcolwidths=s.widths or None, **more
        )
        legend = _legend(s, "~").replace("Bold is", "* is")
        blocks.append("\n".join(filter(None, [s.title, text, legend, *(f"  {note}" for note in s.notes)])))
    return "\n\n".join(blocks) + ("\n" if blocks else "")


def markdown(sheets: Sequence[Sheet]) -> str:
    """GitHub-flavoured Markdown; one heading a sheet."""
    blocks = []
    for s in sheets:
        lines = [f"**{escape.markdown(s.title)}**", ""] if s.title else []
        lines.append("|" + "|".join(f" {escape.markdown(h)} " if h else " " for h in s.headers) + "|")
        lines.append("|" + "|".join("---:" if a == "r" else ":---" for a in s.align) + "|")
        for line in s.lines:
            cells = []
            for cell in line:
                text = escape.markdown(cell.text)
                cells.append(_marked(f"_{text}_" if cell.wide else text, cell, "markdown"))
            lines.append("| " + " | ".join(cells) + " |")
        if legend := _legend(s, "Italic"):
            lines += ["", legend]
        if s.notes:
            lines += ["", *(f"- {escape.markdown(note)}" for note in s.notes)]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + ("\n" if blocks else "")


def _marked(text: str, cell: Text, form: str) -> str:
    return MARKED[form].get(cell.mark, "{}").format(text)


def _legend(s: Sheet, style: str) -> str:
    """The legend; what ``style`` marks is said where it is used."""
    wide = any(cell.wide for line in s.lines for cell in line)
    return f"{s.legend} {GREY.format(style=style, wide=WIDE)}" if wide else s.legend


def _heads(s: Sheet) -> tuple[list[tuple[str, int]], list[str]]:
    """Two lines of headers: groups with their widths (empty without groups), and each column's own word."""
    groups = s.groups or [""] * len(s.headers)
    own = [h.removesuffix(f" {g}") if g else h for h, g in zip(s.headers, groups)]
    spans = [(name, len(list(members))) for name, members in groupby(groups)]
    return (spans if any(groups) else []), own


def latex(sheets: Sequence[Sheet]) -> str:
    """A ``table`` with ``booktabs`` rules for each sheet (needs that package, and ``xcolor`` for grey cells)."""
    blocks, used = [], set()
    for s in sheets:
        label = base = "tab:" + (re.sub(r"[^a-z0-9]+", "-", s.title.lower()).strip("-") or "ddbench")
        while label in used:
            label = f"{base}-{len(used) + 1}"
        used.add(label)
        lines = ["\\begin{table}[t]", "\\centering"]
        lines += [f"\\caption{{{escape.latex(s.title)}.}}", f"\\label{{{label}}}"] if s.title else []
        lines += [f"\\begin{{tabular}}{{{s.align}}}", "\\toprule", *_latex_heads(s), "\\midrule"]
        for line in s.lines:
            cells = []
            for cell in line:
                text = escape.latex(cell.text)
                cells.append(_marked(f"\\textcolor{{gray}}{{{text}}}" if cell.wide else text, cell, "latex"))
            lines.append(" & ".join(cells) + " \\\\")
        lines += ["\\bottomrule", "\\end{tabular}"]
        below = [text for text in (_legend(s, "Grey"), *s.notes) if text]
        if below:
            notes = " \\\\\n".join(escape.latex(text) for text in below)
            lines += ["", "\\smallskip", f"{{\\footnotesize\\raggedright {notes}\\par}}"]
        blocks.append("\n".join([*lines, "\\end{table}"]))
    wide = any(cell.wide for s in sheets for line in s.lines for cell in line)
    head = "% \\usepackage{booktabs" + (",xcolor" if wide else "") + "}\n"
    return head + "\n\n".join(blocks) + "\n"


def _latex_heads(s: Sheet) -> list[str]:
    spans, own = _heads(s)
    lines, at, rules = [], 1, []
    if spans:
        cells = [f"\\multicolumn{{{n}}}{{c}}{{{escape.latex(name)}}}" if name else " & " * (n - 1) for name, n in spans]
        for name, n in spans:
            if name:
                rules.append(f"\\cmidrule(lr){{{at}-{at + n - 1}}}")
            at += n
        lines += [" & ".join(cells) + " \\\\", "".join(rules)]
    return [*lines, " & ".join(map(escape.latex, own)) + " \\\\"]


def html_page(sheets: Sequence[Sheet], heading: str = "ddbench") -> str:
    """Plain tables on one page without scripts (``ddbench report`` makes the interactive page)."""
    heading = html.escape(heading)
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>{heading}</title>",
        "<style>body{font:16px/1.5 system-ui,sans-serif;margin:2rem;color-scheme:light dark}",
        "div{overflow-x:auto}table{border-collapse:collapse}th,td{padding:.2rem .6rem;border-bottom:1px solid #8886;",
        "white-space:nowrap}th,td{text-align:left}.r{text-align:right}.top{font-weight:bold}.wide{color:#888}"
        ".group{text-align:center}</style></head><body>",
        f"<h1>{heading}</h1>",
    ]
    for s in sheets:
        parts.append(f"<h2>{html.escape(s.title)}</h2>" if s.title else "")
        legend = _legend(s, "Grey")
        parts.append(f"<p>{html.escape(legend)}</p>" if legend else "")
        parts.append(f"<div>{html_table(s)}</div>")
        if s.notes:
            parts.append("<ul>" + "".join(f"<li>{html.escape(note)}</li>" for note in s.notes) + "</ul>")
    return "\n".join([*filter(None, parts), "</body></html>", ""])


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
    spans, own = _heads(s)
    head, at = "", 0
    if spans:
        for name, n in spans:
            head += cell("th", name, "group", span=n + len(wide.intersection(range(at, at + n))))
            at += n
        head = f"<tr>{head}</tr>"
    cells = (cell("th", h, r, span=1 + (j in wide)) for j, (h, r) in enumerate(zip(own, right)))
    head += f"<tr>{''.join(cells)}</tr>"
    body = []
    for i, line in enumerate(s.lines):
        cells = []
        for j, (c, r) in enumerate(zip(line, right)):
            text = c.text + (" ?" if c.mark == "?" else "")
            cells.append(cell("td", text, r, "top" * (c.mark == "top"), "wide" * c.wide))
            if j in wide:
                cells.append(f'<td class="beside">{beside.get((i, j), "")}</td>')
        body.append(('<tr class="more">' if i in folded else "<tr>") + "".join(cells) + "</tr>")
    return f"<table><thead>{head}</thead>\n<tbody>\n" + "\n".join(body) + "\n</tbody></table>"


def minus(text: str) -> str:
    """With the minus sign U+2212 before negative numbers, as HTML has it."""
    return re.sub(r"(?<![\w.–-])-(?=\d)", "−", text)


def documents(s: Sheet) -> list[dict[str, Any]]:
    """What CSV and JSON hold of a sheet."""
    if s.documents is not None:
        return s.documents
    return [dict(zip(s.headers, (cell.text for cell in line))) for line in s.lines]


def csv_text(sheets: Sequence[Sheet]) -> str:
    """The lines of all sheets below one header; text never begins a formula."""
    rows = [row for s in sheets for row in documents(s)]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: escape.csv_cell(value) for name, value in row.items()} for row in rows)
    return out.getvalue()


def json_text(sheets: Sequence[Sheet]) -> str:
    """The lines of all sheets, unrounded where the sheet has its documents."""
    rows = [row for s in sheets for row in documents(s)]
    return json.dumps(rows, indent=1, ensure_ascii=False) + "\n"
