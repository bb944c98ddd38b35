"""Installed plug-ins that end the process they run in: a failed row each, and the methods beside them are unharmed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_example import install

ROOT = Path(__file__).parents[2]
CODE = """
import ctypes, os, sys, threading, time

from benchmark.api import Method, MethodInfo, hookimpl

FAULTS = ("exit", "sysexit", "segv", "thread", "closed", "labels", "why")


@hookimpl
def ddbench_methods():
    return [MethodInfo(f"evil-{name}", name, f"ddbench_evil:{name}") for name in FAULTS]


class Evil(Method):
    def distill(self, task, unit):
        self.act(task)
        return task.train.images([task.train.by_class[label][0] for label, _ in unit.cells])


def made(name, act):
    return type(name, (Evil,), {"act": staticmethod(act)})


exit = made("exit", lambda task: os._exit(0))
sysexit = made("sysexit", lambda task: sys.exit(0))
segv = made("segv", lambda task: ctypes.string_at(0))
thread = made("thread", lambda task: threading.Thread(target=time.sleep, args=(600,), name="stray").start())
closed = made("closed", lambda task: (os.close(1), os.close(2)))
labels = made("labels", lambda task: task.train.labels.fill(0))
why = made("why", None)
why.why_not = lambda self, dataset, ipc: os._exit(0)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_each_is_a_failed_row_that_says_so(tmp_path, digits_teacher_store):
    site, store = tmp_path / "site", tmp_path / "store"
    install(site, "ddbench-evil", "[ddbench]\nevil = ddbench_evil\n")
    (site / "ddbench_evil.py").write_text(CODE)
    shutil.copytree(digits_teacher_store.root, store)
    names = ("exit", "sysexit", "segv", "thread", "closed", "labels", "why")
    methods = [*(f"evil-{name}" for name in names), "random"]
    command = [str(Path(sys.executable).parent / "ddbench"), "run", "--method", ",".join(methods), "--no-floor"]
    command += ["--dataset", "digits", "--ipc", "1", "--seeds", "1", "--protocol", "smoke", "--jobs", "1"]
    env = {
        **os.environ,
        "PYTHONPATH": f"{site}{os.pathsep}{ROOT}",
        "DDBENCH_CACHE": str(store),
        "DDBENCH_PROGRESS": "0",
    }
    done = subprocess.run([*command, "--device", "cpu"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    found = [json.loads(file.read_text()) for file in (tmp_path / "results" / "records").glob("*.json")]
    rows = {record["identity"]["method"]["name"]: record["outcome"] for record in found}
    assert set(rows) == set(methods) and rows.pop("random")["status"] == "ok"
    told = ("os._exit", "sys.exit(0)", "SIGSEGV", "stray", "output", "read-only", "cannot be planned: os._exit")
    for name, word in zip(names, told, strict=True):
        outcome = rows[f"evil-{name}"]
        assert outcome["status"] == "failed" and word in outcome["reason"], (name, outcome, done.stderr)


PLANNING = """
import os

if os.environ.get("EVIL") == "import":
    os._exit(0)
from benchmark.api import Method, MethodInfo, hookimpl


@hookimpl
def ddbench_methods():
    return [MethodInfo(f"evil-{name}", name, f"ddbench_evil:{name}") for name in ("why", "needy")]


class why(Method):
    def why_not(self, dataset, ipc):
        os._exit(0)


class needy(Method):
    def needs(self):
        raise LookupError("evil")
"""


def ddbench(folder, arguments, variable=""):
    install(folder, "ddbench-evil", "[ddbench]\nevil = ddbench_evil\n")
    (folder / "ddbench_evil.py").write_text(PLANNING)
    env = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "DDBENCH_CACHE": str(folder), "EVIL": variable}
    command = [str(Path(sys.executable).parent / "ddbench"), *arguments.split()]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    assert "Traceback" not in done.stderr and "ddbench-evil" in done.stdout + done.stderr, done.stderr
    return done


def test_one_that_ends_the_process_while_it_is_imported_is_a_broken_plug_in(tmp_path):
    done = ddbench(tmp_path, "plugins", "import")
    assert done.stderr.count("warning: the plug-in evil ended the command") == 1, done.stderr
    assert "BROKEN  evil (ddbench-evil" in done.stdout and "os._exit(0) in <module>" in done.stdout
    assert "ok      baselines" in done.stdout


def test_one_that_breaks_while_it_is_asked_fails_alone(tmp_path):
    methods = ("evil-why", "evil-needy", "random")
    done = ddbench(tmp_path, f"plan --method {','.join(methods)} --no-floor --dataset digits --seeds 1 --device cpu")
    assert done.returncode == 1, done.stderr
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    told = ("os._exit(0) in why_not, ", "needs: LookupError: evil")
    assert len(failed) == 2 and all(m in line and t in line for m, t, line in zip(methods, told, failed)), failed
    assert "to do   random ipc 1 seed 0" in done.stdout and "evil ipc" not in done.stdout
