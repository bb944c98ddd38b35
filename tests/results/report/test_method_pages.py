"""The page about methods, and what their docstrings must say."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthetic import make_record

from benchmark.cli.leaderboard import block
from benchmark.plugins import registry
from benchmark.plugins.infos import USES
from benchmark.results import records
from benchmark.results.report import methods

ROOT = Path(__file__).resolve().parents[3]
OURS = {name: info for name, info in registry().items["method"].items() if methods.ours(info)}


@pytest.mark.parametrize("name", OURS)
def test_a_method_says_how_it_works_what_it_needs_and_costs_and_whose_its_defaults_are(name):
    cls, info = OURS[name].load(), OURS[name]
    text = " ".join(cls.__doc__.split())
    for word in (r"[Nn]eeds", r"costs", r"Defaults"):
        assert re.search(word, text), f"{name} does not say: {word}"
    uses = cls(cls.Params()).needs()
    assert info.uses in USES and (info.uses == "backbone") == uses.backbone
    assert info.uses != "images" or not uses.teacher
    assert f"### {name}\n" in (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")


def test_the_page_has_costs_of_the_records_and_pictures_of_the_sheets(tmp_path):
    from benchmark.sets.folder import contact_sheet

    records.write_record(tmp_path, make_record("rded", dataset="digits", ipc=1, distill_seconds=90.0))
    (tmp_path / "sets").mkdir()
    thumbs = {(c, 0): np.full((8, 8, 1), 20 * c, np.uint8) for c in range(3)}
    contact_sheet(thumbs, list("abc"), [0, 1, 2]).save(tmp_path / "sets" / "digits-rded-ipc1-s0-12345678.png")
    assert methods.draw(tmp_path / "sets", tmp_path / "page") == ["rded"]
    with Image.open(tmp_path / "page" / "rded.png") as picture:
        assert picture.size == (3 * 42 - 2, 40)
        assert [picture.getpixel((x, 20)) for x in (20, 41, 62, 104)] == [0, 255, 20, 40]
    text = block("methods", [], tmp_path / "page.md", tmp_path)
    part = text.split("### rded\n")[1].split("###")[0]
    assert "digits IPC 1 90.0 s" in part and "(page/rded.png)" in part and "2312.03526" in part
    assert "page/dm.png" not in text and text.index("### random") < text.index("### rded") < text.index("### d3hr")
