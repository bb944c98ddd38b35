"""Some classes of a dataset: what is computed for them serves the whole, and a pilot says what the rest takes."""

import pytest
from click.testing import CliRunner

from benchmark.cli.run import plan, run
from benchmark.core.errors import UsageError
from benchmark.data import load_dataset
from benchmark.data.classes import chosen_labels
from benchmark.testing.bench import write_backbone

NAMES = [f"class {i}" for i in range(20)]
FOLDERS = [f"n{i:08d}" for i in range(20)]


def test_classes_are_a_count_or_labels_or_names():
    assert chosen_labels("4", NAMES, FOLDERS) == (0, 5, 10, 15)
    assert chosen_labels("3-5,1", NAMES, FOLDERS) == (1, 3, 4, 5)
    assert chosen_labels("n00000007, Class 2", NAMES, FOLDERS) == (2, 7)
    assert chosen_labels("7,9", ["7", "8", "9"], FOLDERS[:3]) == (0, 2)  # classes that are called by numbers
    for wrong, said in (("clas 3", "did you mean 'class 3'"), ("1", "cannot"), ("25-30", "no labels"), ("3,", "two")):
        with pytest.raises(UsageError, match=said):
            chosen_labels(wrong, NAMES, FOLDERS)


def test_a_part_keeps_each_class():
    whole, part = load_dataset("digits"), load_dataset("digits", classes="3,8")
    assert part.name == "digits@2classes" and part.classes == ("3", "8") and part.digest != whole.digest
    for label, (number, there) in enumerate(zip((3, 8), part.train.by_class)):
        assert part.backbone_class(label) == number
        assert part.train.class_digest(label) == whole.train.class_digest(number)
        assert (part.train.images(there) == whole.train.images(whole.train.by_class[number])).all()
    assert load_dataset("digits", classes=10) is whole
    assert part.without_test().whole is not whole  # nor is the whole's test split to be seen


COMMON = ["--method", "d3hr", "--no-floor", "--dataset", "digits", "--protocol", "smoke", "--device", "cpu"]
COMMON += ["--jobs", "1", "--set", "steps=4", "--set", "depth=2", "--set", "m=10", "--ipc", "2", "--waive-gate"]


def test_the_whole_reuses_a_pilot(tmp_path, monkeypatch):
    write_backbone(tmp_path / "backbone", 10)
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "store"))
    common = [*COMMON, "--backbone", str(tmp_path / "backbone"), "--results", str(tmp_path / "results")]
    piloted = CliRunner().invoke(run, [*common, "--classes", "3", "--pilot", "--seeds", "2"], standalone_mode=False)
    assert piloted.return_value == 0, piloted.output
    assert "d3hr: 2 set(s) of IPC 2" in piloted.output and "to go" in piloted.output, piloted.output
    assert "3 cached stages inside" in piloted.output
    planned = CliRunner().invoke(plan, [*common, "--seeds", "2"], standalone_mode=False)
    told = "10 cached stages inside these jobs, 3 are there; sets share them: 10 uses more"
    assert told in planned.output, planned.output + str(planned.exception)
