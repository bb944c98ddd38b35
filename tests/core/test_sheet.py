"""The table writer: one sheet in every format."""

import csv
import html.parser
import io
import json

import pytest

from benchmark.core.errors import UsageError
from benchmark.core.sheet import FORMATS, Sheet, Text, choose, plain, render, simple


def made() -> Sheet:
    lines = [[Text("a_b"), Text("1.0 (-2.3)", "top"), Text("-4.0"), Text("9 %")], [Text("c|d"), *[Text("–")] * 3]]
    groups = ["", "net", "net", ""]
    return Sheet("T & U", ["method", "IPC 1 net", "IPC 10 net", "x"], "lrrl", "Words.", lines, ["note <1>"], groups)


def test_students_stand_once_above_their_columns():
    tex, page = render([made()], "latex"), render([made()], "html", "H & H")
    assert " & \\multicolumn{2}{c}{net} &  \\\\\n\\cmidrule(lr){2-3}\nmethod & IPC 1 & IPC 10 & x \\\\" in tex
    assert '<th class="group" colspan="2">net</th>' in page and ">IPC 1</th>" in page
    assert "| method | IPC 1 net | IPC 10 net | x |" in render([made()], "markdown")
    html.parser.HTMLParser().feed(page)


def test_each_format_has_one_minus_sign():
    texts = {form: render([made()], form) for form in ("table", "markdown", "latex", "html")}
    assert "(-2.3)" in texts["table"] and "(-2.3)" in texts["markdown"]
    assert "($-$2.3)" in texts["latex"] and "& $-$4.0 &" in texts["latex"]
    assert "(−2.3)" in texts["html"] and "-4.0" not in texts["html"]


def test_labels_are_one_a_table_and_text_is_escaped():
    tex = render([made(), made()], "latex")
    assert "\\label{tab:t-u}" in tex and "\\label{tab:t-u-2}" in tex and "\\caption{T \\& U.}" in tex
    assert "a\\_b" in tex and "9 \\%" in tex and "note $<$1$>$" in tex
    assert "c\\|d" in render([made()], "markdown") and "note &lt;1&gt;" in render([made()], "html")


def test_columns_are_chosen_by_their_heads_in_order():
    s = made()
    choose([s], ["x,IPC*", "method"])
    assert s.headers == ["x", "IPC 1 net", "IPC 10 net", "method"] and s.align == "lrrl"
    assert [cell.text for cell in s.lines[0]] == ["9 %", "1.0 (-2.3)", "-4.0", "a_b"]
    with pytest.raises(UsageError, match="did you mean 'method'"):
        choose([s], ["methods"])


def test_data_formats_hold_documents_where_there_are_some():
    s = simple("", ["n", "v"], [("=a", 1.25)], documents=[{"name": "=a", "value": 1.25}])
    assert json.loads(render([s], "json")) == [{"name": "=a", "value": 1.25}]
    assert list(csv.DictReader(io.StringIO(render([s], "csv")))) == [{"name": "'=a", "value": "1.25"}]
    assert json.loads(render([simple("", ["n"], [(None,)])], "json")) == [{"n": "–"}]


def test_an_empty_table_is_written_in_every_format():
    for form in FORMATS:
        assert isinstance(render([simple("t", ["a", "b"], [])], form), str)
    assert plain([simple("t", ["a", "b"], [])]).startswith("t\na")
