"""Corrupt images stop a run with their names, or are left out and counted in every record."""

import json

import numpy as np
from click.testing import CliRunner
from PIL import Image

from benchmark.cli.run import run
from benchmark.core.errors import DataError


def colours(base):
    """Two classes of plain colours with noise: a teacher of forty steps tells them apart."""
    for part in ("train", "val"):
        for label, name in enumerate(("dark", "light")):
            (base / part / name).mkdir(parents=True)
            for i in range(20):
                pixels = np.random.default_rng([label, i]).integers(0, 60, (16, 16, 3)) + 180 * label
                Image.fromarray(pixels.astype(np.uint8)).save(base / part / name / f"{i:02d}.png")
    return base


def test_counted_in_the_record(tmp_path, monkeypatch):
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "store"))
    base = colours(tmp_path / "colours")
    for name in ("03.png", "07.png"):
        file = base / "train" / "dark" / name
        file.write_bytes(file.read_bytes()[:60])
    common = ["--method", "random", "--no-floor", "--dataset", f"imagefolder:{base}", "--protocol", "smoke"]
    common += ["--seeds", "1", "--jobs", "1", "--device", "cpu", "--results", str(tmp_path / "results")]
    refused = CliRunner().invoke(run, common)
    assert isinstance(refused.exception, DataError) and "03.png" in str(refused.exception)
    assert not (tmp_path / "results" / "records").exists()
    done = CliRunner().invoke(run, [*common, "--on-corrupt", "skip"], standalone_mode=False)
    assert done.return_value == 0, done.output
    (file,) = (tmp_path / "results" / "records").glob("*.json")
    record = json.loads(file.read_text())
    assert record["outcome"]["status"] == "ok" and record["outcome"]["flags"] == ["skipped 2 corrupt in train"]
    files = record["artifacts"]["data"]["skipped files"]
    assert "03.png" in files and "07.png" in files
