"""Pieces of the page that its sections share."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from typing import Any


def data(**names: Any) -> str:
    """Attributes ``data-NAME="VALUE"``; the page's filters act on them."""
    return " ".join(f'data-{name}="{html.escape(str(value))}"' for name, value in names.items())


def script_json(document: Any) -> str:
    """JSON for a ``<script>`` element. Without any ``<`` the parser finds no end tag, comment or script in it."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def table(head: Sequence[str], lines: Iterable[tuple[str, Sequence[str]]], wrap: Sequence[int] = ()) -> str:
    """A plain table; each line is (attributes of its row, cells)."""
    body = []
    for attributes, cells in lines:
        texts = (
            f'<td class="wrap">{html.escape(c)}</td>' if i in wrap else f"<td>{html.escape(c)}</td>"
            for i, c in enumerate(cells)
        )
        body.append(f"<tr {attributes}>{''.join(texts)}</tr>")
    heads = "".join(f"<th>{html.escape(h)}</th>" for h in head)
    return (
        f'<div class="scroll tall"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
    )


def section(name: str, title: str, body: str, summary: str, *, group: bool = False) -> str:
    """A section whose body is folded under ``summary``; ``group``: hidden when the filters leave nothing of it."""
    attributes = f'id="{name}"' + (" data-group" if group else "")
    return (
        f"<section {attributes}><h2>{html.escape(title)}</h2>"
        f"<details><summary>{html.escape(summary)}</summary>{body}</details></section>"
    )
