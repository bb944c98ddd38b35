import os
import re
import resource
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from benchmark.cli.doctor import doctor
from benchmark.data import loading
from benchmark.pipeline import requirements


@pytest.fixture(autouse=True)
def bare(tmp_path, monkeypatch):
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DDBENCH_DATA", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(requirements, "gpus", lambda: [])
    loading._load.cache_clear()
    yield
    loading._load.cache_clear()


def pets(base, side):
    for part in ("train", "val"):
        for c, name in enumerate(("cat", "dog")):
            (base / part / name).mkdir(parents=True)
            for i in range(4):
                noise = np.random.default_rng([c, i]).integers(0, 256, (side, side, 3), dtype=np.uint8)
                Image.fromarray(noise).save(base / part / name / f"{i}.jpg")
    return base


def run(*arguments):
    result = CliRunner().invoke(doctor, list(arguments), standalone_mode=False)
    if result.exception:
        raise result.exception
    return result.return_value, result.output


def test_digits_are_ready():
    code, text = run("--dataset", "digits")
    assert code == 0 and "1,347 images in 10 classes" in text and "Ready:  ddbench run" in text
    assert "teacher    convnet3_bn: not there yet" in text and "GB free" in text
    assert re.search(r"ok       memory     a worker takes about 1\.\d GB, [\d.]+ GB are free", text)


def test_memory_against_the_plan(monkeypatch):
    monkeypatch.setattr(requirements, "available_memory", lambda: 1 << 30)
    code, text = run("--dataset", "digits")
    assert code == 3 and "FAULT    memory" in text and "1.1 GB are free" in text
    monkeypatch.setattr(requirements, "gpus", lambda: [("card", 100 << 20, 80 << 30)])
    code, text = run("--dataset", "digits")
    assert code == 3 and "FAULT    GPU        card, 0.1 of 85.9 GB free; 64 latents together take" in text
    monkeypatch.setattr(requirements, "gpus", lambda: [("card", 60 << 30, 80 << 30)])
    code, text = run("--dataset", "digits")
    assert code == 0 and "ok       GPU        card" in text


def test_survey():
    code, text = run()
    assert code == 0 and "imagenet1k     not there" in text and "digits         nothing to get" in text


def test_missing_imagenet_says_what_to_do():
    code, text = run("--dataset", "imagenet1k")
    assert code == 3
    for word in ("FAULT    data", "FAULT    backbone", "FAULT    GPU", "FAULT    teacher", "What to do", "hf download"):
        assert word in text


@pytest.mark.parametrize("side", [16, 100])
def test_corrupt_files_are_found_and_named(tmp_path, side):
    base = pets(tmp_path / "pets", side)
    name = f"imagefolder:{base}"
    weights = tmp_path / "torch" / "hub" / "checkpoints" / "resnet18-f37072fd.pth"  # the default teacher at 224 px
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"x")
    code, text = run("--dataset", name, "--full")
    assert code == 0 and "8 images in 2 classes, 4 to 4 a class" in text
    assert ("all 8 images can be decoded" in text) == (side == 100)
    bad = base / "train" / "dog" / "2.jpg"
    bad.write_bytes(bad.read_bytes()[:-150])
    loading._load.cache_clear()
    code, text = run("--dataset", name, "--full")
    assert code == 3 and str(bad) in text and "--on-corrupt skip" in text
    code, text = run("--dataset", name, "--on-corrupt", "skip")
    assert code == 0 and "1 corrupt in train" in text and str(bad) in text and "7 images" in text
    assert f"Ready:  ddbench run --method d3hr --dataset {name} --on-corrupt skip --ipc 1" in text


def test_a_class_missing_in_val(tmp_path):
    base = pets(tmp_path / "pets", 16)
    (base / "val" / "dog").rename(base / "val" / "hound")
    code, text = run("--dataset", f"imagefolder:{base}")
    assert code == 3 and "missing: dog; not expected: hound" in text


def test_store_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmark.cli.doctor._writable", lambda folder: False)
    code, text = run("--dataset", "digits")
    assert code == 3 and "cannot be written" in text and "DDBENCH_CACHE" in text


def test_command_line_exit_code_and_time(tmp_path):
    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", "from benchmark.cli import main; main()", "doctor", "--dataset", "imagenet1k"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": ""})
    assert done.returncode == 3 and "What to do" in done.stdout, done.stderr
    used = resource.getrusage(resource.RUSAGE_CHILDREN)  # of processor time: tests share the machine
    assert used.ru_utime + used.ru_stime - began.ru_utime - began.ru_stime < 5
