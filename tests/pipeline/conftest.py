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
        put_teacher(digits_teacher_store, Path(environment.get("DDBENCH_CACHE", tmp_path / "store")))
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


def put_teacher(made, root: Path) -> None:
    """Copy the teacher in the store ``made`` into a new store at ``root``."""
    if root.parent.is_dir() and not root.exists():
        shutil.copytree(made.root / "artifacts" / "teacher", root / "artifacts" / "teacher")


@pytest.fixture
def refused(tmp_path, digits_teacher_store, monkeypatch, capsys):
    """Runs a command that must fail as `ddbench` does, but in this process: its exit code and messages."""
    from benchmark import cli

    def run(*arguments):
        put_teacher(digits_teacher_store, tmp_path / "store")
        monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "store"))
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as end:
            cli.main([str(a) for a in arguments])
        return end.value.code, capsys.readouterr().err

    return run


@pytest.fixture
def smoke():
    """Arguments of the smallest run: random real digits, two seeds, the smoke protocol."""
    base = ["--method", "random", "--no-floor", "--dataset", "digits", "--ipc", "1", "--protocol", "smoke"]
    return ["run", *base, "--seeds", "2"]
