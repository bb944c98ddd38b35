"""A bad file costs its class and no other: the others end, the row says which is missing, mending costs one class."""

import errno
import json

import pytest
from click.testing import CliRunner
from imagenet_tree import build

from benchmark.cli.run import run
from benchmark.core.errors import DataError
from benchmark.data import files
from benchmark.data.imagenet import IMAGENETTE
from benchmark.testing.bench import write_backbone


def inversions(store):
    """Names of the classes whose statistics are in the store, with how often each was begun."""
    lines = [json.loads(line) for line in (store / "work.jsonl").read_text().splitlines()]
    return len(list((store / "artifacts" / "d3hr.statistics").iterdir())), sum(
        line["stage"] == "d3hr.statistics" and "images" in line for line in lines
    )


def test_the_other_classes_end_and_the_mended_file_costs_one(tmp_path, monkeypatch):
    store = tmp_path / "store"
    build(tmp_path / "imagenette", train=4, val=2, wnids=IMAGENETTE, odd=False)
    monkeypatch.setenv("DDBENCH_CACHE", str(store))
    write_backbone(tmp_path / "backbone", 10)
    wnid = sorted(IMAGENETTE)[1]
    bad = sorted((tmp_path / "imagenette" / "train" / wnid).iterdir())[2]
    good = bad.read_bytes()
    bad.write_bytes(good[: len(good) // 2])
    command = ["--method", "d3hr", "--no-floor", "--dataset", "imagenette", "--data-root", str(tmp_path)]
    command += ["--image-size", "32", "--backbone", str(tmp_path / "backbone"), "--protocol", "smoke", "--waive-gate"]
    command += ["--set", "steps=4", "--set", "depth=2", "--set", "m=10", "--device", "cpu", "--jobs", "1"]
    command += ["--results", str(tmp_path / "results"), "--teacher", weights(tmp_path), "--seeds", "1"]
    failed = CliRunner().invoke(run, command, standalone_mode=False)
    assert failed.return_value == 1, failed.output
    (record,) = (json.loads(f.read_text()) for f in (tmp_path / "results" / "records").glob("*.json"))
    reason = record["outcome"]["reason"]
    assert f"class {wnid}" in reason and bad.name in reason and "repeat the command" in reason, reason
    assert inversions(store) == (9, 9)
    bad.write_bytes(good)
    done = CliRunner().invoke(run, command, standalone_mode=False)
    assert "done  d3hr ipc 1 seed 0 on imagenette" in done.output, done.output  # (its students: the teacher is random)
    assert inversions(store) == (10, 10)


def weights(folder):
    """A teacher that need not be trained."""
    from safetensors.torch import save_file

    from benchmark.students import build_student

    model = build_student("convnet3_bn", 10, 3, 32, 0)
    save_file(model.state_dict(), folder / "teacher.safetensors")
    return f"convnet3_bn@{folder / 'teacher.safetensors'}"


def test_a_disk_that_does_not_answer_is_asked_again(monkeypatch):
    monkeypatch.setattr(files, "PAUSES", (0.0, 0.0))
    answers = [OSError(errno.EIO, "Input/output error"), OSError(errno.ESTALE, "Stale file handle"), "read"]

    def read():
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    assert files.retried("a.png", read) == "read"
    answers[:] = [OSError(errno.EIO, "Input/output error")] * 3
    with pytest.raises(DataError, match="cannot be read now") as error:
        files.retried("a.png", read)
    assert "remove" not in error.value.hint and not answers
    with pytest.raises(FileNotFoundError):
        answers[:] = [FileNotFoundError(errno.ENOENT, "")]
        files.retried("a.png", read)
