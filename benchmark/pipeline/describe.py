"""``ddbench plan``: what would run, what is cached, what is skipped and why, and what it would cost."""

from __future__ import annotations

import json
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmark.core.errors import DDBenchError
from benchmark.core.provenance import cpu_name
from benchmark.core.sheet import render, simple
from benchmark.core.store import Store
from benchmark.pipeline.cost import forecast
from benchmark.pipeline.cost.predict import Place
from benchmark.pipeline.cost.table import device_name
from benchmark.pipeline.execution import Execution
from benchmark.pipeline.jobs import KINDS, Context
from benchmark.pipeline.outcomes import write_skipped
from benchmark.pipeline.plan import Plan, make_plan, parts_for
from benchmark.pipeline.request import Request
from benchmark.pipeline.runs import Run

if TYPE_CHECKING:
    from benchmark.data import Dataset

SHOWN = 12  # jobs of a kind that are listed without --all


def print_plan(
    requests: Sequence[Request], execution: Execution, *, every: bool, emit: str | None, form: str = "table"
) -> int:
    """Print the plan; nothing is made. ``emit`` (with ``workers``) writes a run for these, and its skipped cells.

    Args:
        form: of `benchmark.core.sheet.FORMATS`; all but ``table`` list every job.
    """
    store, results, device, workers = Store(), execution.results, execution.device, execution.workers
    parts = parts_for(requests, workers) if emit and workers else 1
    plan = make_plan(requests, store, results, device=device, parts=parts)
    context = Context(store, results, device)
    if emit and workers:
        plan.time_limit = execution.time_limit
        write_skipped(plan.skipped, results)
        return emit_commands(plan, store, emit, workers)
    finished = {job.key: job.is_done(context) for job in plan.jobs}
    if form != "table":
        print(_formatted(requests, plan, context, finished, form), end="")
        return 1 if any(cell.failed for cell in plan.skipped) else 0
    total_missing = sum(not done for done in finished.values())
    for kind in KINDS:
        jobs = plan.of_kind(kind)
        if not jobs:
            continue
        done = [finished[job.key] for job in jobs]
        print(f"{kind}: {len(jobs)} jobs, {sum(done)} cached, {len(jobs) - sum(done)} to do")
        for job, cached in list(zip(jobs, done))[: None if every else SHOWN]:
            print(f"  {'cached' if cached else 'to do '}  {job.label}  {job.key[:12]}")
        if len(jobs) > SHOWN and not every:
            print(f"  … {len(jobs) - SHOWN} more: --all")
    inner = inner_stages(plan, context)
    for stages in inner:
        print(f"{stages.name}: {stages.text}")
    for cell in plan.skipped:
        identity = cell.identity
        word = "FAILED  " if cell.failed else "skipped "
        print(f"{word} {identity.method.name} ipc {identity.ipc} seed {identity.seed}: {cell.reason}")
    shared = shared_stage_runs(plan)
    if shared:
        print(f"shared by later jobs and done once: {shared} of these jobs")
    if not total_missing:
        print("everything is there: `ddbench run` would answer from the store")
    todo = forecast.left(plan, lambda job: finished[job.key], {s.method: s.missing for s in inner})
    for request in requests if total_missing else ():
        _print_forecast(request, plan.device, todo.at(request.ipc, first=request is requests[0]))
    return 1 if any(cell.failed for cell in plan.skipped) else 0


def _formatted(requests: Sequence[Request], plan: Plan, context: Context, finished: dict[str, bool], form: str) -> str:
    """The plan as a table of its jobs; JSON has the cells left out, the shared stages and the forecast besides."""
    jobs = [job for kind in KINDS for job in plan.of_kind(kind)]
    about = [{"kind": job.kind, "job": job.label, "key": job.key, "cached": finished[job.key]} for job in jobs]
    if form != "json":
        rows = [(a["kind"], "cached" if a["cached"] else "to do", a["job"], a["key"][:12]) for a in about]
        sheet = simple("", ["kind", "state", "job", "key"], rows, "llll", documents=about)
        sheet.notes = [f"{c.identity.method.name} ipc {c.identity.ipc}: {c.reason}" for c in plan.skipped]
        return render([sheet], form, "ddbench plan")
    inner = inner_stages(plan, context)
    todo = forecast.left(plan, lambda job: finished[job.key], {s.method: s.missing for s in inner})
    lines = []
    for request in requests if not all(finished.values()) else ():
        lines += _forecast(request, plan.device, todo.at(request.ipc, first=request is requests[0]))[1]
    skipped = [
        {"method": c.identity.method.name, "ipc": c.identity.ipc, "seed": c.identity.seed}
        | {"failed": c.failed, "reason": c.reason}
        for c in plan.skipped
    ]
    stages = [{"method": s.method, "stage": s.name, "missing": s.missing, "text": s.text} for s in inner]
    document = {"jobs": about, "stages": stages, "left_out": skipped, "forecast": lines}
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _forecast(request: Request, device: str, todo: forecast.ToDo) -> tuple[Dataset, list[str]]:
    from benchmark.data import load_dataset

    dataset = load_dataset(request.dataset, root=request.data_root, **request.dataset_options)
    place = Place(device_name(device), request.precision, device.startswith("cuda"))
    return dataset, forecast.forecast(request, forecast.Facts.of(dataset), todo, place, dataset)


def _print_forecast(request: Request, device: str, todo: forecast.ToDo) -> None:
    dataset, lines = _forecast(request, device, todo)
    if "not read" in dataset.notes:
        print(f"warning: files in class folders that are not read: {dataset.notes['not read']}")
    if lines:
        print("\n" + "\n".join(lines))


def print_forecast_without_data(request: Request, device: str) -> None:
    """The predicted cost where the data or the backbone is not here: from the dataset's published size."""
    from benchmark.data import load_dataset
    from benchmark.pipeline.requirements import gpus

    try:
        dataset = load_dataset(request.dataset, root=request.data_root, **request.dataset_options)
        facts = forecast.Facts.of(dataset)
    except DDBenchError:
        options = request.dataset_options
        published = forecast.Facts.published(request.dataset, options.get("image_size"), options.get("classes"))
        dataset, facts = None, published
    if facts is None:
        return
    found = gpus() if device != "cpu" else []
    place = Place(found[0][0] if found else cpu_name(), request.precision, bool(found))
    lines = forecast.forecast(request, facts, forecast.everything(request, facts), place, dataset)
    source = f"{facts.train:,} training images in {len(facts.classes)} classes" + ("" if dataset else " as published")
    print(f"The predicted cost ({source}):\n" + "\n".join(lines) + "\n")


@dataclass(frozen=True)
class Inner:
    """Stages of one name that a method shares between its sets; ``missing`` is the share that is not in the store."""

    method: str
    name: str
    text: str
    missing: float


def inner_stages(plan: Plan, context: Context) -> list[Inner]:
    """Stages that methods share between sets (statistics, fine-tuning): runs wanted, distinct and cached, by name."""
    wanted: Counter = Counter()
    distinct: dict[tuple[str, str], dict] = {}
    for job in plan.of_kind("distill"):
        try:
            method, task, _ = job.open(context)
            stages = method.stages(task)
        except Exception as error:  # noqa: BLE001 - a plug-in's plan is only for show; its job will say what is wrong
            print(f"{job.label}: stages unknown ({type(error).__name__}: {error})", file=sys.stderr)
            continue
        for stage in stages:
            wanted[task.method, stage.name] += 1
            distinct.setdefault((task.method, stage.name), {})[stage.key] = stage
    out = []
    for (method, name), stages in distinct.items():
        cached = sum(context.store.has(stage) for stage in stages.values())
        shared = wanted[method, name] - len(stages)
        text = f"{len(stages)} cached stages inside these jobs, {cached} are there"
        text += f"; sets share them: {shared} uses more" if shared else ""
        out.append(Inner(method, name, text, 1 - cached / len(stages)))
    return out


def shared_stage_runs(plan: Plan) -> int:
    """How many jobs are needed by more than one other job."""
    users: dict[str, int] = {}
    for job in plan.jobs:
        for key in job.needs:
            users[key] = users.get(key, 0) + 1
    return sum(n > 1 for n in users.values())


def emit_commands(plan: Plan, store: Store, form: str, workers: int) -> int:
    """Write the run and print worker commands for a cluster that shares the store's file system."""
    from benchmark.pipeline.executors.local import worker_command

    run = Run.create(plan, store, emitted=True)
    command = f"{shlex.quote(worker_command())} worker {shlex.quote(str(run.folder))}"
    if form == "joblist":
        for _ in range(workers):
            print(command)
        return 0
    print("#!/bin/bash")
    print("#SBATCH --job-name=ddbench")
    print(f"#SBATCH --array=0-{workers - 1}")
    print("#SBATCH --requeue")
    if plan.device != "cpu":
        guess = plan.device == "auto"
        print("#SBATCH --gpus=1" + ("   # by default; for nodes without a GPU: --device cpu" if guess else ""))
    print(f"export DDBENCH_CACHE={shlex.quote(str(store.root))}")
    print(command)
    return 0
