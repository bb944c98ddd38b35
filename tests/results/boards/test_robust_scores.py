"""Scores that join several protocols' records: by hand, and through the command."""

import pytest
from click.testing import CliRunner
from synthetic import make_record

from benchmark.cli import cli
from benchmark.core.errors import MissingError, UsageError
from benchmark.results.boards.cells import collect
from benchmark.results.boards.robust import robust_rows
from benchmark.results.boards.robust_scores import augmentation_robust_score, label_robust_score, squashed
from benchmark.results.records import write_record

PLAIN = "soft+augment=[],mix=none"


def test_robust_scores_are_fractions():
    assert squashed(-1) == 0 and squashed(1) == 1
    # level with random and 30 points below full data: alpha = -0.15
    assert label_robust_score(60, 90, 70, 70) == pytest.approx(squashed(-0.15))
    assert label_robust_score(60, 90, 75, 70) > label_robust_score(60, 90, 70, 70) > label_robust_score(50, 90, 70, 70)
    assert augmentation_robust_score(72, 70, 64, 60) == pytest.approx(squashed(0.03))


def records_of(method, hard, soft, plain):
    """Records of two seeds under three protocols, whose teacher (95 %) is the student's network."""
    teacher = {"name": "convnet3", "key": "t" * 64}
    return [
        make_record(method, seed, ipc=10, protocol=name, top1=top1, teacher=given)
        for name, values, given in (("hard", hard, None), ("soft", soft, teacher), (PLAIN, plain, teacher))
        for seed, top1 in enumerate(values)
    ]


def all_records():
    return records_of("d3hr", [60, 64], [75, 76], [64, 66]) + records_of("random", [50, 50], [70, 73], [60, 60])


def test_they_come_from_the_records_of_three_protocols():
    rows = {r.method: r for r in robust_rows(collect(all_records()), "hard", "soft", PLAIN)}
    row = rows["d3hr"]
    assert row.full == 95 and row.seeds == 2 and row.missing == ""
    assert row.gap[0] == pytest.approx(0.33) and row.gain[0] == pytest.approx(0.04)
    assert row.label[0] == pytest.approx((squashed(0.025 - 0.175) + squashed(0.015 - 0.155)) / 2)  # paired by seed
    assert row.augmentation[0] == pytest.approx((squashed(0.025 + 0.02) + squashed(0.015 + 0.03)) / 2)
    assert row.label[1] > 0 and rows["random"].gain[0] == 0
    given = robust_rows(collect(all_records()), "hard", "soft", PLAIN, full=90)
    assert next(r for r in given if r.method == "d3hr").gap[0] == pytest.approx(0.28)


def test_what_a_score_lacks_is_named():
    records = records_of("d3hr", [60, 64], [75, 76], [])
    (row,) = robust_rows(collect(records), "hard", "soft", PLAIN)
    assert row.gap is not None and row.gain is row.label is row.augmentation is None
    assert row.missing == f"random under soft, protocol {PLAIN}"
    for record in records:
        record["identity"]["student"] = "resnet18"
    (row,) = robust_rows(collect(records), "hard", "soft", PLAIN)
    assert row.full is row.gap is None and "--full" in row.missing


def test_the_command_prints_fractions(tmp_path):
    for record in all_records():
        write_record(tmp_path, record)

    def run(*options):
        return CliRunner().invoke(cli, ["scores", "--results", str(tmp_path), *options])

    assert "0.330" in run().output and "label-robust" in run().output
    lines = run("--format", "csv").output.splitlines()
    assert len(lines) == 3 and lines[0].startswith("dataset,student,ipc,method")
    assert isinstance(run("--soft", "nothing").exception, MissingError)


def renamed(records, **identity):
    """The records with other values in their identities."""
    for record in records:
        record["identity"] |= identity
    return records


def test_one_full_accuracy_is_for_one_student_on_one_dataset(tmp_path):
    other = {"dataset": {"name": "other", "digest": "d" * 64}}
    for record in all_records() + renamed(all_records(), **other) + renamed(all_records(), student="resnet18"):
        write_record(tmp_path, record)

    def run(*options):
        return CliRunner().invoke(cli, ["scores", "--results", str(tmp_path), "--format", "csv", *options])

    refused = run("--full", "90")
    assert isinstance(refused.exception, UsageError) and "3 pairs" in str(refused.exception)
    assert isinstance(run("--full", "90", "--dataset", "digits").exception, UsageError)
    lines = run("--full", "90", "--dataset", "digits", "--student", "convnet3").output.splitlines()
    assert len(lines) == 3 and all(line.startswith("digits,convnet3,10,") for line in lines[1:])
    assert "did you mean 'digits'" in str(run("--dataset", "digit").exception)


def test_of_a_protocols_versions_the_highest_counts():
    old = records_of("d3hr", [10, 10], [20, 20], [20, 20]) + records_of("random", [9, 9], [9, 9], [9, 9])
    new = all_records()
    for version, records in ((9, old), (10, new)):
        for record in records:
            protocol = record["identity"]["protocol"]
            protocol |= {"version": version, "digest": ("a" if version == 10 else "b") * 64}
    mixed = {r.method: r for r in robust_rows(collect(old + new), "hard", "soft", PLAIN)}
    assert len(robust_rows(collect(old + new), "hard", "soft", PLAIN)) == 2
    assert mixed == {r.method: r for r in robust_rows(collect(new), "hard", "soft", PLAIN)}
    (row,) = [r for r in robust_rows(collect(old[:6] + new[6:] + old[6:]), "hard", "soft", PLAIN) if r.method == "d3hr"]
    assert row.gain[0] == pytest.approx(0.11)  # both under the old version, whatever else there is
