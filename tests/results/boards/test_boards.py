import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from synthetic import make_record

from benchmark import cli
from benchmark.cli.leaderboard import block
from benchmark.cli.leaderboard import leaderboard as command
from benchmark.core.errors import DataError, DDBenchError, MissingError, UsageError
from benchmark.core.sheet import markdown
from benchmark.results import boards as leaderboard
from benchmark.results import records
from benchmark.results.boards import boards, formats, readme
from benchmark.results.boards.reported import read_reported

ROOT = Path(__file__).parents[3]


def runs(method, values, **options):
    return [records.sealed(make_record(method, seed, top1=v, **options)) for seed, v in enumerate(values)]


def board(*groups):
    return boards.boards(leaderboard.rows([record for group in groups for record in group]))


NOTE = {"on": "digits@val", "digest": "d" * 64, "protocol": "hard", "student": "convnet3", "trials": 4, "seeds": 2}


def tuned(method, values, *, note=NOTE, **options):
    made = runs(method, values, **options)
    for record in made:
        record["artifacts"]["tuning"] = note | {"top1": 50.0, "params": options["params"]}
    return [records.sealed(record) for record in made]


def test_a_tuned_method_is_one_line_whatever_its_settings_are_at_each_ipc():
    one, ten = tuned("a", [50, 51, 52], params={"g": 1}), tuned("a", [60, 61, 62], params={"g": 2}, ipc=10)
    (made,) = board(one, ten, runs("a", [40, 41, 42], params={"g": 4}), runs("b", [1, 2, 3]))
    lines = {e.label: sorted(c.ipc for c in e.rows) for e in made.entries}
    assert lines == {"a (tuned)": [1, 10], "a": [1], "b": [1]}
    assert made.notes == ["Tuned: best of 4 trials (2 seeds each) on digits@val, protocol hard, student convnet3."]


def test_the_authors_settings_are_a_line_of_their_own_beside_the_default_and_the_tuned():
    by_name = tuned("a", [45, 46, 47], params={"g": 8}, note={"settings": "authors"})
    (made,) = board(tuned("a", [50, 51, 52], params={"g": 1}), runs("a", [40, 41, 42], params={"g": 4}), by_name)
    assert {e.label for e in made.entries} == {"a (tuned)", "a", "a (authors)"}
    assert made.notes[-1] == "Rows (authors): what the method's authors set, where our default is another."


def test_two_tunings_of_one_method_in_a_column_are_told_apart_by_their_settings():
    other = tuned("a", [60, 61, 62], params={"g": 2}, note=NOTE | {"trials": 8})
    (made,) = board(tuned("a", [50, 51, 52], params={"g": 1}), other)
    assert {e.label for e in made.entries} == {"a (g=1)", "a (g=2)"} and len(made.notes) == 2


def test_never_one_board_for_two_protocols_or_datasets():
    made = board(runs("a", [50, 51, 52]), runs("a", [70, 71, 72], protocol="p2"), runs("a", [1, 2, 3], dataset="d2"))
    assert [(b.dataset, b.protocol, len(b.entries)) for b in made] == [
        ("d2", "clean-hard", 1), ("digits", "clean-hard", 1), ("digits", "p2", 1),
    ]  # fmt: skip


def test_teachers_are_columns_apart_and_named():
    teachers = [{"name": "resnet18", "key": c * 64} for c in "ab"]
    (made,) = board(*[runs("a", [50, 51, 52], teacher=t) for t in teachers])
    assert [made.heading(c) for c in made.columns] == ["IPC 1 resnet18 aaaaaa", "IPC 1 resnet18 bbbbbb"]
    assert "2 different teachers" in made.notes[0]


def test_backbones_and_precisions_are_said():
    bf16 = {"dtype": "float32", "autocast": "bfloat16", "tf32": True, "compile": False}
    made = board(
        runs("a", [50, 51, 52], backbone={"name": "tiny", "key": "a" * 64}),
        runs("a", [60, 61, 62], backbone={"name": "small", "key": "b" * 64}),
        runs("b", [60, 61, 62], precision=bf16),
    )
    notes = " ".join(made[0].notes)
    assert "2 different backbones" in notes and "Precisions differ: bf16, fp32" in notes
    assert {e.label for e in made[0].entries} == {"a (on tiny, backbone aaaaaa)", "a (on small, backbone bbbbbb)", "b"}


def test_labels_name_only_what_differs():
    made = board(*[runs("a", [50, 51, 52], params={"depth": d, "steps": 50}) for d in (10, 30)])
    assert {e.label for e in made[0].entries} == {"a (depth=10)", "a (depth=30)"}


def test_the_top_set_is_what_paired_tests_do_not_refute():
    (made,) = board(runs("best", [80, 81, 82]), runs("tie", [77, 79, 83]), runs("worse", [60, 61.2, 62]))
    column = made.columns[0]
    assert [e.label for e in made.entries] == ["best", "tie", "worse"]
    assert boards.marks(made) == {(0, column): "top", (1, column): "top", (2, column): "below"}
    (made,) = board(runs("best", [80, 81, 82]), runs("other", [70, 71, 73]), runs("one-seed", [20]))
    assert boards.marks(made)[2, made.columns[0]] == "?"  # nothing is known about its spread


def test_a_skipped_cell_stands_in_the_column_of_those_that_ran():
    teacher = {"name": "resnet18", "key": "f" * 64}
    (made,) = board(
        runs("a", [50, 51, 52], teacher=teacher),
        [records.sealed(make_record("b", 0, status="skipped", reason="no such IPC"))],
    )
    assert len(made.columns) == 1 and [e.label for e in made.entries] == ["a", "b"]
    assert "skipped" in markdown([formats.sheet(made)])


def made_with(values, key, **options):
    """Runs of method a whose sets need a backbone and a teacher."""
    made = [
        make_record("a", seed, top1=v, backbone={"name": key * 3, "key": key * 64}, **options)
        for seed, v in enumerate(values)
    ]
    for record in made:
        record["identity"]["method"]["inputs"] = {"teacher": {"name": "resnet18", "key": key * 64}}
    return [records.sealed(record) for record in made]


def test_a_skipped_cell_stands_in_the_line_of_its_method():
    skipped = [records.sealed(make_record("a", s, ipc=50, status="skipped", reason="too many")) for s in range(3)]
    (made,) = board(made_with([50, 51, 52], "b"), skipped)
    assert [e.label for e in made.entries] == ["a"] and len(made.columns) == 2
    assert "| skipped |" in markdown([formats.sheet(made)])
    (made,) = board(made_with([50, 51, 52], "b"), made_with([60, 61, 62], "c"), skipped)
    assert len(made.entries) == 3  # which of the two would it have been?
    (made,) = board(made_with([50, 51, 52], "b"), [make_record("a", params={"k": 1}, status="skipped", reason="no")])
    assert len(made.entries) == 2  # another variant


def test_what_was_skipped_once_gives_way_to_what_ran():
    stale = [records.sealed(make_record("a", s, status="skipped", reason="no backbone")) for s in range(3)]
    (made,) = board(stale, made_with([50, 51, 52], "b"))
    ((entry,), (column,)) = made.entries, made.columns
    assert entry.rows[column]["top1_last"] == 51


@pytest.fixture
def results(tmp_path):
    for ipc in (1, 10):
        for record in [
            *runs("d3hr", [70 + ipc, 71 + ipc, 72 + ipc], dataset="fashionmnist", student="convnet3_in", ipc=ipc),
            *runs("dc", [60 + ipc, 61 + ipc, 62 + ipc], dataset="fashionmnist", student="convnet3_in", ipc=ipc),
            *runs("random", [50 + ipc, 51 + ipc, 50 + ipc], dataset="fashionmnist", student="convnet3_in", ipc=ipc),
        ]:
            records.write_record(tmp_path, record)
    records.write_record(
        tmp_path,
        make_record("bad_one", 0, dataset="fashionmnist", student="convnet3_in", status="failed", reason="50% & #1"),
    )
    return tmp_path


def invoke(*arguments):
    return CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False)


def test_markdown_shows_result_gain_and_reported_apart(results):
    text = invoke("--results", results, "--format", "markdown", "--ipc", "1").output
    line = next(x for x in text.splitlines() if x.startswith("| dc "))
    assert "62.0 ± 2.5 (+10.7)" in line and "70.5 [1]" in line  # measured and published, two columns
    assert "[1] reported by: DC repository readme" in text
    assert "| **72.0 ± 2.5 (+20.7)** |" in text
    assert not re.search(r"\| random .*reported", text)


def test_reported_numbers_never_enter_rows(results):
    rows = leaderboard.rows(records.iter_records(results))
    assert all(row["top1_last"] != 70.5 for row in rows)
    none = invoke("--results", results, "--format", "markdown", "--no-reported").output
    assert "reported" not in none


def test_latex_is_balanced_and_escaped(results):
    text = invoke("--results", results, "--format", "latex").output
    depth = 0
    for char in re.sub(r"\\[{}\\%&#_$]", "", text.split("\n", 1)[1]):
        depth += {"{": 1, "}": -1}.get(char, 0)
        assert depth >= 0
    assert depth == 0
    stack = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            stack.append(name)
        else:
            assert stack.pop() == name
    assert not stack and "bad\\_one" in text and text.isascii()
    spec = re.search(r"\\begin\{tabular\}\{(\w+)\}", text)[1]
    body = text.split("\\toprule")[1].split("\\bottomrule")[0]
    lines = [x for x in body.splitlines() if x.endswith("\\\\")]
    assert lines and all(len(re.findall(r"(?<!\\)&", x)) == len(spec) - 1 for x in lines)


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no TeX here")
def test_latex_compiles(results, tmp_path):
    records.write_record(results, make_record("x_y", 0, params={"a_b": "50% & #~^\\{é} <b>"}, dataset="d_1", top1=1.0))
    records.write_record(results, make_record("x_y", 0, params={"a_b": "–"}, dataset="d_1", top1=2.0))
    records.write_record(results, make_record("random", 0, dataset="d_1", top1=3.0))
    invoke("--results", results, "--format", "latex", "--out", tmp_path / "board.tex")
    text = (tmp_path / "board.tex").read_text()
    assert "($-$2.0)" in text and "(+1" in text
    head = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\\input{board}\\end{document}"
    (tmp_path / "doc.tex").write_text(head)
    run = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "doc.tex"]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and (tmp_path / "doc.pdf").is_file(), done.stdout[-2000:]


def test_html_is_well_formed(results):
    open_tags = []

    class Check(html.parser.HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag not in ("meta", "br"):
                open_tags.append(tag)

        def handle_endtag(self, tag):
            assert open_tags.pop() == tag

    Check().feed(invoke("--results", results, "--format", "html").output)
    assert not open_tags


def test_json_keeps_measured_and_reported_apart(results):
    document = json.loads(invoke("--results", results, "--format", "json").output)
    assert len(document["rows"]) == 7 and all(item["source"] for item in document["reported"])


def test_command_writes_the_csv_and_a_filter_does_not(results):
    invoke("--results", results, "--method", "d3hr")
    assert not (results / "leaderboard.csv").exists()
    printed = invoke("--results", results, "--format", "csv").output
    assert (results / "leaderboard.csv").read_text() == printed


def test_wrong_requests(results, tmp_path):
    with pytest.raises(UsageError, match="did you mean 'd3hr'"):
        invoke("--results", results, "--method", "d3h")
    with pytest.raises(MissingError):
        invoke("--results", tmp_path / "none")
    path = next((results / "records").glob("*.json"))
    path.write_text(path.read_text().replace("fashionmnist", "mnist"))
    told = invoke("--results", results)  # named, left out, the rest is shown
    assert "edited" in told.output and "fashionmnist" in told.output
    for more, code in (([], 1), (["--ignore-bad"], 0)):
        with pytest.raises(SystemExit) as end:
            cli.main(["leaderboard", "--results", str(results), *more])
        assert end.value.code == code
    assert issubclass(DataError, DDBenchError)


def test_a_filter_can_name_a_variant():
    made = [*runs("a", [80, 82], params={"m": 3.0}), *runs("a", [70, 71], params={"m": 4}), *runs("b", [60, 61])]
    rows = leaderboard.rows(made)
    found = boards.select(rows, {"method": ["a:m=3,b"]})
    assert {(row["method"], json.loads(row["params"]).get("m")) for row in found} == {("a", 3.0), ("b", None)}
    for variant, words in (
        ("a:m=5", "no record has m=5"),
        ("a:n=3", "unknown parameter 'n'"),
        ("a:m", "'m' is not KEY=VALUE"),
        ("a:", "'' is not KEY=VALUE"),
        ("b:m=3", "unknown parameter 'm'"),
        ("c:m=3", "no record has the method 'c:m=3'"),
    ):
        with pytest.raises(UsageError, match=words) as error:
            boards.select(rows, {"method": [variant]})
        assert variant in str(error.value)
    assert "a:m=3.0, a:m=4" in _allowed(rows, "a:m=5")


def _allowed(rows, variant):
    with pytest.raises(UsageError) as error:
        boards.select(rows, {"method": [variant]})
    return error.value.allowed


def test_a_page_compares_records_of_a_folder_of_its_own(results, tmp_path):
    page, study = tmp_path / "page.md", tmp_path / "study"
    for record in runs("a", [80, 82, 90]) + runs("b", [70, 71, 78]):
        records.write_record(study, record)
    page.write_text("<!-- ddbench compare a b --results study -->\n<!-- /ddbench -->\n")
    invoke("--results", results, "--update", page)
    assert "**digits, protocol clean-hard v1: a − b**" in page.read_text() and "**+11.0 ± 2.5 †**" in page.read_text()


def test_update_refreshes_blocks_in_a_file(results, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A\n<!-- ddbench leaderboard --ipc 10 -->\nstale line\n<!-- /ddbench -->\nend\n")
    invoke("--results", results, "--update", page)
    text = page.read_text()
    assert "stale line" not in text and text.startswith("# A\n") and text.endswith("<!-- /ddbench -->\nend\n")
    ((_, arguments, body),) = readme.blocks(text)
    assert body == invoke("--results", results, "--format", "markdown", *arguments).output.replace("\r", "")
    page.write_text("no block")
    with pytest.raises(UsageError):
        invoke("--results", results, "--update", page)


COMMITTED = [ROOT / "results", *sorted((ROOT / "results" / "studies").glob("*/"))]


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda folder: folder.name)
def test_committed_board_is_rebuilt_byte_for_byte(folder, tmp_path):
    new = leaderboard.write_csv(records.iter_records(folder), tmp_path / "new.csv")
    assert new.read_bytes() == (folder / "leaderboard.csv").read_bytes()


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda folder: folder.name)
def test_tables_in_the_pages_equal_what_the_command_prints(folder):
    pages = [
        folder / "README.md",
        *([ROOT / "README.md", ROOT / "docs" / "results.md"] if folder.name == "results" else []),
    ]
    found = [(page, *block_) for page in pages for block_ in readme.blocks(page.read_text())]
    assert found
    for page, name, arguments, body in found:
        assert body == block(name, arguments, page, folder), (
            f"ddbench leaderboard --results {folder.name} --update {page.name}"
        )


def test_every_reported_number_has_a_source_and_a_grade():
    items = read_reported()
    assert len(items) > 400 and all(i.source and i.grade in ("primary", "secondary") for i in items)
    assert all(0 < i.value < 100 and i.label_type in ("soft", "hard", "unstated") for i in items)
    assert not any("memory" in i.source for i in items)
    d3hr = [i for i in items if (i.method, i.dataset, i.ipc, i.student) == ("d3hr", "imagenet1k", 50, "resnet18")]
    assert [(i.value, i.deviation, i.grade) for i in d3hr] == [(59.4, 0.1, "secondary")]


def test_reported_rows_without_source_are_refused(tmp_path):
    text = (ROOT / "results" / "reported.csv").read_text().splitlines()
    name = text[0].split(",").index("source")
    broken = "dc,mnist,1,convnet3_in,hard,,91.7,,,primary,"
    assert broken.split(",")[name] == ""
    (tmp_path / "r.csv").write_text("\n".join([text[0], broken]))
    with pytest.raises(DataError, match="no source"):
        read_reported(tmp_path / "r.csv")


def test_shipped_copy_equals_the_committed_one():
    shipped = ROOT / "benchmark" / "results" / "boards" / "reported.csv"
    assert shipped.read_bytes() == (ROOT / "results" / "reported.csv").read_bytes()


def test_update_rebuilds_the_csv_too_so_that_it_cannot_part_from_the_table(results, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- ddbench leaderboard --method d3hr -->\nstale\n<!-- /ddbench -->\nafter\n")
    (results / "leaderboard.csv").write_text("old")
    assert "leaderboard.csv rebuilt" in invoke("--results", results, "--update", page).output
    assert (results / "leaderboard.csv").read_text() == leaderboard.csv_text(
        leaderboard.rows(records.iter_records(results))  # all rows, whatever the block shows
    )
    assert "stale" not in page.read_text() and "| d3hr |" in page.read_text()


def test_the_same_content_under_two_names_is_one_board():
    both = [
        *runs("random", [50, 52, 51], dataset="imagefolder:pets"),
        *runs("random", [50.5, 52, 51], dataset="pets"),
        *runs("d3hr", [60, 61, 62], dataset="imagefolder:pets"),
    ]
    for record in both:  # synthetic digests are of the names
        record["identity"]["dataset"]["digest"] = record["identity"]["set"] = "d" * 64
    rows = leaderboard.rows(both)
    assert {row["dataset"] for row in rows} == {"pets"} and [row["method"] for row in rows] == ["d3hr", "random"]
    assert [row["seeds"] for row in rows] == [3, 3]  # of a seed in both, the one that was evaluated later
