"""Worker processes on this machine. Each runs ``ddbench worker RUN``; the jobs are shared out by locks in the store."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from benchmark import __version__
from benchmark.core import distributed
from benchmark.core.compute import resolve_device
from benchmark.core.errors import JobError
from benchmark.core.supervise import CRASHES, PARENT
from benchmark.pipeline.engine import TIMED_OUT, note_death, work
from benchmark.pipeline.runs import Run

OWN = f"(ddbench {__version__})"  # how the registry names the owner of what ddbench registers
DEATHS = 3  # a job whose worker was killed that often (out of memory, most likely) has failed
RANK_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR")  # torchrun's: a rank's workers are no ranks
GRACE_SECONDS = 20.0  # how long a worker that was told to stop may take to do so


def default_jobs(device: str) -> int:
    """One worker a GPU; on the CPU one a core, four at most (each needs about 0.6 GB). Under torchrun: one a rank."""
    if distributed.launched():
        return 1
    if device.startswith("cuda"):
        import torch

        return max(1, torch.cuda.device_count()) if device == "cuda" else 1
    return max(1, min(4, len(os.sched_getaffinity(0))))


def slots(address: str, device: str) -> int:
    """:func:`default_jobs`; there is no address to join."""
    return default_jobs(device)


def execute(run: Run, jobs: int, options: dict[str, Any]) -> None:
    """Run the plan with ``jobs`` workers; returns when nothing is left to do.

    A worker that is killed, or ended from inside, is replaced; its job is tried again (`LIVES`), then has failed. One
    worker is this process itself, unless third-party plug-ins take part or jobs have a time limit.

    Raises:
        JobError: a worker could not start.
        KeyboardInterrupt: the workers were told to stop and did.
    """
    alone = run.plan.time_limit or (third_party(run) and not distributed.launched())
    if jobs <= 1 and not alone:
        work(run, options.get("device"))  # of this torchrun rank, where there are several
        return
    device = resolve_device(options.get("device") or run.plan.device)
    gpus = default_jobs(device)
    devices = [f"cuda:{index % gpus}" if device == "cuda" else device for index in range(jobs)]
    workers = [_start(run, d) for d in devices]
    try:
        _watch(run, workers, devices)
    except BaseException:
        _stop(workers)
        raise


def worker_command() -> str:
    """The installed ``ddbench`` command: never ``python -m``, which a folder of the same name could shadow."""
    beside = Path(sys.executable).parent / "ddbench"
    found = str(beside) if beside.is_file() else shutil.which("ddbench")
    if not found:
        raise JobError("the ddbench command is not on the PATH", hint="pip install -e . (or use --jobs 1)")
    return found


def _start(run: Run, device: str) -> subprocess.Popen:
    environment = {k: v for k, v in os.environ.items() if k not in RANK_VARIABLES} | {PARENT: str(os.getpid())}
    return subprocess.Popen([worker_command(), "worker", str(run.folder), "--device", device], env=environment)


def end_with_parent() -> None:
    """In a worker: stop when the process that started it is gone, however it went, or when it says so (SIGTERM).

    A Ctrl-C in the terminal reaches all its processes: the driver's word alone counts, so that once means once.
    """
    parent = os.environ.get(PARENT)
    if not parent:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _watch(run: Run, workers: list[subprocess.Popen], devices: list[str]) -> None:
    """Wait for every worker; replace those that died."""
    deaths = 0
    while True:
        running = False
        for slot, worker in enumerate(workers):
            code = worker.poll()
            if code is None:
                running = True
            elif code < 0 or code == TIMED_OUT or run.is_shown("worker", worker.pid):
                deaths += 1
                if deaths > DEATHS * (len(run.plan.jobs) + len(workers)):
                    raise JobError("workers die again and again", hint="ddbench doctor; then repeat the command")
                if code != TIMED_OUT:
                    text, why, lives = _death(code)
                    times = f" {lives} times" if lives > 1 else ""
                    note_death(run, worker.pid, f"{text}{times} ({why})", lives)
                    print(f"{text}; another one takes over", file=sys.stderr, flush=True)
                workers[slot] = _start(run, devices[slot])
                running = True
            elif code not in (0, 1):
                raise JobError(f"a worker ended with exit code {code}", hint="the same command goes on from there")
        if not running:
            return
        time.sleep(0.1)


def _death(code: int) -> tuple[str, str, int]:
    """How a worker ended that had not finished, what that means, and how often a job may end one so."""
    if code >= 0:
        return f"the worker was ended from inside, with exit code {code}", "os._exit; a fault of a plug-in", 1
    name = signal.Signals(-code).name
    if name in CRASHES:
        return f"worker killed by {name}", "a crash in compiled code, of a plug-in or a library", 2
    return f"worker killed by {name}", "out of memory? fewer --jobs", DEATHS


def third_party(run: Run) -> bool:
    """Whether the plan names something that another distribution than ddbench's registered."""
    from benchmark.plugins import registry

    foreign = {name for (_, name), owner in registry().owner.items() if not owner.endswith(OWN)}
    if not foreign:
        return False
    text = (run.folder / "plan.json").read_text(encoding="utf-8")
    return any(name in text for name in foreign)


def _stop(workers: list[subprocess.Popen]) -> None:
    """Ask every worker to stop and wait until what it was writing is whole; at a second Ctrl-C stop at once."""
    try:
        for worker in workers:
            worker.terminate()
        end = time.monotonic() + GRACE_SECONDS
        for worker in workers:
            worker.wait(max(0.1, end - time.monotonic()))
    except (KeyboardInterrupt, subprocess.TimeoutExpired):
        pass
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
