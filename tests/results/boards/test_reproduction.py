"""The table of reproductions: words from a file, numbers from reported.csv and records, kept by the update command."""

import csv
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from synthetic import make_record

from benchmark.cli.leaderboard import _reproduction, block
from benchmark.cli.leaderboard import leaderboard as command
from benchmark.core.errors import DataError, MissingError
from benchmark.results import records
from benchmark.results.boards import readme
from benchmark.results.boards.reported import Reported
from benchmark.results.boards.reproduction import COLUMNS, csv_text, read, table

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "results" / "reproduction.md"
CELL = {"paper": "P", "published": {"method": "a", "dataset": "digits", "ipc": 1}, "ours": {"protocol": "p"}}


def reported(value=70.0, **changes):
    known = {"method": "a", "dataset": "digits", "ipc": 1, "student": "s", "label_type": "hard", "protocol": ""}
    known |= {"value": value, "deviation": 0.5, "source": "a paper", "grade": "primary", "note": ""}
    return Reported(**{**known, **changes})


def row(value=70.0, half=1.0, **changes):
    known = {"method": "a", "dataset": "digits", "ipc": 1, "student": "s", "protocol": "p", "params": "{}", "seeds": 3}
    known |= {"top1_last": value, "top1_last_half": half, "top1_best": value + 3, "top1_best_half": half}
    return {**known, **changes}


def lines(tmp_path, *cells, rows=(), published=None):
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(list(cells)))
    return table(tmp_path / "r.yaml", lambda folder: list(rows), published or [reported()])


@pytest.mark.parametrize(
    "value, half, status",
    [(71.9, 0.1, "met"), (68.1, 0.1, "met"), (66.0, 4.5, "met"), (73.0, 0.5, "above"), (66.0, None, "missed")],
)
def test_near_or_within_the_interval_is_met(tmp_path, value, half, status):
    (line,) = lines(tmp_path, CELL, rows=[row(value, half)])
    assert line["status"] == status and line["difference"] == pytest.approx(value - 70.0)
    assert (line["measured"], line["half"], line["seeds"], line["published"]) == (value, half, 3, 70.0)
    assert line["why"] == ("" if status == "met" else "the reason is not found yet")


def test_the_papers_way_to_score_counts(tmp_path):
    (line,) = lines(tmp_path, CELL | {"score": "top1_best", "why": "w"}, rows=[row(70.0)])
    assert (line["measured"], line["status"], line["why"]) == (73.0, "above", "w")


def test_what_was_not_run_says_so(tmp_path):
    rest = {k: v for k, v in CELL.items() if k != "ours"}
    found = lines(tmp_path, CELL, rest | {"why": "wants a GPU"}, rows=[row(seeds=0), row(protocol="p2")])
    assert [line["status"] for line in found] == ["no records", "not attempted"]
    assert set(found[0]) == {name for name, _ in COLUMNS}


@pytest.mark.parametrize(
    "cell, rows, published, words",
    [
        (CELL, [row(), row(params='{"k":1}')], None, "ours means 2 rows"),
        (CELL | {"ours": {"protokol": "p"}}, [row()], None, "names no column: protokol"),
        (CELL, [row()], [reported(), reported(source="another")], "published means 2 rows"),
        (CELL, [row()], [reported(ipc=10)], "no reported number"),
        ({k: v for k, v in CELL.items() if k != "ours"}, [], None, "why"),
        (CELL | {"score": "top5"}, [row()], None, "score top5"),
        (CELL | {"teh": 1}, [row()], None, "teh"),
    ],
)
def test_a_cell_that_means_nothing_is_refused_by_name(tmp_path, cell, rows, published, words):
    with pytest.raises(DataError, match=words) as error:
        lines(tmp_path, cell, rows=rows, published=published)
    assert "cell 1 (P)" in str(error.value)


def test_rows_are_told_apart_by_their_beginning(tmp_path):
    cell = CELL | {"ours": {"protocol": "p", "params": '{"k":1'}}
    (line,) = lines(tmp_path, cell, rows=[row(), row(69.0, params='{"k":1,"l":2}')])
    assert line["measured"] == 69.0


def test_the_update_command_writes_page_and_data(tmp_path):
    for seed, value in enumerate((50.0, 51.0, 52.0)):
        made = make_record("rded", seed, dataset="cifar10", ipc=10, student="convnet3_bn", protocol="p", top1=value)
        records.write_record(tmp_path, made)
    published = {"method": "rded", "dataset": "cifar10", "ipc": 10, "student": "convnet3_bn"}
    cell = {"paper": "RDED", "published": published, "ours": {"protocol": "p"}, "command": "ddbench | run"}
    page = tmp_path / "mine.md"
    page.write_text("# Mine\n<!-- ddbench reproduction -->\nstale\n<!-- /ddbench -->\n")
    arguments = ["--results", str(tmp_path), "--update", str(page)]
    assert isinstance(CliRunner().invoke(command, arguments).exception, MissingError)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump([cell]))
    done = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    text = page.read_text()
    assert "stale" not in text and "| 50.2 | 51.0 ± 2.5 (3) | met |" in text and "ddbench \\| run" in text
    (line,) = csv.DictReader((tmp_path / "mine.csv").read_text().splitlines())
    assert (line["measured"], line["seeds"], line["status"], line["published"]) == ("51.0000", "3", "met", "50.2000")


def test_the_committed_table_is_what_the_command_makes(tmp_path):
    ((name, arguments, body),) = readme.blocks(PAGE.read_text())
    assert (name, arguments) == ("reproduction", [])
    assert body == block(name, arguments, PAGE, PAGE.parent), "ddbench leaderboard --update results/reproduction.md"
    data = PAGE.with_suffix(".csv").read_text()
    assert data == csv_text(_reproduction(PAGE))
    rows = list(csv.DictReader(data.splitlines()))
    assert len(rows) == len(read(PAGE.with_suffix(".yaml"))) and list(rows[0]) == [name for name, _ in COLUMNS]
    assert {row["status"] for row in rows} <= {"met", "above", "missed", "no records", "not attempted"}
    assert all(f"| {row['status']} |" in body for row in rows)
