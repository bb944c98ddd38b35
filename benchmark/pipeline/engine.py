"""Runs a plan. Every worker runs the same loop over the same list and claims jobs by locks in the store.

So one process, several processes, or several machines over one file system need no other code, and two people who
start the same command share the work. A job is claimed by a lock that the kernel frees when its holder dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmark.errors import DDBenchError
from benchmark.pipeline.jobs import Context, is_done, run_job, write_failure
from benchmark.pipeline.plan import Job, Plan
from benchmark.store import Store
from benchmark.store.store import disk_errors

POLL_SECONDS = 0.3  # how often a worker with nothing to claim looks again
TIMED_OUT = 75  # exit code of a worker that ended itself because a job ran past its time limit


@dataclass
class Report:
    """What happened to a plan's jobs: counts by kind, and the reason of each failure by job key."""

    done: int = 0
    cached: int = 0
    failed: dict[str, str] = field(default_factory=dict)


class Run:
    """One run of a plan: a folder in the store with the plan and its failures, shared by the run's workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @staticmethod
    def create(plan: Plan, store: Store) -> Run:
        """A new folder ``<store>/runs/<time>-<random>``."""
        folder = store.root / "runs" / f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:8]}"
        with disk_errors(store.root):
            (folder / "failed").mkdir(parents=True)
            (folder / "logs").mkdir()
            plan.write(folder / "plan.json")
        return Run(folder)

    @property
    def plan(self) -> Plan:
        return Plan.read(self.folder / "plan.json")

    def fail(self, job: Job, reason: str) -> None:
        """Note that a job failed in this run, so that no worker tries it again."""
        name = job.key.replace("/", "_")
        temporary = self.folder / "failed" / f".{name}.{os.getpid()}"
        temporary.write_text(json.dumps({"key": job.key, "label": job.label, "reason": reason}))
        os.replace(temporary, self.folder / "failed" / f"{name}.json")

    @contextlib.contextmanager
    def running(self, job: Job, limit: float | None, context: Context) -> Iterator[None]:
        """Note which job this process is doing; past ``limit`` seconds the job has failed and the process ends."""
        file = self.folder / "running" / str(os.getpid())
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({"key": job.key, "label": job.label, "since": time.time()}))

        def out_of_time() -> None:  # a hang may sit in compiled code: only ending the process ends it for sure
            reason = f"still running after {limit:.0f} s (--time-limit)"
            _fail(self, job, context, reason, Report())
            os._exit(TIMED_OUT)

        timer = threading.Timer(limit, out_of_time) if limit else None
        if timer is not None:
            timer.daemon = True
            timer.start()
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()
            file.unlink(missing_ok=True)

    def note_death(self, pid: int, reason: str, most: int) -> None:
        """A worker was killed: its job counts a death, and has failed when that were ``most``."""
        file = self.folder / "running" / str(pid)
        if not file.is_file():
            return
        key = json.loads(file.read_text())["key"]
        file.unlink()
        with open(self.folder / "deaths", "a") as deaths:
            deaths.write(key + "\n")
        if (self.folder / "deaths").read_text().split().count(key) >= most:
            job = next(j for j in self.plan.jobs if j.key == key)
            plan = self.plan
            _fail(self, job, Context(Store(plan.store), Path(plan.results)), reason, Report())

    def failures(self) -> dict[str, str]:
        """Reason by job key."""
        found = {}
        for file in sorted((self.folder / "failed").glob("*.json")):
            document = json.loads(file.read_text())
            found[document["key"]] = document["reason"]
        return found


@contextlib.contextmanager
def claim(store: Store, key: str) -> Iterator[bool]:
    """Try to claim a job; yields whether it is ours. Freed at the end, or by the kernel when the process dies."""
    folder = store.root / "locks"
    with disk_errors(store.root):
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / f"job-{key.replace('/', '_')}.lock", "a")  # noqa: SIM115 - held while claimed
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        file.close()


def work(run: Run, device: str | None = None, *, say=print) -> Report:
    """Do whatever can be done of the run's plan until nothing is left; returns what this worker did.

    A job that raises is a failure of that job: its dependents fail with the reason, everything else goes on.
    """
    plan = run.plan
    store = Store(plan.store)
    context = Context(store, Path(plan.results), device or plan.device)
    report = Report()
    pending = list(plan.jobs)
    finished: set[str] = set()
    while pending:
        failed = run.failures() | report.failed
        left: list[Job] = []
        progressed = False
        for job in pending:
            if job.key in failed:
                progressed = True
                continue
            broken = next((n for n in job.needs if n in failed), None)
            if broken is not None:
                _fail(run, job, context, f"needs a job that failed: {failed[broken]}", report)
                failed[job.key] = report.failed[job.key]
                progressed = True
                continue
            if any(n not in finished for n in job.needs):
                left.append(job)
                continue
            if is_done(job, context):
                finished.add(job.key)
                report.cached += 1
                progressed = True
                continue
            with claim(store, job.key) as ours:
                if not ours:
                    left.append(job)
                    continue
                if not is_done(job, context):
                    try:
                        began = time.monotonic()
                        with run.running(job, plan.time_limit, context):
                            run_job(job, context)
                        report.done += 1
                        say(f"done  {job.label}  ({time.monotonic() - began:.1f} s)")
                    except Exception as error:  # noqa: BLE001 - whatever a plug-in raises fails its job only
                        reason = str(error) if isinstance(error, DDBenchError) else f"{type(error).__name__}: {error}"
                        if not isinstance(error, DDBenchError):
                            log = run.folder / "logs" / f"{job.key.replace('/', '_')}.txt"
                            with contextlib.suppress(OSError):
                                log.write_text(traceback.format_exc())
                            reason += f"\n  traceback: {log}"
                        _fail(run, job, context, reason, report)
                        progressed = True
                        continue
                finished.add(job.key)
                progressed = True
        pending = left
        if pending and not progressed:
            time.sleep(POLL_SECONDS)
    return report


def _fail(run: Run, job: Job, context: Context, reason: str, report: Report) -> None:
    report.failed[job.key] = reason
    print(f"FAILED {job.label}: {reason}", file=sys.stderr, flush=True)
    for note in (lambda: run.fail(job, reason), lambda: write_failure(job, context, reason)):
        with contextlib.suppress(OSError, DDBenchError):  # a full disk must not hide the first error
            note()
