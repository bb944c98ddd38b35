import shutil
import subprocess

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from synthetic import make_record

from benchmark.cli.export import export as command
from benchmark.core.errors import DataError, MissingError, UsageError
from benchmark.data import load_dataset
from benchmark.results.records import write_record
from benchmark.sets.folder import read_set, write_set

FP32 = {"dtype": "float32", "autocast": None, "tf32": False, "compile": False}
BACKBONE = {"name": "/home/me/dit", "key": "a" * 64}


@pytest.fixture
def made(tmp_path):
    """A distilled set of digits, two images a class, as the pipeline writes it."""
    digits = load_dataset("digits")
    rng = np.random.default_rng(0)
    images = [(c, i, rng.integers(0, 255, (8, 8, 1), dtype=np.uint8)) for c in range(10) for i in range(2)]
    meta = {
        "method": {"name": "d3hr", "version": 1, "params": {"depth": 30}},
        "seed": 0,
        "backbone": BACKBONE,
        "precision": FP32,
        "ddbench": "0.1",
        "cost": {"seconds": 12.5, "device": "cpu"},
    }
    folder = tmp_path / "set"
    folder.mkdir()
    write_set(folder, digits, 2, images, meta)
    return folder


def invoke(*arguments):
    return CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False)


def test_exported_set_is_read_back(made, tmp_path):
    out = tmp_path / "hub" / "set"
    assert invoke(made, "--out", out, "--license", "cc-by-4.0", "--results", tmp_path / "none").exit_code == 0
    digits = load_dataset("digits")
    ours, back = read_set(made, digits), read_set(out, digits)
    assert back.digest == ours.digest and (back.images == ours.images).all()


def test_card_says_how_it_was_made_and_how_well_it_does(made, tmp_path):
    results = tmp_path / "results"
    digest = load_dataset("digits").digest
    for seed in range(3):
        for method, params, score in (("d3hr", {"depth": 30}, 80), ("d3hr", {"depth": 5}, 20), ("random", {}, 70)):
            backbone = BACKBONE if method == "d3hr" else None
            record = make_record(method, seed, ipc=2, params=params, top1=score + seed, backbone=backbone)
            record["identity"]["dataset"]["digest"] = digest
            write_record(results, record)
    invoke(made, "--out", tmp_path / "out", "--results", results)
    text = (tmp_path / "out" / "README.md").read_text()
    head = yaml.safe_load(text.split("---")[1])
    assert head["configs"][0]["data_files"] == [{"split": "train", "path": "*/*.png"}] and head["license"] == "other"
    assert "| depth | 30 |" in text and "81.0 ± 2.5 | +10.0 ± 0.0 | 3 |" in text and "21.0" not in text
    assert "/home/me" not in text  # nothing of the machine


@pytest.mark.parametrize("change", [
    lambda i: i["backbone"].update(key="b" * 64),
    lambda i: i["precision"].update(tf32=True),
    lambda i: i["method"].update(version=2),
    lambda i: i["method"].update(inputs={"teacher": {"name": "resnet18", "key": "c" * 64}}),
    lambda i: i.update(set="d" * 64),
])  # fmt: skip
def test_the_scores_of_other_sets_are_left_out_of_the_card(made, tmp_path, change):
    digest = load_dataset("digits").digest
    for created, score in (("2026-01-01", 80.0), ("2026-01-02", 20.0)):  # what came later is the folder evaluated
        for seed in range(3):
            record = make_record("d3hr", seed, ipc=2, params={"depth": 30}, top1=score, backbone={**BACKBONE})
            record["identity"]["dataset"]["digest"] = digest
            record["provenance"]["created"] = created
            if score == 20.0:
                change(record["identity"])
            write_record(tmp_path / "results", record)
    invoke(made, "--out", tmp_path / "out", "--results", tmp_path / "results")
    text = (tmp_path / "out" / "README.md").read_text()
    assert "| 80.0 ± 0.0 |" in text and "| 20.0 ± 0.0 |" not in text


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="no sha256sum here")
def test_checksums_can_be_checked_with_the_usual_tool(made, tmp_path):
    invoke(made, "--out", tmp_path / "out", "--results", tmp_path / "none")
    check = ["sha256sum", "-c", "--quiet", "checksums.sha256"]
    assert subprocess.run(check, cwd=tmp_path / "out").returncode == 0
    (tmp_path / "out" / "manifest.json").write_text("{}")
    assert subprocess.run(check, cwd=tmp_path / "out", capture_output=True).returncode != 0


def test_what_cannot_be_exported(made, tmp_path):
    with pytest.raises(MissingError):
        invoke(tmp_path / "none", "--out", tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    with pytest.raises(UsageError, match="not empty"):
        invoke(made, "--out", tmp_path / "full")
    picture = next(made.glob("*/*.png"))
    picture.write_bytes(picture.read_bytes() + b"x")
    with pytest.raises(DataError, match="SHA-256"):
        invoke(made, "--out", tmp_path / "out")
    picture.unlink()
    with pytest.raises(DataError, match="missing"):
        invoke(made, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))
