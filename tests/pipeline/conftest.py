"""The example plug-in, registered for these tests the way an installed one would be."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "example_plugin"


@pytest.fixture
def ddbench(tmp_path):
    """Runs the ddbench command in a process of its own, with a store and results folder of this test."""

    def run(*arguments, check=True, **environment):
        env = {
            **os.environ,
            "DDBENCH_CACHE": str(tmp_path / "store"),
            "DDBENCH_THREADS": "1",
            "DDBENCH_PROGRESS": "0",
            **environment,
        }
        command = [str(Path(sys.executable).parent / "ddbench"), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)
        if check:
            assert done.returncode == 0, done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def smoke():
    """Arguments of the smallest run: random real digits, two seeds, the smoke protocol."""
    base = ["--method", "random", "--no-floor", "--dataset", "digits", "--ipc", "1", "--protocol", "smoke"]
    return ["run", *base, "--seeds", "2"]
