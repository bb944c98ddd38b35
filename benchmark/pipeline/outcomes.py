"""Writes the record of a finished, failed or skipped cell, and copies its contact sheet beside the records."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.core.outputs import replacing
from benchmark.core.provenance import provenance
from benchmark.core.store import Store
from benchmark.core.store.store import disk_errors
from benchmark.results.records import find_record, write_record

if TYPE_CHECKING:
    from benchmark.methods import Method, Task
    from benchmark.pipeline.plan import Job, Plan


@dataclass
class Context:
    """Where a worker reads and writes, and on what device it computes."""

    store: Store
    results: Path
    device: str = "cpu"


def write_outcome(identity: dict, context: Context, outcome: dict, **parts: Any) -> None:
    """Write the record of a cell, unless an equal one (identity, outcome, scores) is already there."""
    blank = {"scores": {}, "cost": {}, "gates": {}, "artifacts": {}}
    record = {"identity": identity, "outcome": outcome, **blank, **parts, "provenance": provenance()}
    old = find_record(context.results, identity)
    if old is not None:
        if old["outcome"]["status"] == outcome["status"] == "ok" and _same_student(old, record):
            record["scores"] = old["scores"] | record["scores"]  # keeps metrics that were asked for earlier
        if all(old[k] == json.loads(json.dumps(record[k])) for k in ("outcome", "scores")):
            return
        if outcome["status"] != "ok" and old["outcome"]["status"] == "ok":
            return
    with disk_errors(context.results):
        write_record(context.results, record)


def _same_student(one: dict, other: dict) -> bool:
    return one["scores"]["top1_last"] == other["scores"]["top1_last"]


def write_skipped(plan: Plan, context: Context) -> None:
    """A cell that cannot run is a row too."""
    for cell in plan.skipped:
        write_outcome(cell["identity"], context, {"status": "skipped", "reason": cell["reason"], "flags": []})
        print(f"skipped {cell['identity']['method']['name']}: {cell['reason']}", file=sys.stderr)


def write_failure(job: Job, context: Context, reason: str) -> None:
    """A failed evaluation is a row too."""
    if job.kind == "evaluate":
        write_outcome(job.spec["identity"], context, {"status": "failed", "reason": reason, "flags": []})


def sheet_name(identity: dict) -> str:
    """The file name of a set's contact sheet: what a person can read, no longer than a file system takes."""
    words = (identity["dataset"]["name"], identity["method"]["name"])
    dataset, method = (re.sub(r"[^A-Za-z0-9._+@ -]", "_", word)[:48] for word in words)
    return f"{dataset}-{method}-ipc{identity['ipc']}-s{identity['seed']}-{identity['set'][:8]}.png"


def keep_sheet(folder: Path, identity: dict, context: Context) -> str:
    """Copy the contact sheet beside the records."""
    source = folder / "contact_sheet.png"
    if not source.is_file():
        return ""
    name = sheet_name(identity)
    target = context.results / "sets" / name
    if not target.is_file():
        with disk_errors(context.results), replacing(target) as temporary:
            shutil.copyfile(source, temporary)
    return f"sets/{name}"


def shared_seconds(method: Method, task: Task) -> float:
    """What the stages took that the task's set shares with others, and the VAE latents of the training split where the
    method uses them, whichever processes made them."""
    stages, classes = method.stages(task), len(task.dataset.classes)
    if any(work.stage == "encode" for work in method.work(len(task.train), classes, task.ipc)):
        from benchmark.backbones.latents import moments_stage

        stages = [*stages, *(moments_stage(task.dataset, task.backbone, c) for c in range(classes))]
    return sum(task.store.info(stage)["seconds"] for stage in stages if task.store.has(stage))
