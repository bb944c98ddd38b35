import csv
import io
import random

import pandas
import pytest
from scipy import stats
from synthetic import make_record

from benchmark.results import boards as leaderboard
from benchmark.results import records
from benchmark.results.boards import boards, csv_text, table
from benchmark.results.boards.cells import collect, rows_of
from benchmark.results.boards.columns import DTYPES, FLAGS


def board(*made):
    return leaderboard.rows([records.sealed(r) for r in made])


def runs(method, values, **options):
    return [make_record(method, seed, top1=value, **options) for seed, value in enumerate(values)]


def test_mean_interval_and_paired_gain_against_scipy():
    d3hr, floor = [86.0, 88.0, 84.0, 90.0], [70.0, 75.0, 71.0]
    rows = board(*runs("d3hr", d3hr), *runs("random", floor))
    row = next(r for r in rows if r["method"] == "d3hr")
    low, high = stats.t.interval(0.95, 3, loc=87.0, scale=stats.sem(d3hr))
    assert row["top1_last"] == pytest.approx(87.0) and row["top1_last_half"] == pytest.approx((high - low) / 2)
    difference = [16.0, 13.0, 13.0]  # the shared seeds 0 1 2
    low, high = stats.t.interval(0.95, 2, loc=14.0, scale=stats.sem(difference))
    assert row["gain_over_random"] == pytest.approx(14.0) and row["gain_half"] == pytest.approx((high - low) / 2)
    assert row["gain_seeds"] == 3 and row["seed_list"] == "0 1 2 3"


@pytest.mark.parametrize("change", [
    {"protocol": "other"}, {"dataset": "other"}, {"student": "resnet18"}, {"ipc": 10},
    {"teacher": {"name": "resnet18", "key": "f" * 64}}, {"backbone": {"name": "tiny", "key": "e" * 64}},
    {"params": {"depth": 3}}, {"precision": {"dtype": "float32", "autocast": "bfloat16", "tf32": True}},
])  # fmt: skip
def test_never_averages_over_anything_but_seeds(change):
    rows = board(*runs("d3hr", [80, 82, 84]), *[make_record("d3hr", s, top1=20, **change) for s in (3, 4)])
    assert sorted((r["top1_last"], r["seeds"]) for r in rows) == [(20, 2), (82, 3)]


def test_sets_made_with_two_teachers_are_two_rows():
    """Class labels need no teacher, the method did."""
    made = []
    for key, values in (("a" * 64, (40, 41, 42)), ("b" * 64, (90, 91, 92, 93, 94))):
        for seed, value in enumerate(values):
            record = make_record("rded", seed, top1=value)
            record["identity"]["method"]["inputs"] = {"teacher": {"name": "resnet18", "key": key}}
            made.append(record)
    rows = board(*made)
    assert sorted((r["top1_last"], r["seeds"], r["inputs"]) for r in rows) == [
        (41, 3, "teacher resnet18 " + "a" * 12), (92, 5, "teacher resnet18 " + "b" * 12)]  # fmt: skip
    assert len(set(boards.labels(rows))) == 2


def test_a_seed_that_was_skipped_counts_no_more_once_it_is_there():
    skipped = [make_record("d4m", s, status="skipped", reason="no model") for s in range(3)]
    for record in skipped:
        record["identity"]["set"] = ""
    (row,) = board(*skipped, *runs("d4m", [80.0, 82.0]))
    assert (row["seeds"], row["skipped"], row["top1_last"]) == (2, 1, 81.0)


@pytest.mark.parametrize("change", [
    {"protocol": "other"}, {"dataset": "other"}, {"student": "resnet18"}, {"ipc": 10},
    {"teacher": {"name": "resnet18", "key": "f" * 64}},
])  # fmt: skip
def test_gain_needs_random_of_the_same_column(change):
    rows = board(*runs("d3hr", [80, 82, 84]), *runs("random", [70, 70, 70], **change))
    row = next(r for r in rows if r["method"] == "d3hr")
    assert row["gain_over_random"] is None and row["flags"] == "no-random"


def test_failures_and_skips_are_rows():
    rows = board(
        make_record("sre2l", 0, status="failed", reason="NaN loss\nin step 3"),
        *runs("d3hr", [80.0, 81.0]), make_record("d3hr", 2, status="failed", reason="killed"),
        make_record("minimax", 0, status="skipped", reason="no such IPC"),
    )  # fmt: skip
    by = {r["method"]: r for r in rows}
    assert (by["sre2l"]["failed"], by["sre2l"]["seeds"], by["sre2l"]["reason"]) == (1, 0, "NaN loss in step 3")
    assert by["d3hr"]["top1_last"] == 80.5 and set(by["d3hr"]["flags"].split()) == {
        "few-seeds",
        "no-random",
        "failures",
    }
    assert by["minimax"]["skipped"] == 1


def test_flags_of_one_set_waived_gate_and_precision():
    fixed = runs("kmeans", [80, 81, 82])
    for record in fixed:
        record["identity"]["set"] = "a" * 64
    waived = runs("noise", [10, 11, 12])
    for record in waived:
        record["gates"]["set"]["status"] = "waived"
    bf16 = {"dtype": "float32", "autocast": "bfloat16", "tf32": True, "compile": False}
    rows = board(*fixed, *waived, *runs("random", [1, 2, 3]), *runs("d3hr", [1, 2, 3], precision=bf16))
    flags = {r["method"]: r["flags"] for r in rows}
    assert flags == {"kmeans": "one-set", "noise": "gate-waived", "random": "", "d3hr": "precision"}
    assert set(" ".join(flags.values()).split()) <= set(FLAGS)


def test_a_remark_of_several_words_stays_one_flag():
    made = runs("random", [1, 2, 3])
    for record in made:
        record["outcome"]["flags"] = ["out of memory: micro-batches of 8", "skipped 2"]
    (row,) = rows = board(*made)
    assert row["flags"] == "out-of-memory:-micro-batches-of-8 skipped-2"
    (made,) = boards.boards(rows)
    assert boards.flags(made) == {"out-of-memory:-micro-batches-of-8": 1, "skipped-2": 1}


def test_a_folder_evaluated_under_the_same_name_is_a_row_of_its_own():
    """Its seeds share one set and were made later; the cell of the method's own sets stays whole."""
    later = []
    for seed in range(4):
        record = make_record("d3hr", seed, top1=10)
        record["identity"]["set"] = "b" * 64
        record["provenance"]["created"] = "2027-01-01T00:00:00Z"
        later.append(record)
    rows = board(*later, *runs("d3hr", [80, 82, 84]), *runs("random", [70, 70, 71]))
    found = sorted((r["top1_last"], r["seeds"], r["set"]) for r in rows if r["method"] == "d3hr")
    assert found == [(10, 4, "b" * 12), (82, 3, "")]
    text = leaderboard.table([records.sealed(r) for r in (*later, *runs("d3hr", [80, 82, 84]))])
    assert "d3hr (set bbbbbb)" in text and "d3hr  " in text


def test_csv_bytes_do_not_depend_on_the_order_of_records(tmp_path):
    made = [*runs("d3hr", [80, 81.5, 84]), *runs("random", [70, 71, 72]), *runs("d3hr", [1, 2, 3], ipc=10)]
    made += [make_record("sre2l", 0, status="failed", reason='a "quoted", reason')]
    made = [records.sealed(r) for r in made]
    first = leaderboard.write_csv(made, tmp_path / "a.csv").read_bytes()
    for seed in range(5):
        random.Random(seed).shuffle(made)
        assert leaderboard.write_csv(made, tmp_path / "b.csv").read_bytes() == first
    for record in made:
        records.write_record(tmp_path, record)
    assert leaderboard.write_csv(records.iter_records(tmp_path), tmp_path / "c.csv").read_bytes() == first
    assert b"\r" not in first


def test_pandas_reads_the_csv_with_the_same_types_whatever_is_empty(tmp_path):
    full = leaderboard.write_csv([records.sealed(r) for r in runs("d3hr", [80, 81])], tmp_path / "full.csv")
    failed = [records.sealed(make_record("NA", 0, status="failed", reason="null"))]
    empty = leaderboard.write_csv(failed, tmp_path / "empty.csv")
    frames = [leaderboard.read_csv(full), leaderboard.read_csv(empty)]
    assert frames[0].dtypes.equals(frames[1].dtypes)
    assert {n: str(t) for n, t in frames[0].dtypes.items()} == DTYPES
    assert frames[1]["method"][0] == "NA" and frames[1]["backbone"][0] == ""  # text stays text
    assert frames[1]["top1_last"][0] is pandas.NA and frames[0]["top1_last"][0] == 80.5
    assert list(pandas.read_csv(full)["seeds"]) == [2]


def test_further_scores_become_columns():
    record = make_record("d3hr")
    record["scores"]["robust_linf"] = 12.0
    rows = board(record)
    assert rows[0]["score.robust_linf"] == 12.0
    header, line = leaderboard.csv_text(rows).splitlines()
    assert header.endswith(",score.robust_linf") and line.endswith(",12.0000")


def test_terminal_table_says_what_is_proved_and_what_is_not():
    made = [*runs("d3hr", [86, 87, 86.5]), *runs("random", [70, 72, 71]), *runs("kmeans", [85, 89, 86])]
    text = leaderboard.table([records.sealed(r) for r in made], focus=["d3hr"])
    line = {x.split()[0]: x for x in text.splitlines() if x.strip()}
    assert "better" in line["random"] and "undecided" in line["kmeans"]
    assert "86.5 ± 1.2" in line["d3hr"] and "+15.5 ± 1.2" in line["d3hr"]
    assert "digits, IPC 1, convnet3, protocol clean-hard v1" in text
    assert leaderboard.table([]) == ""


def test_a_part_of_a_folder_is_measured_against_the_folders_random():
    """`run --no-floor` shows only its own cells; gains come from the folder's records of random, and no flag lies."""
    own, folder = runs("d3hr", [80, 82, 84]), [*runs("random", [70, 70, 70]), *runs("kmeans", [75, 75, 75])]
    (row,) = rows_of(collect(own), collect([*own, *folder]))
    assert row["gain_over_random"] == pytest.approx(12) and row["flags"] == "" and row["gain_seeds"] == 3
    text = table(own, beside=[*own, *folder])
    assert "+12.0 ± 5.0" in text and "no-random" not in text and "kmeans" not in text
    (alone,) = rows_of(collect(own))
    assert alone["flags"] == "no-random"
    nearer = runs("random", [79, 79, 79])  # of the same run: before others of the folder
    row = next(r for r in rows_of(collect([*own, *nearer]), collect(folder)) if r["method"] == "d3hr")
    assert row["gain_over_random"] == pytest.approx(3)


def test_a_long_reason_is_a_short_line_in_the_csv():
    trace = "Traceback (most recent call last):\n  File x\n" + "ValueError: broken\n" * 200
    record = make_record("sre2l", 0, status="failed", reason=trace)
    made = board(record)
    (line,) = list(csv.DictReader(io.StringIO(csv_text(made))))
    assert len(line["reason"]) <= 200 and line["reason"].startswith("Traceback (most recent call last): File x")
    assert line["reason"].endswith(" …") and "\n" not in csv_text(made).split("\n", 1)[1].rstrip("\n")
    assert len(made[0]["reason"]) > 3000 and record["outcome"]["reason"] == trace
    (line,) = list(csv.DictReader(io.StringIO(csv_text(board(make_record("a", 0, status="failed", reason="short"))))))
    assert line["reason"] == "short"
