"""The top set of a column: one function, which boards and ``compare`` agree on."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from synthetic import make_record

from benchmark.cli.leaderboard import leaderboard as command
from benchmark.core.bits import pack
from benchmark.core.sheet import markdown
from benchmark.results import records
from benchmark.results.boards import boards, formats
from benchmark.results.boards.cells import collect, rows_of
from benchmark.results.boards.compare import compare, summarise, table_p
from benchmark.results.boards.standing import Column, Member, verdict
from benchmark.results.records.schema import seal
from benchmark.results.statistics import Results, difference

ROOT = Path(__file__).parents[3]
FOLDERS = [ROOT / "results", *sorted((ROOT / "results" / "studies").glob("*/"))]


def column(*values, whole=()):
    members = [
        Member(Results(dict(enumerate(v)) if isinstance(v, list) else v), i not in whole) for i, v in enumerate(values)
    ]
    return Column(members)


def standings(made):
    return [made.standing(i) for i in range(len(made.members))]


def test_what_a_paired_test_refutes_is_no_tie_though_intervals_overlap():
    """Every seed differs by about three points, seeds among themselves by ten."""
    made = column([80, 90, 85, 88, 82], [77.1, 86.9, 82.0, 84.8, 79.1], [79, 91, 84, 89, 82])
    assert standings(made) == ["top", "below", "top"]


def test_too_few_shared_seeds_and_survivors_are_unknown():
    made = column([80, 81, 82], {0: 79, 1: 80}, {0: 99, 1: 97, 2: 99}, [70, 71.1, 72], whole=(2,))
    assert made.best == 0 and standings(made) == ["top", "?", "?", "below"]
    assert standings(column([80, 81], [70, 71])) == ["?", "?"]  # nothing can be tested, nothing is bold
    assert (
        standings(column([80, 81, 82], [80.5, 81, 82], whole=(1,)))[1] == "?"
    )  # survivors never share the first place


def test_a_method_that_failed_stands_below_whole_ones_and_its_failures_are_counted():
    made = [make_record("lucky", s, top1=90.0 + s) for s in range(3)]
    made += [make_record("lucky", 3, status="failed", reason="refused")]
    made += [make_record("whole", s, top1=80.0 + s) for s in range(4)]
    (board,) = boards.boards(rows_of(collect(map(records.sealed, made))))
    assert [e.label for e in board.entries] == ["whole", "lucky"]
    text = markdown([formats.sheet(board)])
    assert "| 3 (1 failed) |" in text and "| lucky | 91.0 ± 2.5 ? |" in text


def test_the_order_of_two_lines_does_not_depend_on_a_third():
    def order(*methods):
        values = {"a": (90, 20), "b": (60, 55), "c": (10, 95)}
        made = [
            make_record(m, s, ipc=ipc, top1=float(v + s))
            for m in methods for ipc, v in zip((1, 10), values[m]) for s in range(3)
        ]  # fmt: skip
        (board,) = boards.boards(rows_of(collect(map(records.sealed, made))))
        return [e.label for e in board.entries]

    assert order("a", "b") == ["b", "a"] and [m for m in order("a", "b", "c") if m != "c"] == ["b", "a"]


def test_bits_widen_the_interval_by_the_test_images():
    random = np.random.default_rng(0)
    hard = random.random(100) < 0.3  # images that every student gets wrong
    made = []
    for seed in range(5):
        right = ~hard & (random.random(100) < 0.95)
        record = make_record("a", seed, top1=100 * float(right.mean()))
        record["scores"]["right"] = pack(right)
        made.append(records.sealed(record))
    assert records.verify_record(made[0]) == []
    (row,) = rows_of(collect(made))
    assert row["top1_last_half_both"] > 8 > 3 > row["top1_last_half"]
    made[0]["scores"]["right"] = pack([True] * 100)
    assert any("scores.right" in fault for fault in records.verify_record({**made[0], "digest": seal(made[0])}))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_boards_and_compare_agree_on_every_pair_of_committed_records(folder):
    """For every pair with a column's best: `compare` says worse where the board marks no tie, and nowhere else."""
    cells = collect(records.iter_records(folder))
    seen = 0
    for board in boards.boards(rows_of(cells)):
        marks = boards.marks(board)
        for c in board.columns:
            lines = {i: e.rows[c] for i, e in enumerate(board.entries) if (i, c) in marks}
            tops = [i for i in lines if marks[i, c] == "top"]
            if not tops:
                continue
            top = lines[tops[0]]
            here = [x for x in cells if x.key.column == tuple(top[n] for n in x.key._fields[:9])]
            tests = Column([Member(x.results(), x.whole) for x in here])
            place = {i: next(n for n, x in enumerate(here) if same(x, row)) for i, row in lines.items()}
            best = next(i for i in lines if place[i] == tests.best)
            assert all(row["top1_last"] <= lines[best]["top1_last"] for i, row in lines.items() if i in tops)
            for i in lines:
                if i == best:
                    continue
                d = difference(here[place[best]].results(), here[place[i]].results())
                told = verdict(d, tests.differ(place[best], place[i]))
                assert {"top": "undecided", "below": "better", "?": told}[marks[i, c]] == told, (board.title, c, i)
                assert lines[i]["standing"] == marks[i, c]
                if told == "better":
                    assert d.p < 0.05 and d.mean > d.half  # corrected: what differs here differs in its plain interval
                seen += 1
    assert seen or len(cells) < 5


def same(cell, row):
    return all(getattr(cell.key, name) == row[name] for name in cell.key._fields)


def test_compare_names_the_verdict_of_the_board():
    values = {"a": [80, 90, 85, 88, 82], "b": [77.1, 86.9, 82.0, 84.8, 79.1], "c": [79, 91, 84, 89, 82]}
    cells = collect(records.sealed(make_record(m, s, top1=v)) for m, vs in values.items() for s, v in enumerate(vs))
    told = {other: compare(cells, "c", other)[0].verdict for other in "ab"}
    assert told == {"a": "undecided", "b": "better"}
    (pair,) = compare(cells, "c", "b")
    (summary,) = summarise([pair])
    assert (summary.mean_difference, summary.half) == (pair.difference, pair.half) and summary.seeds == 5
    assert table_p([pair, pair, pair]) == pytest.approx([3 * pair.p] * 3)


def test_results_of_few_seeds_can_be_left_out_and_their_number_is_said(tmp_path):
    for method, count in (("many", 5), ("few", 3)):
        for s in range(count):
            records.write_record(tmp_path, make_record(method, s, top1=50.0 + s))
    out = CliRunner().invoke(command, ["--results", str(tmp_path), "--min-seeds", "5", "--format", "markdown"])
    assert "| many |" in out.output and "| few |" not in out.output and "left out: 1." in out.output
    assert "few" in (tmp_path / "leaderboard.csv").read_text()
