"""Worker processes on this machine. Each runs ``ddbench worker RUN``; the jobs are shared out by locks in the store."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmark.errors import JobError
from benchmark.pipeline.engine import Run, work


def default_jobs(device: str) -> int:
    """One worker a GPU; on the CPU one a core, four at most (each needs about 0.6 GB)."""
    if device.startswith("cuda"):
        import torch

        return max(1, torch.cuda.device_count()) if device == "cuda" else 1
    return max(1, min(4, len(os.sched_getaffinity(0))))


def execute(run: Run, jobs: int) -> None:
    """Run the plan with ``jobs`` workers; returns when nothing is left to do.

    Raises:
        JobError: a worker died (killed, out of memory); what is done is kept, the same command goes on from there.
        KeyboardInterrupt: the workers were told to stop and did.
    """
    plan = run.plan
    if jobs <= 1:
        work(run)
        return
    command = [worker_command(), "worker", str(run.folder)]
    workers = []
    for index in range(jobs):
        device = f"cuda:{index}" if plan.device == "cuda" else plan.device
        workers.append(subprocess.Popen([*command, "--device", device]))
    try:
        _wait(workers)
    except BaseException:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait()
        raise


def worker_command() -> str:
    """The installed ``ddbench`` command: never ``python -m``, which a folder of the same name could shadow."""
    beside = Path(sys.executable).parent / "ddbench"
    found = str(beside) if beside.is_file() else shutil.which("ddbench")
    if not found:
        raise JobError("the ddbench command is not on the PATH", hint="pip install -e . (or use --jobs 1)")
    return found


def _wait(workers: list[subprocess.Popen]) -> None:
    while any(w.poll() is None for w in workers):
        for worker in workers:
            if worker.poll() not in (None, 0, 1):
                how = f"signal {-worker.returncode}" if worker.returncode < 0 else f"exit code {worker.returncode}"
                raise JobError(
                    f"a worker died ({how})",
                    hint="the same command goes on from there; if memory ran out, use fewer --jobs",
                )
        time.sleep(0.1)
    for worker in workers:
        if worker.returncode not in (0, 1):
            raise JobError(f"a worker died (exit code {worker.returncode})", hint="the same command goes on from there")
