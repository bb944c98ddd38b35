"""The work of a plan: one module a kind of job, each a frozen dataclass that is written as JSON for the workers."""

from __future__ import annotations

from typing import Any

from benchmark.core.errors import DataError
from benchmark.pipeline.jobs.backbone import BackboneJob
from benchmark.pipeline.jobs.base import Context, Job, LostInput, Source
from benchmark.pipeline.jobs.distill import DistillJob, PartJob
from benchmark.pipeline.jobs.evaluate import EvaluateJob
from benchmark.pipeline.jobs.teacher import TeacherJob

__all__ = [
    "KINDS",
    "BackboneJob",
    "Context",
    "DistillJob",
    "EvaluateJob",
    "Job",
    "LostInput",
    "PartJob",
    "Source",
    "TeacherJob",
    "read_job",
]

# In an order in which they can be done: what a job needs is of an earlier kind.
KINDS: dict[str, type[Job]] = {cls.kind: cls for cls in (BackboneJob, TeacherJob, PartJob, DistillJob, EvaluateJob)}


def read_job(document: dict[str, Any]) -> Job:
    """The job that :meth:`Job.to_json` wrote."""
    kind = document.get("kind")
    if kind not in KINDS:
        raise DataError(f"there is no kind of job {kind!r}", allowed=", ".join(KINDS))
    return KINDS[kind].from_json({name: value for name, value in document.items() if name != "kind"})
