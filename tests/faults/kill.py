"""kill -9 at random moments of `results add`, `export`, `run` and `grid`: nothing lost, nothing half-written, and the
repeated command completes. By hand::

    python tests/faults/kill.py --kills 20 --seed 1

`add` and `export` are killed in forked processes, at moments spread over what they take undisturbed; `run` and `grid`
as commands, several times in a row, before one repetition may finish.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]


def forked(work: Callable[[], object]) -> int:
    """Start ``work`` in a process of its own; its process id."""
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            work()
            os._exit(0)
        os._exit(1)
    return pid


def killed(work: Callable[[], object], after: float) -> bool:
    """Do ``work`` in a process that is killed after so many seconds; whether it was killed in the middle."""
    pid = forked(work)
    time.sleep(after)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    assert os.waitpid(forked(work), 0)[1] == 0, "the undisturbed work failed"
    return time.monotonic() - began


def content(folder: Path) -> dict[str, str]:
    """Every file below a folder and the digest of its bytes."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()
    }


def submission(folder: Path, count: int, first: int = 0) -> Path:
    """A results folder of good records with a picture each."""
    from PIL import Image
    from synthetic import make_record

    from benchmark.results.records import write_record

    (folder / "sets").mkdir(parents=True, exist_ok=True)
    for seed in range(first, first + count):
        record = make_record("d3hr", seed)
        record["artifacts"]["contact_sheet"] = f"sets/{seed}.png"
        Image.new("L", (4, 4), seed % 256).save(folder / "sets" / f"{seed}.png")
        write_record(folder, record, durable=False)
    return folder


def add_is_all_or_none(folder: Path, kills: int, rng: random.Random, count: int = 40) -> int:
    """Kill `results add`; how often it was in the middle."""
    from benchmark.results.records import read_records
    from benchmark.results.records.submissions import add

    theirs = submission(folder / "theirs", count, first=5)
    whole = seconds(lambda: add(theirs, submission(folder / "timed", 5)))
    middle = 0
    for number in range(kills):
        ours = submission(folder / f"ours{number}", 5)
        middle += killed(lambda ours=ours: add(theirs, ours), rng.random() * whole)
        found = len(read_records(ours))  # any bad record raises
        pictures = len(list((ours / "sets").glob("*.png")))
        assert (found, pictures) in ((5, 5), (5 + count, 5 + count)), f"{found} records, {pictures} pictures"
        add(theirs, ours)
        assert len(read_records(ours)) == 5 + count
        left = list(ours.rglob(".*"))
        assert not left, left
    return middle


def export_is_all_or_none(folder: Path, kills: int, rng: random.Random) -> int:
    """Kill `export`; how often it was in the middle."""
    import numpy as np

    from benchmark.data import load_dataset
    from benchmark.sets.card import export
    from benchmark.sets.folder import write_set

    made = folder / "set"
    made.mkdir(parents=True)
    images = [(c, i, np.full((8, 8, 1), 20 * c + i, np.uint8)) for c in range(10) for i in range(8)]
    meta = {"method": {"name": "d3hr", "version": 1, "params": {}}, "seed": 0, "backbone": None, "ddbench": "0.1"}
    write_set(made, load_dataset("digits"), 8, images, meta)
    whole = seconds(lambda: export(made, folder / "good"))
    good, middle = content(folder / "good"), 0
    for number in range(kills):
        out = folder / "exported" / str(number)
        middle += killed(lambda out=out: export(made, out), rng.random() * whole)
        assert not out.exists() or content(out) in ({}, good), f"half a set in {out}"
        if not out.exists() or not content(out):
            export(made, out)
        assert content(out) == good
        left = [p.name for p in out.parent.iterdir() if p.name.startswith(f".{number}.")]
        assert not left, left
    return middle


def scores(results: Path) -> dict[str, float]:
    from benchmark.results.records import read_records

    return {r["id"]: r["scores"]["top1_last"] for r in read_records(results)}  # a bad record raises


def command_resumes(folder: Path, arguments: list[str], kills: int, rng: random.Random) -> int:
    """Kill a ddbench command several times, then let it finish: the same scores as undisturbed; how often it lived."""
    program = [str(Path(sys.executable).parent / "ddbench"), *arguments]

    def start(name: str) -> subprocess.Popen:
        env = {**os.environ, "DDBENCH_CACHE": str(folder / name / "cache"), "DDBENCH_PROGRESS": "0"}
        command = [*program, "--results", str(folder / name / "results")]
        return subprocess.Popen(command, env=env, stdout=-3, stderr=-3, start_new_session=True)

    (folder / "good").mkdir(parents=True)
    (folder / "hurt").mkdir()
    began = time.monotonic()
    assert start("good").wait() == 0, "the undisturbed command failed"
    whole, middle = time.monotonic() - began, 0
    for _ in range(kills):
        process = start("hurt")
        time.sleep(rng.random() * whole)
        middle += process.poll() is None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        scores(folder / "hurt" / "results")
    assert start("hurt").wait() == 0, "the repeated command failed"
    assert scores(folder / "hurt" / "results") == scores(folder / "good" / "results")
    left = list((folder / "hurt").rglob("*.tmp*"))
    assert not left, left
    for file in (folder / "hurt" / "results").rglob("*.json"):
        json.loads(file.read_text())
    return middle


GRID = "name: g\nbase: {dataset: digits, method: random, protocol: smoke, seeds: 1}\naxes: {ipc: [1, 2]}\n"
RUN = "run --method random --no-floor --dataset digits --ipc 1 --protocol smoke --seeds 2 --jobs 1 --device cpu"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="In all, shared by the four commands.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", default=[])
    given = parser.parse_args()
    rng, each = random.Random(given.seed), max(1, given.kills // 4)
    with tempfile.TemporaryDirectory(prefix="ddbench-kill-") as name:
        folder = Path(name)
        (folder / "g.yaml").write_text(GRID)
        grid = ["grid", str(folder / "g.yaml"), "--jobs", "1", "--device", "cpu", "--no-plots"]
        parts = {
            "add": lambda: add_is_all_or_none(folder / "add", each, rng),
            "export": lambda: export_is_all_or_none(folder / "export", each, rng),
            "run": lambda: command_resumes(folder / "run", RUN.split(), each, rng),
            "grid": lambda: command_resumes(folder / "grid", grid, each, rng),
        }
        for part, work in parts.items():
            if not given.only or part in given.only:
                print(f"{part}: {each} kills, {work()} of them in the middle; whole afterwards", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
