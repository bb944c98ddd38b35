"""The functions that notebooks call, and the notebook that shows them."""

import json
import shutil
import time
from pathlib import Path

import pandas
import pytest
import torch

from benchmark import api
from benchmark.core.errors import MissingError, UsageError
from benchmark.results.records import Record

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "notebooks" / "python.ipynb"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "store"))
    return tmp_path


def test_the_notebook_runs_in_under_a_minute(folder, digits_teacher_store):
    """Every code cell, in order; what a cell asserts holds."""
    shutil.copytree(digits_teacher_store.root, folder / "store")
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 6 and all(not cell.get("outputs") for cell in cells)  # outputs would go stale
    began, names = time.process_time(), {}
    for number, text in enumerate(code):
        exec(compile(text, f"{NOTEBOOK.name} cell {number}", "exec"), names)  # noqa: S102
    assert time.process_time() - began < 60  # of processor time: tests share the machine
    made, frame, board = names["made"], names["frame"], names["board"]
    assert [type(r) for r in made] == [Record, Record] and [r.identity.seed for r in made] == [0, 1]
    assert isinstance(frame, pandas.DataFrame) and len(frame) == 2
    assert set(frame["id"]) == {r.identity.id for r in made} == {r.id for r in made}
    assert len(board) == 1 and board["top1_last"][0] == pytest.approx(frame["scores.top1_last"].mean(), abs=1e-3)
    assert (folder / "results" / "leaderboard.csv").is_file()


def test_what_is_wrong_is_said_before_any_work(folder):
    with pytest.raises(UsageError, match="did you mean 'random'"):
        api.run("randon", "digits")
    with pytest.raises(MissingError, match="1. data"):
        api.run("random", "cifar10")
    with pytest.raises(UsageError, match=r"uint8 \[N, C, side, side\]"):
        api.evaluate(torch.zeros(10, 1, 8, 8), torch.arange(10), dataset="digits")
    with pytest.raises(UsageError, match="no manifest that names its dataset"):
        api.load_set(folder)
    assert not (folder / "results").exists() and api.records().empty


@pytest.mark.parametrize(
    "call, named, words",
    [
        ("run", {"ipc": []}, "ipc must be a whole number, or a list of at least one"),
        ("run", {"ipc": [1.5]}, "ipc must be"),
        ("run", {"ipc": (0, 1)}, "ipc = 0 is out of range"),
        ("run", {"seeds": 10**9}, "1 to 10,000"),
        ("run", {"seeds": [-1]}, "seeds = -1"),
        ("run", {"seeds": True}, "seeds must be"),
        ("run", {"student": None}, "student must be a name"),
        ("run", {"sets": "m=1"}, "sets must be a dict"),
        ("run", {"precision": None}, "precision must be text"),
        ("run", {"device": "cuda:x"}, "device"),
        ("run", {"jobs": 0}, "jobs"),
        ("run", {"results": b"x"}, "results must be a path"),
        ("run", {"image_size": "8"}, "image_size must be a whole number"),
        ("run", {"dataset": 3}, "dataset must be text"),
        ("run", {"method": []}, "no method"),
        ("load_set", {"source": 3}, "source must be a folder"),
        ("records", {"results": None}, "results must be a path"),
        ("leaderboard", {"results": 1.0}, "results must be a path"),
        ("evaluate", {"images": None}, "images must be a dense torch tensor"),
        ("evaluate", {"labels": list(range(10))}, "labels must be a dense torch tensor"),
        ("evaluate", {"labels": torch.arange(10.0)}, "whole numbers"),
        ("evaluate", {"labels": torch.arange(10) + 1}, "labels"),
        ("evaluate", {"images": torch.zeros(10, 1, 8, 4, dtype=torch.uint8)}, "side"),
        ("evaluate", {"seed": 1.5}, "seed must be a whole number"),
    ],
)
def test_nonsense_is_refused_by_an_error_of_ours(folder, call, named, words):
    good = {"run": {"method": "random", "dataset": "digits"}}
    good["evaluate"] = {"images": torch.zeros(10, 1, 8, 8, dtype=torch.uint8), "labels": torch.arange(10)}
    good["evaluate"]["dataset"] = "digits"
    with pytest.raises(UsageError) as error:
        getattr(api, call)(**good.get(call, {}) | named)
    assert words in str(error.value), error.value
    assert not (folder / "results").exists()


def test_every_argument_of_the_calls_is_checked():
    from benchmark.api.arguments import FITS

    for name in ("run", "evaluate", "load_set", "records", "leaderboard"):
        for label, annotation in getattr(api, name).__annotations__.items():
            assert label == "return" or annotation.removesuffix(" | None") in FITS, (name, label, annotation)


def test_every_public_name_is_there_and_documented():
    for name in api.__all__:
        assert getattr(api, name) is not None, name
    for name in ("run", "evaluate", "load_set", "records", "leaderboard"):
        assert getattr(api, name).__doc__ and getattr(api, name).__annotations__["return"]
