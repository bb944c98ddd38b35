"""The public module: what a plug-in or a notebook imports, and nothing else.

Attributes load on first use, so that a plug-in's hooks import no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    # the contract of a method
    "TEACHER": "benchmark.methods",
    "Method": "benchmark.methods",
    "Needs": "benchmark.methods",
    "NoParams": "benchmark.methods",
    "Task": "benchmark.methods",
    "Unit": "benchmark.methods",
    "Work": "benchmark.methods",
    "make_params": "benchmark.methods",
    "param": "benchmark.methods",
    # registering
    "BackbonePresetInfo": "benchmark.plugins",
    "CommandInfo": "benchmark.plugins",
    "DatasetInfo": "benchmark.plugins",
    "ExecutorInfo": "benchmark.plugins",
    "MethodInfo": "benchmark.plugins",
    "MetricInfo": "benchmark.plugins",
    "ProtocolInfo": "benchmark.plugins",
    "StudentInfo": "benchmark.plugins",
    "hookimpl": "benchmark.plugins",
    # for notebooks and scripts: the commands of the command line
    "DistilledSet": "benchmark.sets.folder",
    "Identity": "benchmark.results.records",
    "Outcome": "benchmark.results.records",
    "Record": "benchmark.results.records",
    "evaluate": "benchmark.api.calls",
    "leaderboard": "benchmark.api.calls",
    "load_set": "benchmark.api.calls",
    "records": "benchmark.api.calls",
    "run": "benchmark.api.calls",
    # errors that a user can act on
    "DDBenchError": "benchmark.core.errors",
    "DataError": "benchmark.core.errors",
    "JobError": "benchmark.core.errors",
    "MissingError": "benchmark.core.errors",
    "UsageError": "benchmark.core.errors",
    # randomness, stages, progress, files
    "Precision": "benchmark.core.compute",
    "Progress": "benchmark.core.progress",
    "Stage": "benchmark.core.store",
    "Store": "benchmark.core.store",
    "decode": "benchmark.training.formation",
    "derive_seed": "benchmark.core.compute",
    "digest_file": "benchmark.core.store",
    "digest_of": "benchmark.core.store",
    "fast_layout": "benchmark.core.compute",
    "generator": "benchmark.core.compute",
    "plain_table": "benchmark.core.sheet",
    "prepare": "benchmark.core.compute",
    "prepared": "benchmark.core.compute",
    "resolve_device": "benchmark.core.compute",
    "writable_folder": "benchmark.core.outputs",
    "write_text": "benchmark.core.outputs",
    # data, backbones, teachers, students
    "Augmenter": "benchmark.training.augment",
    "Averaged": "benchmark.training.loop",
    "Backbone": "benchmark.backbones",
    "Dataset": "benchmark.data",
    "Enlarged": "benchmark.students.library",
    "Guidance": "benchmark.backbones",
    "Split": "benchmark.data",
    "Teacher": "benchmark.teachers",
    "batches": "benchmark.training.loop",
    "build_student": "benchmark.students",
    "chosen_settings": "benchmark.backbones.guidance",
    "class_latents": "benchmark.backbones",
    "compile_blocks": "benchmark.backbones.backbone",
    "folder_digest": "benchmark.backbones.folder",
    "get_teacher": "benchmark.teachers",
    "load_backbone": "benchmark.backbones",
    "load_dataset": "benchmark.data",
    "mix": "benchmark.training.augment",
    "parse_sets": "benchmark.pipeline.request",
    "rate_at": "benchmark.training.loop",
    "resolve_backbone": "benchmark.backbones.resolve",
    "sample": "benchmark.backbones",
    "sampling_levels": "benchmark.backbones",
    "student_version": "benchmark.students.build",
    "teacher_key": "benchmark.teachers",
    "train": "benchmark.training.loop",
}
_RENAMED = {"folder_digest": "digest", "chosen_settings": "chosen"}  # public name -> name at home

__all__ = sorted(_HOMES)

if TYPE_CHECKING:
    from benchmark.api.calls import evaluate, leaderboard, load_set, records, run  # noqa: F401
    from benchmark.backbones import Backbone, Guidance, class_latents, load_backbone, sample, sampling_levels  # noqa: F401
    from benchmark.backbones.backbone import compile_blocks  # noqa: F401
    from benchmark.backbones.folder import digest as folder_digest  # noqa: F401
    from benchmark.backbones.guidance import chosen as chosen_settings  # noqa: F401
    from benchmark.backbones.resolve import resolve_backbone  # noqa: F401
    from benchmark.core.compute import (  # noqa: F401
        Precision,
        derive_seed,
        fast_layout,
        generator,
        prepare,
        prepared,
        resolve_device,
    )
    from benchmark.core.errors import DataError, DDBenchError, JobError, MissingError, UsageError  # noqa: F401
    from benchmark.core.outputs import writable_folder, write_text  # noqa: F401
    from benchmark.core.progress import Progress  # noqa: F401
    from benchmark.core.sheet import plain_table  # noqa: F401
    from benchmark.core.store import Stage, Store, digest_file, digest_of  # noqa: F401
    from benchmark.data import Dataset, Split, load_dataset  # noqa: F401
    from benchmark.methods import TEACHER, Method, Needs, NoParams, Task, Unit, Work, make_params, param  # noqa: F401
    from benchmark.pipeline.request import parse_sets  # noqa: F401
    from benchmark.plugins import (  # noqa: F401
        BackbonePresetInfo,
        CommandInfo,
        DatasetInfo,
        ExecutorInfo,
        MethodInfo,
        MetricInfo,
        ProtocolInfo,
        StudentInfo,
        hookimpl,
    )
    from benchmark.results.records import Identity, Outcome, Record  # noqa: F401
    from benchmark.sets.folder import DistilledSet  # noqa: F401
    from benchmark.students import build_student  # noqa: F401
    from benchmark.students.build import student_version  # noqa: F401
    from benchmark.students.library import Enlarged  # noqa: F401
    from benchmark.teachers import Teacher, get_teacher, teacher_key  # noqa: F401
    from benchmark.training.augment import Augmenter, mix  # noqa: F401
    from benchmark.training.formation import decode  # noqa: F401
    from benchmark.training.loop import Averaged, batches, rate_at, train  # noqa: F401


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), _RENAMED.get(name, name))


def __dir__() -> list[str]:
    return __all__
