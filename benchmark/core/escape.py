"""Text from records, manifests and plug-ins, made harmless for where it is shown: Markdown, LaTeX, CSV, a
terminal.

HTML is escaped by `html.escape`.
"""

from __future__ import annotations

import re
from typing import Any

_MARKDOWN = str.maketrans({"\\": "\\\\", "|": "\\|", "*": "\\*", "<": "&lt;", "`": "\\`"})
_ENTITY = re.compile(r"&(?=#?\w+;)")
_LINK = re.compile(r"(?<=\])(?=[(\[:])|(?<=!)(?=\[)")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_TEX = {
    "\\": "\\textbackslash{}", "&": "\\&", "%": "\\%", "$": "\\$", "#": "\\#", "_": "\\_", "{": "\\{", "}": "\\}",
    "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "±": "$\\pm$", "–": "--", "−": "$-$", "†": "$\\dagger$",
    "<": "$<$", ">": "$>$", "×": "$\\times$", "…": "\\ldots{}", "[": "{[}", "]": "{]}",
}  # fmt: skip
_CONTROL = re.compile(
    r"\x1b\[[0-9;]{0,20}[mAK]"  # colours, line up, clear to the end: what ddbench and its progress bars write
    r"|([\x00-\x07\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069])"
)


def markdown(text: Any) -> str:
    """One line of a Markdown table or list: no cell, link, picture, HTML, code or emphasis begins in it."""
    line = " ".join(str(text).split())
    return _LINK.sub(r"\\", _ENTITY.sub("&amp;", line).translate(_MARKDOWN))


def latex(text: str) -> str:
    """One line for LaTeX; a negative number gets a minus sign instead of a hyphen."""
    line = "".join(_TEX.get(c, c) for c in terminal(" ".join(text.split())))
    return re.sub(r"(?<![\w.}-])-(?=\d)", "$-$", line)


def csv_cell(value: Any) -> Any:
    """A cell of a CSV file. Text that a spreadsheet would run as a formula gets a ``'`` before it; numbers stay."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def terminal(text: str) -> str:
    """Text in which control characters are shown (``\\x1b``), not obeyed: no moved cursor, no changed title."""
    return _CONTROL.sub(lambda m: m[0] if m[1] is None else f"\\x{ord(m[1]):02x}", text)
