"""Numbers in sentences: each ``X ± Y`` carries the command that gives it, and for records the command still does.

A paragraph that states numbers is followed by comments, one a number or several::

    <!-- 19.2 ± 7.2: ddbench compare d3hr random --dataset digits --protocol hard --ipc 1 -->
    <!-- 57.4 ± 0.9, 57.5 ± 0.9: made by a script that is not here; no records -->

The first kind is checked: the command must find one pair (or one row of a board) with this number. ``--results`` is
relative to the page; without it the page's own records, else ``results/``. Signs may be turned by the sentence. Figures
without an interval stand beside the command, test, study or publication that they come from.
"""

import re
import shlex
from pathlib import Path

import pytest

from benchmark.cli.compare import compare, found
from benchmark.cli.leaderboard import _wanted, leaderboard, read_rows
from benchmark.results.boards.terminal import interval

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("results/studies/*/README.md"))]
NUMBER = re.compile(r"\d+\.\d+ ± \d+\.\d+")
COMMENT = re.compile(r"<!-- ((?:\d+\.\d+ ± \d+\.\d+(?:, )?)+): (.*?) -->", re.DOTALL)


def prose(text: str) -> str:
    """The page without code, tables and what `ddbench leaderboard --update` writes."""
    text = re.sub(r"```.*?```|<!-- ddbench .*?<!-- /ddbench -->", "", text, flags=re.DOTALL)
    return "\n".join(line for line in text.splitlines() if not line.startswith("|"))


FIGURE = re.compile(r"\d ?%|\d+\.\d+(?![\w.])")
SOURCE = re.compile(r"ddbench [a-z]|results/|studies/|<!-- |arXiv|pytest|published|t quantile|\]\(")


def without_source(text: str) -> list[str]:
    """Paragraphs that state figures, where neither they nor the block before or after name where these come from."""
    text = re.sub(r"<!-- ddbench .*?<!-- /ddbench -->", "<!-- table -->", text, flags=re.DOTALL)
    text = re.sub(r"```python.*?```", "", text, flags=re.DOTALL)
    blocks, lost = re.split(r"\n\s*\n", text), []
    for i, block in enumerate(blocks):
        plain = re.sub(r"```.*?```|`[^`]*`", "", block, flags=re.DOTALL)
        plain = " ".join(line for line in plain.splitlines() if not line.startswith(("|", "#", "<!--")))
        if FIGURE.search(plain) and not SOURCE.search("\n".join(blocks[max(0, i - 1) : i + 2])):
            lost.append(plain)
    return lost


def sourced(text: str) -> dict[str, str]:
    """Number to its source."""
    return {n: source for numbers, source in COMMENT.findall(text) for n in NUMBER.findall(numbers)}


def answers(command: str, page: Path) -> list[str]:
    """``X ± Y``, unsigned, of every pair or row that the command finds."""
    name, *words = shlex.split(command)[1:]
    results = page.parent if (page.parent / "records").is_dir() else ROOT / "results"
    program = {"compare": compare, "leaderboard": leaderboard}[name]
    options = program.make_context(name, ["--results", str(results), *words]).params
    if options["results"] != results:
        options["results"] = page.parent / options["results"]
    if name == "compare":
        return [interval(abs(p.difference), p.half) for pairs in found(**options) for p in pairs]
    rows, _ = read_rows(options["results"], _wanted(options))
    return [interval(row["top1_last"], row["top1_last_half"]) for row in rows]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.parent.name + "/" + p.name)
def test_every_number_with_an_interval_has_a_source(page):
    text = prose(page.read_text())
    known = sourced(text)
    lost = [n for n in NUMBER.findall(COMMENT.sub("", text)) if n not in known]
    assert not lost, f"no source in {page.name} for {', '.join(lost)}: see tests/test_sentences.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.parent.name + "/" + p.name)
def test_every_paragraph_with_figures_says_where_they_come_from(page):
    assert not without_source(page.read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.parent.name + "/" + p.name)
def test_what_comes_from_records_is_what_they_give(page):
    for number, source in sourced(prose(page.read_text())).items():
        if source.startswith("ddbench "):
            assert answers(source, page) == [number], f"{page.name}: {number}: {source}"


def test_a_wrong_number_is_found():
    page = ROOT / "docs" / "results.md"
    command = "ddbench compare d3hr:decode_guidance=3 random --dataset digits --protocol hard --ipc 1"
    assert answers(command, page) != ["16.8 ± 8.2"] and len(answers(command, page)) == 1
    assert sourced(f"<!-- 1.0 ± 2.0, 3.0 ± 4.0: {command} -->") == {"1.0 ± 2.0": command, "3.0 ± 4.0": command}
    assert without_source("# A\n\nIt is 3 % better.\n") and not without_source("# A\n\n`ddbench x`: 3 % better.\n")
    assert NUMBER.findall(prose("so 1.0 ± 2.0\n| 3.0 ± 4.0 |\n")) == ["1.0 ± 2.0"]
