"""Runs a plan. Every worker runs the same loop over the same list and claims jobs by locks in the store.

So one process, several processes, or several machines over one file system need no other code, and two people who
start the same command share the work. A job is claimed by a lock that ends with its holder.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmark.core import distributed, progress
from benchmark.core.compute import resolve_device
from benchmark.core.errors import DDBenchError, JobError
from benchmark.core.store import Store
from benchmark.pipeline.guard import guarded
from benchmark.pipeline.jobs import Context, EvaluateJob, Job, LostInput
from benchmark.pipeline.outcomes import write_failure
from benchmark.pipeline.runs import Run

POLL_SECONDS = 0.3  # how often a worker with nothing to claim looks again
TIMED_OUT = 75  # exit code of a worker that ended itself because a job ran past its time limit
TOGETHER_PIXELS = 128  # with --ddp, students of images from this size on are trained by all ranks


@dataclass
class Report:
    """What happened to a plan's jobs: counts by kind, and the reason of each failure by job key."""

    done: int = 0
    cached: int = 0
    failed: dict[str, str] = field(default_factory=dict)


def work(run: Run, device: str | None = None, *, say=print, jobs: Sequence[Job] | None = None) -> Report:
    """Do whatever can be done of the run's plan until nothing is left; returns what this worker did.

    A job that raises is a failure of that job: its dependents fail with the reason, everything else goes on.
    ``jobs`` limits it to a part of the plan whose needs are in it or done.
    """
    plan = run.plan
    store = Store(plan.store)
    context = Context(store, Path(plan.results), resolve_device(device or plan.device))
    report = Report()
    pending = list(plan.jobs if jobs is None else jobs)
    inside = {job.key for job in pending}
    finished: set[str] = set()
    with run.present("worker", device=context.device) as alive:
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
                if any(n in inside and n not in finished for n in job.needs):
                    left.append(job)
                    continue
                if not job.is_done(context):
                    with store.try_lock(f"job-{job.key.replace('/', '_')}") as ours:
                        if not ours:
                            left.append(job)
                            continue
                        if run.has_failed(job):  # by another worker, since this pass began
                            progressed = True
                            left.append(job)
                            continue
                        if job.is_done(context):
                            report.cached += 1
                        elif do_job(run, job, context, report, alive, plan.time_limit, say):
                            report.done += 1
                        else:
                            progressed = True
                            continue
                else:
                    report.cached += 1
                finished.add(job.key)
                run.note_done(job)
                progressed = True
            pending = left
            if pending and not progressed:
                time.sleep(POLL_SECONDS)
    return report


def do_job(
    run: Run, job: Job, context: Context, report: Report, alive: Path, limit: float | None = None, say=print
) -> bool:
    """Do one claimed job; False if it failed, which is noted in the run and in a record."""
    began = time.monotonic()
    failed = False
    try:
        with _shown(run, job, context, alive, limit), guarded("the job", threads=False):
            _run_with_inputs(run, job, context)
    except Exception as error:  # noqa: BLE001 - whatever a plug-in raises fails its job only
        failed = True
        _fail(run, job, context, _reason(error, context, run.log_file(job)), report)
        if not isinstance(error, DDBenchError):
            run.log(job, traceback.format_exc())
    if failed:
        _free_memory()  # only now: while it was handled, the exception's traceback held the job's tensors
        return False
    run.log(job, f"done in {time.monotonic() - began:.1f} s")
    run.note_time(job, time.monotonic() - began)
    run.note_done(job)
    if not progress.is_quiet():
        say(f"done  {job.label}  ({time.monotonic() - began:.1f} s){_ahead(run)}")
    return True


def _ahead(run: Run) -> str:
    """``  [13/40, about 3.1 min left]``."""
    done, total, left = run.ahead()
    time_left = f", about {_time(left)} left" if left else ""
    return f"  [{done}/{total}{time_left}]" if total > 1 else ""


def _time(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def _run_with_inputs(run: Run, job: Job, context: Context) -> None:
    """Do the job; an input that was there when the run was planned and proves damaged is made again first."""
    try:
        job.run(context)
    except LostInput as lost:
        maker = next((j for j in run.plan.jobs if j.key == lost.key), None)
        if maker is None:
            raise
        run.log(job, f"{lost}: made again")
        maker.run(context)
        job.run(context)


def work_together(run: Run, device: str | None = None, *, say=print) -> None:
    """What all torchrun ranks do as one: backbones and teachers, then (the other jobs are shared out) large students.

    Raises:
        JobError: a job failed on some rank; all end, since the others wait in the middle of it.
    """
    plan = run.plan
    context = Context(Store(plan.store), Path(plan.results), device or plan.device)
    large = [j for j in plan.of_kind("evaluate") if j.image_size >= TOGETHER_PIXELS]
    first = [j for j in plan.jobs if j.kind in ("backbone", "teacher")]
    _in_step(run, first, context, say)
    if large:
        keys = {j.key for j in [*first, *large]}
        work(run, device, say=say, jobs=[j for j in plan.jobs if j.key not in keys])
        distributed.wait()
        failed = distributed.agree(sorted(run.failures()))
        _in_step(run, [j for j in large if not set(j.needs) & set(failed)], context, say)


def _in_step(run: Run, jobs: Sequence[Job], context: Context, say) -> None:
    limit = run.plan.time_limit
    with distributed.together(), run.present("worker", device=context.device) as alive:
        for job in jobs:
            if distributed.agree(job.is_done(context)):
                continue
            report = Report()
            if not do_job(run, job, context, report, alive, limit, say if distributed.leads() else lambda text: None):
                raise JobError(
                    f"rank {distributed.rank()}: {job.label}: {report.failed[job.key]}",
                    hint="without --ddp a failed job would stop no other",
                )


@contextlib.contextmanager
def _shown(run: Run, job: Job, context: Context, alive: Path, limit: float | None) -> Iterator[None]:
    """Show which job this process is doing; past ``limit`` seconds the job has failed and the process ends."""
    run.update(alive, job=job.key, label=job.label, since=time.time())
    run.log(job, f"begun on {context.device}: {job.label}")

    def watch(line: str) -> None:
        run.update(alive, progress=line)
        run.log(job, line)

    def out_of_time() -> None:  # a hang may sit in compiled code: only ending the process ends it for sure
        _fail(run, job, context, f"still running after {limit:.0f} s (--time-limit)", Report())
        os._exit(TIMED_OUT)

    timer = threading.Timer(limit, out_of_time) if limit else None
    if timer is not None:
        timer.daemon = True
        timer.start()
    progress.watchers.append(watch)
    try:
        yield
    finally:
        progress.watchers.remove(watch)
        if timer is not None:
            timer.cancel()
        run.update(alive, job=None, label=None, since=None, progress=None)


def _reason(error: Exception, context: Context, log: Path) -> str:
    if isinstance(error, DDBenchError):
        return str(error)
    if isinstance(error, (RuntimeError, MemoryError)):
        from benchmark.training.memory import is_out_of_memory

        if isinstance(error, MemoryError) or is_out_of_memory(error):
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            return f"out of memory on {context.device}: {first}\n  hint:    fewer --jobs, or a smaller batch or model"
    return f"{type(error).__name__}: {error}\n  traceback: {log}"


def _free_memory() -> None:
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _fail(run: Run, job: Job, context: Context, reason: str, report: Report) -> None:
    report.failed[job.key] = reason
    print(f"FAILED {job.label}: {reason}", file=sys.stderr, flush=True)
    run.log(job, f"failed: {reason}")
    with contextlib.suppress(OSError, DDBenchError):  # a full disk must not hide the first error
        run.fail(job, reason)
    with contextlib.suppress(OSError, DDBenchError):
        if isinstance(job, EvaluateJob):
            write_failure(job.identity, reason, context.results)


def note_death(run: Run, pid: int, reason: str, most: int) -> None:
    """A worker was killed: its job counts a death, and has failed when that were ``most``."""
    key = run.note_death(pid)
    if key and run.deaths(key) >= most:
        plan = run.plan
        job = next(j for j in plan.jobs if j.key == key)
        _fail(run, job, Context(Store(plan.store), Path(plan.results)), reason, Report())
