"""A report and a Markdown board of records that attack: no script runs, nothing is loaded, every table is whole."""

import json
import re

import pytest
from browser import CHROMIUM, DRIVER, headless
from synthetic import make_record

from benchmark.core.errors import JobError
from benchmark.core.sheet import html_page, latex, markdown
from benchmark.results import records
from benchmark.results.boards import rows
from benchmark.results.boards.boards import boards
from benchmark.results.boards.formats import sheet
from benchmark.results.boards.table import csv_text
from benchmark.results.report import build

PROBE = "http://127.0.0.1:9/probe"
NAMES = (
    "<!--<script>",
    "</script><script>document.title='run'</script>",
    f"<img src={PROBE} onerror=document.title='run'>",
    f"![t]({PROBE}.png)",
    f"[t]({PROBE}) | cell | **bold**",
    f"[t][r] `code` ~~x~~ [r]: {PROBE}",
    "a\\| b \\",
    "&lt;script&gt;&#60;b&#62;",
    "=cmd|' /C calc'!A0",
    "javascript:document.title='run'",
)
REASON = f"\n\n# T\n\n| a |\n|---|\n![t]({PROBE})\n[r]: {PROBE}\n<script>document.title='run'</script>"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    for name in NAMES:
        for seed in range(2):
            records.write_record(folder, make_record(name, seed, params={name: name}, device=name))
    records.write_record(folder, make_record(NAMES[0], 9, dataset=NAMES[1], protocol=NAMES[2], student=NAMES[3]))
    records.write_record(folder, make_record(NAMES[4], 9, status="failed", reason=REASON))
    return folder


def sheets(results):
    made = list(boards(rows(records.iter_records(results))))
    return made, [sheet(board) for board in made]


def as_html(text: str) -> str:
    """Markdown rendered as GitHub does: CommonMark with tables and raw HTML."""
    parser = pytest.importorskip("markdown_it").MarkdownIt("commonmark", {"html": True}).enable("table")
    return f"<!doctype html><html data-ready=yes><title>board</title><body>{parser.render(text)}</body></html>"


def test_text_formats_hold_one_cell_a_cell(results):
    made, found = sheets(results)
    text = markdown(found)
    for block, one in zip(text.split("\n\n**"), found):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len(lines) == len(one.lines) + 2
        columns = {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines}
        assert columns == {len(one.headers) + 1}, columns
    assert "](" not in text and "![" not in text and "<script" not in text and "<img" not in text
    table = csv_text(rows(records.iter_records(results)))
    assert "\n=" not in table and ",=" not in table and ",'=cmd" in table
    tex = latex(found)
    assert tex.count("\\begin{table}") == len(made) and "\\input" not in tex and "<script" not in html_page(found)


@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver")
def test_in_a_browser_nothing_runs_and_nothing_is_loaded(results, tmp_path):
    (tmp_path / "report.html").write_text(build(records.iter_records(results), results, NAMES[1]), encoding="utf-8")
    text = markdown(sheets(results)[1])
    (tmp_path / "board.html").write_text(as_html(text), encoding="utf-8")
    with headless() as browser:
        browser.open(tmp_path / "report.html")
        shown = browser.run("return document.querySelectorAll('#rows tbody tr, table tbody tr').length")
        told = browser.run("return document.body.innerText")
        assert shown >= len(NAMES) + 2 and all(name in told for name in NAMES[:4]), (shown, told[:2000])
        titles = [browser.run("return document.title")]
        browser.open(tmp_path / "board.html")
        titles.append(browser.run("return document.title"))
        assert titles == [NAMES[1], "board"]
        assert browser.run("return document.querySelectorAll('img, script, a, h1, iframe').length") == 0
        widths = browser.run(
            "return [...document.querySelectorAll('table')].map(t => [...t.rows].map(r => r.cells.length))"
        )
        assert len(widths) == 2 and all(len(set(lines)) == 1 for lines in widths), widths
        asked = [json.loads(entry["message"])["message"] for entry in browser.log("performance")]
        urls = [m["params"]["request"]["url"] for m in asked if m["method"] == "Network.requestWillBeSent"]
        assert not [url for url in urls if not url.startswith(("file:", "data:"))], urls
        assert not [e for e in browser.log("browser") if e["level"] == "SEVERE"]


def test_names_that_no_terminal_should_see_are_no_records(tmp_path):
    for name in ("\x1b]0;t\x07", "a\nb", "\u202egnp", "\ud800"):
        with pytest.raises(JobError, match="not valid"):
            records.write_record(tmp_path, make_record(name))
