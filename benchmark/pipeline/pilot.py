"""``ddbench run --pilot``: after some classes were done end to end, the hours that the whole command would take.

Hours are what the pilot's artifacts took, scaled by images (shared stages, sets) and by steps (students).
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchmark.core.store import Store
from benchmark.pipeline.cost import forecast
from benchmark.pipeline.cost.predict import hours_text
from benchmark.pipeline.jobs import Context, DistillJob, EvaluateJob
from benchmark.pipeline.jobs.distill import shared_seconds
from benchmark.pipeline.plan import make_plan
from benchmark.pipeline.request import Request
from benchmark.results.records import find_record

if TYPE_CHECKING:
    from benchmark.pipeline.execution import Execution

PILOT_CLASSES = "10"


@dataclass(frozen=True)
class Part:
    """One kind of work: what the pilot took, how much more of it the whole is, and the seconds still to go."""

    text: str
    measured: float
    rest: float


def print_hours(requests: Sequence[Request], execution: Execution, seeds: int) -> None:
    """Print what was measured, what the rest takes on one such device, and the command for the whole."""
    parts = [part for request in requests for part in measured(request, execution, seeds)]
    merged = {part.text: part for part in parts}  # shared stages belong to every IPC
    if not merged:
        print("the pilot made nothing: see above")
        return
    context = Context(Store(), execution.results, execution.device)
    print(f"measured on {context.device_name}, and what the rest of the command takes on one such device:")
    width = max(len(text) for text in merged)
    for part in merged.values():
        print(f"  {part.text:{width}}  {hours_text(part.measured):>8} in the pilot, {hours_text(part.rest):>8} to go")
    total = sum(part.rest for part in merged.values())
    print(f"  {'in all':{width}}  {hours_text(total):>8} to go; more devices divide it (docs/scaling.md)")
    print(f"go on: {whole_command()}")


def measured(request: Request, execution: Execution, seeds: int) -> list[Part]:
    """The parts of one request that ran on some classes with one seed; ``seeds`` are those of the whole."""
    from benchmark.data import load_dataset

    store = Store()
    plan = make_plan([request], store, execution.results, device=execution.device)
    context = Context(store, execution.results, execution.device)
    options = {k: v for k, v in request.dataset_options.items() if k != "classes"}
    here = load_dataset(request.dataset, root=request.data_root, **request.dataset_options)
    whole = here.whole or here
    facts = forecast.Facts.of(whole)
    everything = replace(request, dataset_options=options)
    images, classes = len(whole.train) / len(here.train), len(whole.classes) / len(here.classes)
    found = []
    for job in plan.of_kind("distill"):
        found += _set(job, context, images, classes, seeds)
    for job in plan.of_kind("evaluate"):
        found += _student(job, context, everything, facts, seeds)
    return found


def _set(job: DistillJob, context: Context, images: float, classes: float, seeds: int) -> list[Part]:
    folder = context.store.open(job.stage)
    if folder is None:
        return []
    cost = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["cost"]
    method, task, _ = job.open(context)
    shared, name = shared_seconds(method, task), job.method.name
    own = max(0.0, cost["seconds"] - cost["shared_seconds"])
    parts = []
    if shared:
        parts.append(Part(f"{name}: what every IPC and seed shares", shared, shared * (images - 1)))
    parts.append(Part(f"{name}: {seeds} set(s) of IPC {job.ipc}", own, own * classes * seeds))
    return parts


def _student(job: EvaluateJob, context: Context, request: Request, facts: forecast.Facts, seeds: int) -> list[Part]:
    identity = job.identity
    record = find_record(context.results, identity.to_json())
    if record is None or record["outcome"]["status"] != "ok":
        return []
    seconds, steps = record["cost"]["train_seconds"], record["cost"]["steps"]
    wanted = forecast.student_steps(request, facts, identity.student, job.protocol, identity.ipc)[1]
    text = f"{identity.method.name}: {seeds} {identity.student} of IPC {identity.ipc}, {job.protocol}"
    return [Part(text, seconds, seconds / steps * wanted * seeds)]


def whole_command() -> str:
    """The command line of this process without what makes it a pilot."""
    words, kept = sys.argv[1:], []
    skip = False
    for word in words:
        if skip or word == "--pilot" or word.startswith("--classes="):
            skip = False
        elif word == "--classes":
            skip = True
        else:
            kept.append(word)
    return shlex.join(["ddbench", *kept])
