"""The ddbench command as a user runs it, with a store in which the teacher of digits is trained already."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def ddbench(tmp_path, digits_teacher_store):
    """Runs the ddbench command in a process of its own, with a store and results folder of this test."""

    def run(*arguments, check=True, **environment):
        store = Path(environment.get("DDBENCH_CACHE", tmp_path / "store")) / "artifacts" / "teacher"
        root = store.parents[1]
        if root.parent.is_dir() and not root.exists():
            shutil.copytree(digits_teacher_store.root / "artifacts" / "teacher", store)
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
