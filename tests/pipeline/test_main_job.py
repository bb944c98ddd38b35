"""The main job end to end, at the smallest size: from a command to records, a board and a contact sheet."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmark.core.store import Store


def records(folder: Path) -> dict:
    """(identity, outcome, scores) by record id."""
    found = [json.loads(p.read_text()) for p in sorted((folder / "records").glob("*.json"))]
    return {r["id"]: (r["identity"], r["outcome"], r["scores"]) for r in found}


def made(tmp_path: Path) -> list[str]:
    """The kinds of artifacts in the store (the teacher is put there by the fixture)."""
    return sorted(p.name for p in (tmp_path / "store" / "artifacts").iterdir())


@pytest.mark.slow
def test_run_resume_and_executor_agree(ddbench, smoke, tmp_path):
    first = ddbench(*smoke, "--jobs", "1")
    one = records(tmp_path / "results")
    assert len(one) == 2 and all(outcome["status"] == "ok" for _, outcome, _ in one.values())
    assert (tmp_path / "results" / "leaderboard.csv").is_file() and "random" in first.stdout
    sheet = next((tmp_path / "results" / "sets").glob("*.png"))
    assert str(sheet.relative_to(tmp_path)) in first.stdout

    work = (tmp_path / "store" / "work.jsonl").read_text()
    again = ddbench(*smoke)
    assert "evaluate  2 reused, 0 to do" in again.stdout and records(tmp_path / "results") == one
    assert (tmp_path / "store" / "work.jsonl").read_text() == work, "the second run worked"

    other = ddbench(*smoke, "--jobs", "2", "--results", "two", DDBENCH_CACHE=str(tmp_path / "other-store"))
    assert other.returncode == 0 and records(tmp_path / "two") == one, "two workers gave other results than one"


@pytest.mark.slow
def test_distill_then_evaluate_and_shards(ddbench, tmp_path):
    base = ["distill", "--method", "random", "--dataset", "digits", "--ipc", "2", "--seeds", "1"]
    ddbench(*base, "--out", "whole", "--jobs", "1")
    assert len(list((tmp_path / "whole").glob("*/*.png"))) == 20
    shards = {"DDBENCH_CACHE": str(tmp_path / "sharded")}
    half = ddbench(*base, "--out", "joined", "--shard", "0/2", "--jobs", "1", **shards)
    assert "1 parts are still to be made" in half.stdout and not (tmp_path / "joined").exists()
    ddbench(*base, "--out", "joined", "--shard", "1/2", "--jobs", "3", **shards)  # machines need not be alike
    for file in (tmp_path / "whole").glob("*/*.png"):
        assert file.read_bytes() == (tmp_path / "joined" / file.relative_to(tmp_path / "whole")).read_bytes()

    ddbench("evaluate", "whole", "--protocol", "smoke", "--seeds", "1", "--as", "mine", "--jobs", "1")
    (identity, outcome, scores), *rest = records(tmp_path / "results").values()
    assert identity["method"]["name"] == "mine" and identity["ipc"] == 2 and outcome["status"] == "ok" and not rest
    assert 0 <= scores["top1_last"] <= 100

    wrong = ddbench("evaluate", "whole", "--protocol", "smoke", "--ipc", "2,50", "--jobs", "1", check=False)
    assert wrong.returncode == 3 and "2 images a class, not 50" in wrong.stderr

    next((tmp_path / "whole").glob("*/*.png")).unlink()
    broken = ddbench("evaluate", "whole", "--protocol", "smoke", check=False)
    assert broken.returncode == 3 and "has 1 images, the manifest says 2" in broken.stderr


@pytest.mark.parametrize(
    "change, code, message",
    [
        (["--method", "d3rh"], 2, "did you mean 'd3hr'"),
        (["--dataset", "digit"], 2, "did you mean 'digits'"),
        (["--student", "resnet19"], 2, "did you mean 'resnet18'"),
        (["--student", "timm:resnet27"], 2, "resnet26"),
        (["--time-limit", "-1"], 2, "--time-limit"),
        (["--protocol", "sfot"], 2, "did you mean 'soft'"),
        (["--ipc", "0"], 2, "IPC 0"),
        (["--ipc", "-3"], 2, "IPC -3"),
        (["--ipc", "many"], 2, "whole numbers"),
        (["--ipc", "100000"], 2, "IPC 100000"),
        (["--seeds", "0"], 2, "--seeds"),
        (["--set", "kk=1"], 2, "no parameter 'kk'"),
        (["--set", "protocol.epohcs=1"], 2, "epochs"),
        (["--set", "protocol.batch=much"], 2, "batch"),
        (["--set", "novalue"], 2, "KEY=VALUE"),
        (["--method", "d3hr", "--set", "lambda_skew=abc"], 2, "lambda_skew must be a number"),
        (["--method", "d3hr", "--set", "start_step=18.5"], 2, "start_step must be a whole number"),
        (["--method", "d3hr", "--set", "spread=nan"], 2, "spread"),
        (["--device", "abacus"], 2, "--device"),
        (["--precision", "fp8"], 2, "--precision"),
        (["--executor", "rya"], 2, "executor"),
        (["--jobs", "0"], 2, "--jobs"),
        (["--dataset", "fashionmnist", "--data-root", "nowhere"], 3, "nowhere"),
        (["--dataset", "imagefolder:nowhere"], 3, "nowhere"),
        (["--results", "/proc/results"], 2, "--results"),
        (["--frobnicate"], 2, "--frobnicate"),
    ],
)
def test_bad_input_is_refused_before_any_work(refused, smoke, change, code, message, tmp_path):
    found, text = refused(*smoke, *change)
    assert found == code, text
    assert message in text and "Traceback" not in text
    assert not (tmp_path / "results" / "records").exists() and made(tmp_path) == ["teacher"]


def test_an_unwritable_store_is_refused(ddbench, smoke, tmp_path):
    (tmp_path / "file").write_text("")
    done = ddbench(*smoke, check=False, DDBENCH_CACHE=str(tmp_path / "file" / "x"))
    assert done.returncode == 2 and "DDBENCH_CACHE" in done.stderr


def test_plan_says_what_is_cached_and_runs_nothing(ddbench, smoke, tmp_path):
    done = ddbench("plan", *smoke[1:])
    assert "evaluate: 2 jobs, 0 cached, 2 to do" in done.stdout and made(tmp_path) == ["teacher"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
@pytest.mark.slow
def test_a_store_that_fills_up_is_one_clear_error_and_resumes(ddbench, smoke, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=50m", "none", str(disk)], capture_output=True).returncode:
        pytest.skip("this sandbox cannot mount")
    try:
        place = {"DDBENCH_CACHE": str(disk / "store")}
        ddbench("plan", *smoke[1:], **place)  # the fixture puts the teacher there
        free = shutil.disk_usage(disk).free
        with open(disk / "ballast", "wb") as file:
            file.write(b"x" * (free - 40_000))
        full = ddbench(*smoke, "--jobs", "1", check=False, **place)
        assert full.returncode == 1 and "no space left" in full.stderr and "Traceback" not in full.stderr
        artifacts = [p for kind in ("set", "student") for p in (disk / "store" / "artifacts" / kind).glob("*")]
        assert not any(Store.fault(p) for p in artifacts) and not list((disk / "store" / "tmp").glob("*"))
        (disk / "ballast").unlink()
        ddbench(*smoke, "--jobs", "1", **place)
        found = records(tmp_path / "results").values()
        assert len(found) == 2 and all(outcome["status"] == "ok" for _, outcome, _ in found)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
