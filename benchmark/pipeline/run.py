"""What ``ddbench run`` and ``ddbench distill`` do: plan, work, collect, print."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark.core import distributed, progress
from benchmark.core.errors import DDBenchError, JobError, UsageError
from benchmark.core.outputs import room_for, whole_folder, writable_folder
from benchmark.core.store import Store
from benchmark.core.store.store import disk_errors
from benchmark.pipeline.describe import inner_stages
from benchmark.pipeline.engine import work_together
from benchmark.pipeline.execution import Execution
from benchmark.pipeline.jobs import Context, DistillJob, Job
from benchmark.pipeline.outcomes import sheet_name, write_skipped
from benchmark.pipeline.plan import Plan, make_plan
from benchmark.pipeline.request import Request
from benchmark.pipeline.runs import Run
from benchmark.plugins import registry


def carry_out(plan: Plan, execution: Execution) -> tuple[dict[str, str], list[dict]]:
    """Work on a plan and rewrite ``leaderboard.csv``: (failures by job key, every record of the results folder).

    Raises:
        UsageError: the store or the results folder cannot be written; nothing has run then.
    """
    from benchmark.results.boards import write_csv
    from benchmark.results.records import read_records

    writable_folder(Path(plan.store), "DDBENCH_CACHE")
    writable_folder(execution.results, "--results")
    write_skipped(plan.skipped, execution.results)
    failures = run_plan(plan, execution) | {c.identity.id: c.reason for c in plan.skipped if c.failed}
    if not distributed.leads():
        return failures, []
    faults: list = []
    records = read_records(execution.results, faults)
    for fault in faults:
        print(f"left out: {fault}", file=sys.stderr)
    with disk_errors(execution.results):
        write_csv(records, execution.results / "leaderboard.csv")
    return failures, records


def execute(requests: Sequence[Request], execution: Execution) -> int:
    """Run the requests, rewrite ``leaderboard.csv``, print the table; the exit code (0, or 1 if a job failed)."""
    from benchmark.results.boards import table

    began, results, store = time.monotonic(), execution.results, Store()
    writable_folder(store.root, "DDBENCH_CACHE")
    writable_folder(results, "--results")
    plan = execution.plan(requests, store)
    failures, records = carry_out(plan, execution)
    if not distributed.leads():
        return 0
    asked = {cell.identity.id for cell in (*plan.of_kind("evaluate"), *plan.skipped)}
    print("\n" + table([r for r in records if r["id"] in asked], focus=_focus(requests), beside=records) + "\n")
    print(f"records      {results / 'records'}/")
    for sheet in _sheets(plan, results)[:4]:
        print(f"contact sheet {sheet}")
    print(f"leaderboard  {results / 'leaderboard.csv'}")
    print(f"{time.monotonic() - began:.1f} s in all")
    if failures:
        print(f"{len(failures)} jobs failed; their reasons are above and in the records", file=sys.stderr)
    return 1 if failures else 0


def _focus(requests: Sequence[Request]) -> list[str]:
    """The methods that the table compares with the others: the first of each request, once."""
    return list(dict.fromkeys(request.methods[0] for request in requests if len(request.methods) > 1))


def run_plan(plan: Plan, execution: Execution) -> dict[str, str]:
    """Run what is not done yet and return the failures; says what is reused.

    Under torchrun every rank comes here: they share one run, and leave together. ``ddp`` has them train together what
    is large (`benchmark.pipeline.engine.work_together`).
    """
    engine = registry().get("executor", execution.executor, where="--executor").load()
    plan.time_limit = execution.time_limit
    store = Store(plan.store)
    context = Context(store, Path(plan.results), plan.device)
    folder, missing = "", []
    if distributed.leads():
        missing = [j for j in plan.jobs if not j.is_done(context)]
        _say_reused(plan, missing, context)
        if missing:
            keys = {job.key for job in missing}
            folder = str(Run.create(plan, store, done=(j for j in plan.jobs if j.key not in keys), driver=True).folder)
    folder = distributed.agree(folder)
    if not folder:
        return {}
    run = Run(Path(folder))
    small = len([j for j in missing if j.kind in ("part", "distill", "evaluate")]) < 2 and distributed.world() == 1
    try:
        with run.present("driver"):
            if execution.ddp and distributed.world() > 1:
                work_together(run, plan.device)
            engine(run, 1 if small else execution.count(), {"address": execution.address, "device": plan.device})
    except KeyboardInterrupt:
        print(f"stopped; repeat the command to go on, or: ddbench worker {run.folder}", file=sys.stderr)
        raise
    distributed.wait()
    failures = run.failures()
    for job in missing:
        if job.key not in failures and not job.is_done(context):
            failures[job.key] = "not done: a worker ended early"
            print(f"FAILED {job.label}: not done, a worker ended early (see above)", file=sys.stderr)
    if not failures and distributed.leads():
        shutil.rmtree(run.folder, ignore_errors=True)
    elif distributed.leads():
        print(f"logs         {run.folder / 'logs'}/", file=sys.stderr)
    return failures


def _say_reused(plan: Plan, missing: list[Job], context: Context) -> None:
    if progress.is_quiet():
        return
    keys = {job.key for job in missing}
    for kind in ("backbone", "teacher", "distill", "evaluate"):
        jobs = plan.of_kind(kind)
        if not jobs:
            continue
        new = sum(j.key in keys for j in jobs)
        named = f" ({jobs[0].label})" if len(jobs) == 1 else ""
        print(f"{kind:9} {len(jobs) - new} reused, {new} to do{named}", flush=True)
    if any(j.kind == "distill" for j in missing):
        for stages in inner_stages(plan, context):
            print(f"{stages.name}: {stages.text}", flush=True)


def distill_to(request: Request, out: Path, execution: Execution, shard: tuple[int, int] | None = None) -> int:
    """Make the request's sets and copy them to ``out`` (``out/seed0`` … for several seeds)."""
    out = Path(os.path.abspath(out))  # `.` has no name of its own
    store = Store()
    writable_folder(store.root, "DDBENCH_CACHE")
    if len(request.ipc) > 1:
        raise UsageError("distill takes one IPC", where="--ipc")
    if shard and distributed.world() > 1:
        raise UsageError("torchrun's ranks share out the parts by themselves", where="--shard", hint="leave it out")
    mine = [out / f"seed{seed}" for seed in request.seeds] if len(request.seeds) > 1 else [out / "manifest.json"]
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file", where="--out", hint="name a folder")
    if out.exists() and any(out.iterdir()) and not any(path.exists() for path in mine):
        raise UsageError(f"{out} is not empty", where="--out", hint="name a new folder, or empty that one")
    room_for(out, "--out")
    jobs = execution.count()
    count = shard[1] * jobs if shard else jobs * distributed.world()
    plan = make_plan([request], store, execution.results, device=execution.device, parts=count, only_distill=True)
    sets = plan.of_kind("distill")
    targets = [out if len(sets) == 1 else out / f"seed{job.seed}" for job in sets]
    for job, target in zip(sets, targets):
        _check_target(job, target)
    if shard:
        first = ("backbone", "teacher")
        plan.jobs = [j for j in plan.jobs if j.kind in first or (j.kind == "part" and j.part // jobs == shard[0])]
        failures = run_plan(plan, execution)
        context = Context(store, execution.results, execution.device)
        whole = make_plan([request], store, execution.results, device=execution.device, parts=count, only_distill=True)
        waiting = [j for j in whole.jobs if j.kind == "part" and not j.is_done(context)]
        if failures or waiting:
            print(f"shard {shard[0]}/{shard[1]} done; {len(waiting)} parts are still to be made by the other shards")
            return 1 if failures else 0
        plan = whole
    failures = run_plan(plan, execution)
    if not distributed.leads():
        return 0
    if failures:
        return 1
    for job, target in zip(sets, targets):
        copy_set(store, job, target)
        print(f"distilled set {target}")
        print(f"contact sheet {target / 'contact_sheet.png'}")
    return 0


def copy_set(store: Store, job: DistillJob, target: Path) -> None:
    """Copy a set out of the store, whole or not at all."""
    source = store.open(job.stage)
    if source is None:
        raise JobError(
            f"the set of {job.label} is gone from the store", where=str(store.root), hint="repeat the command"
        )
    if _manifest(target) == _manifest(source):
        return  # copied by an earlier run of the same command
    try:
        with whole_folder(target, "--out") as temporary:
            shutil.copytree(source, temporary, ignore=shutil.ignore_patterns("artifact.json"), dirs_exist_ok=True)
    except UsageError:
        if _manifest(target) != _manifest(source):  # else another shard, which finished together with this one, did it
            raise


def _check_target(job: DistillJob, target: Path) -> None:
    """Refuse a folder that holds another set than the job's, before any work.

    Raises:
        UsageError: it does.
    """
    found = _manifest(target)
    asked = {"method": job.method.to_json(), "dataset": job.source.digest, "ipc": job.ipc, "seed": job.seed}
    there = {**{k: found.get(k) for k in asked}, "dataset": found.get("dataset", {}).get("digest")}
    if (target / "manifest.json").exists() and there != asked:
        name, data = (found.get(k, {}).get("name") for k in ("method", "dataset"))
        raise UsageError(
            f"{target} holds another set: {name}, IPC {found.get('ipc')}, seed {found.get('seed')} of {data}",
            where="--out",
            allowed=f"a new folder, or one with the set of {job.label}: the same settings and data",
            hint="name a new folder with --out, or remove that one",
        )


def _manifest(folder: Path) -> dict[str, Any]:
    """The set's manifest without what tells two makings of the same set apart; empty where there is none to read."""
    from benchmark.sets.folder import read_manifest

    try:
        document = read_manifest(folder)
    except (OSError, DDBenchError):
        return {}
    return {k: v for k, v in document.items() if k not in ("cost", "ddbench")}


def _sheets(plan: Plan, results: Path) -> list[Path]:
    identities = (job.identity for job in plan.of_kind("evaluate"))
    first = dict.fromkeys(results / "sets" / sheet_name(i) for i in identities if i.seed == 0)
    return [sheet for sheet in first if sheet.is_file()]
