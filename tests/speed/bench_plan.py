"""What a plan of 10,000 jobs costs: planning, scheduling (jobs that do nothing), memory, and `ddbench status`.

    python tests/speed/bench_plan.py DIR [--jobs 10000]

Scheduling is all that a worker does beside the jobs: claiming by locks in the store, notes of what is done, logs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmark.core.store import Store
from benchmark.pipeline import Plan, Request, engine, make_plan
from benchmark.pipeline.jobs import KINDS
from benchmark.pipeline.runs import Run


def large_plan(root: Path, jobs: int) -> Plan:
    """About ``jobs`` jobs: sets of five IPC values and their students under two protocols."""
    seeds = tuple(range(max(1, -(-jobs // 15))))
    protocols = ("smoke", "hard")
    request = Request(dataset="digits", methods=("random",), ipc=(1, 2, 5, 10, 20), protocols=protocols, seeds=seeds)
    return make_plan([request], Store(root / "store"), root / "results")


def schedule(run: Run, done: set[str]) -> None:
    """The worker's loop over a run whose jobs only note that they ran."""
    real = {kind: (kind.run, kind.is_done) for kind in KINDS.values()}
    for kind in real:
        kind.run, kind.is_done = (lambda job, context: done.add(job.key)), (lambda job, context: job.key in done)
    try:
        engine.work(run, say=lambda text: None)
    finally:
        for kind, was in real.items():
            kind.run, kind.is_done = was


def resident() -> float:
    """MB of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--jobs", type=int, default=10_000)
    options = parser.parse_args()
    root = options.root.resolve()

    make_plan([Request(dataset="digits", methods=("random",), seeds=(0,))], Store(root / "store"), root)  # imports
    began, before = time.perf_counter(), resident()
    plan = large_plan(root, options.jobs)
    count = len(plan.jobs)
    print(f"plan      {count} jobs in {time.perf_counter() - began:.2f} s, {resident() - before:.0f} MB")
    run = Run.create(plan, Store(root / "store"))
    del plan
    began, before, done = time.perf_counter(), resident(), set()
    schedule(run, done)
    seconds = time.perf_counter() - began
    assert len(done) == count
    print(f"schedule  {seconds:.2f} s, {1e3 * seconds / count:.2f} ms a job, {resident() - before:.0f} MB")
    began = time.perf_counter()
    environment = {**os.environ, "DDBENCH_CACHE": str(root / "store")}
    shown = subprocess.run(["ddbench", "status"], env=environment, capture_output=True, text=True, check=True)
    print(f"status    {time.perf_counter() - began:.2f} s: {shown.stdout.splitlines()[0]}")


if __name__ == "__main__":
    sys.exit(main())
