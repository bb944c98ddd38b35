"""What somebody else made, refused for what it is; and that no module goes round the one place that checks it."""

import os
import re
from pathlib import Path

import pytest
from PIL import Image

from benchmark.core import escape
from benchmark.core.errors import DataError, UsageError
from benchmark.core.foreign import check_name, inside, opened_image, parse_json, parse_yaml, read_bytes, read_json

ROOT = Path(__file__).parents[2]
# pattern -> files in which it may stand
ONLY = {
    r"Image\.open\(": ("core/foreign.py", "evaluation/metrics/robustness.py"),  # the latter: of its own bytes
    r"yaml\.(safe_)?load\(": ("core/foreign.py", "backbones/settings.py", "d3hr_plugin/method.py"),  # package data
    r"allow_pickle=True|shell=True|weights_only=False|trust_remote_code=True": (),
}


@pytest.mark.parametrize("pattern", ONLY)
def test_there_is_one_place(pattern):
    files = [f for top in ("benchmark", "baselines", "d3hr_plugin") for f in (ROOT / top).rglob("*.py")]
    found = {str(f.relative_to(ROOT)) for f in files if re.search(pattern, f.read_text(encoding="utf-8"))}
    assert {name for name in found if not name.endswith(ONLY[pattern] or "none")} == set()


@pytest.mark.parametrize(
    "name", ["../a", "/a", "a/../b", "a//b", "", ".", "a/.", "a\x00b", "a\nb", "\u202ea", "x" * 256, 3, None, "\ud800"]
)
def test_a_name_that_leads_elsewhere(name, tmp_path):
    with pytest.raises(DataError, match="no plain path"):
        inside(tmp_path, name)


def test_links_are_not_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").write_text("secret")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "in" / "file").symlink_to(tmp_path / "real" / "a")
    assert inside(tmp_path, "real/a").read_text() == "secret"
    for name in ("in/link/a", "in/file"):
        with pytest.raises(DataError, match="is a link"):
            inside(tmp_path, name)
    with pytest.raises(DataError, match="is a link"):
        read_bytes(tmp_path / "in" / "file")
    assert read_bytes(tmp_path / "in" / "file", links=True) == b"secret"


def test_what_is_no_file_or_too_large_is_refused_before_it_is_read(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "large").write_bytes(b"x" * 100)
    for name, words in (("fifo", "no regular file"), (".", "no regular file"), ("large", "too large")):
        with pytest.raises(DataError, match=words):
            read_bytes(tmp_path / name, most=50)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none")


@pytest.mark.parametrize(
    "text",
    ["[" * 60 + "]" * 60, "[" * 200_000, "9" * 400, "[1e999]", "NaN", '"\\ud800"', '{"a": [NaN]}', "{", "-Infinity",
     "[" + "9" * 5000 + "]"],
)  # fmt: skip
def test_json_that_no_code_expects(text):
    with pytest.raises(ValueError):
        parse_json(text)


def test_plain_json_passes():
    assert parse_json('{"a": [1, -2.5e3, null, true, "[[[\\u00e9 NaN 99999999999999999999"]}')["a"][1] == -2500.0


BOMB = "\n".join(["a0: &a0 [x, x, x, x]"] + [f"a{i}: &a{i} [" + f"*a{i - 1}, " * 10 + "]" for i in range(1, 9)])


@pytest.mark.parametrize("text", ["&a [*a]", "!!python/object/apply:os.system [id]", "[1", "9" * 5000, BOMB])
def test_yaml_that_no_code_expects(text):
    with pytest.raises(UsageError, match="not YAML"):
        parse_yaml(text)


def test_only_pictures_are_opened(tmp_path):
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")
    Image.new("L", (1, 5000)).save(tmp_path / "long.png")
    for name, words in (("a.png", "not a picture in PNG"), ("long.png", "absurd size")):
        with pytest.raises(DataError, match=words), opened_image(tmp_path / name) as image:
            image.load()


def test_names_go_into_records_as_printable_text():
    assert check_name("imagefolder:/data/Käfer 漢字", "dataset", "--dataset")
    for name in ("", "go\udcff", "a\x1bb", "a\u202eb"):
        with pytest.raises(UsageError):
            check_name(name, "dataset", "--dataset")


def test_text_is_escaped_for_where_it_is_shown():
    assert escape.markdown("![t](http://x) a|b `c` <b> *d*\n# e \\") == (
        "!\\[t]\\(http://x) a\\|b \\`c\\` &lt;b> \\*d\\* # e \\\\"
    )
    assert escape.markdown("d3hr (depth=30), 86.5 ± 1.0 [1]") == "d3hr (depth=30), 86.5 ± 1.0 [1]"
    assert [escape.csv_cell(v) for v in ("=1", "+1", "-1", "@a", "a", -1.5)] == ["'=1", "'+1", "'-1", "'@a", "a", -1.5]
    assert escape.terminal("a\x1b]0;t\x07\x1b[31mb\n\u202e") == "a\\x1b]0;t\\x07\x1b[31mb\n\\x202e"
