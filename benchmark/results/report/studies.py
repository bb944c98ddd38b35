"""Studies: results folders inside the results folder, each with a question, its answer and boards of its own."""

from __future__ import annotations

import html
import re
from pathlib import Path

from benchmark.core.errors import DDBenchError
from benchmark.core.foreign import inside, read_bytes
from benchmark.results.boards.answer import answers, sentence
from benchmark.results.boards.boards import boards
from benchmark.results.boards.cells import collect, rows_of
from benchmark.results.records import iter_records
from benchmark.results.report.boards import board_section
from benchmark.results.report.opening import settings

LONGEST = 700  # characters of a README's first paragraph


def studies(results: Path) -> str:
    """A folded part for each folder ``studies/NAME`` that has good records; its bad ones are counted."""
    parts = []
    for folder in sorted(results.glob("studies/*")):
        faults: list = []
        cells = collect(iter_records(folder, faults))
        if not cells:
            continue
        made = boards(rows_of(cells))
        found = answers(made)
        title, lead = _readme(results, folder)
        bad = f'<p class="soft">{len(faults)} bad records are left out.</p>' if faults else ""
        text = f'<p class="soft">{html.escape(lead)} <code>{html.escape(f"studies/{folder.name}")}</code></p>{bad}'
        answer = f"<p>{html.escape(sentence(found))}</p>{settings(found)}" if found else ""
        parts.append(f"<details><summary>{html.escape(title)}</summary>{text}{answer}{board_section(made)}</details>")
    note = '<p class="soft">Their records are not in the boards above.</p>'
    return f'<section id="studies"><h2>Studies</h2>{note}{"".join(parts)}</section>' if parts else ""


def _readme(results: Path, folder: Path) -> tuple[str, str]:
    """Heading and first paragraph of the study's README, as plain text; the folder's name where there is none."""
    try:
        text = read_bytes(inside(results.resolve(), f"studies/{folder.name}/README.md")).decode("utf-8")
    except (DDBenchError, OSError, UnicodeDecodeError):
        return folder.name, ""
    blocks = [" ".join(block.split()) for block in re.split(r"\n\s*\n", text)]
    title = next((block.lstrip("# ") for block in blocks if block.startswith("#")), folder.name)
    lead = next((block for block in blocks if block[:1] not in ("#", "`", "|", "!", "<", "")), "")
    return _plain(title), _plain(lead)[:LONGEST]


def _plain(text: str) -> str:
    """Markdown without its marks and link targets."""
    return re.sub(r"[*`]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text))
