"""What notebooks and scripts call: the commands of the command line as functions, with the same names and defaults.

Everything is reached as ``benchmark.api.run`` and so on.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.api.arguments import MOST_SEEDS, checked, whole_numbers
from benchmark.core.errors import DataError, MissingError, UsageError
from benchmark.core.foreign import LARGEST
from benchmark.core.store import Store
from benchmark.pipeline.request import Request
from benchmark.results.records import Record, find_record, iter_records

if TYPE_CHECKING:
    import pandas
    import torch

    from benchmark.data import Dataset
    from benchmark.sets.folder import DistilledSet

FLOORS = ("random", "kmeans")  # what `run` adds, so that every number stands beside its floor
Names = str | Sequence[str]


@checked
def run(
    method: Names,
    dataset: str,
    *,
    ipc: int | Sequence[int] = 1,
    seeds: int | Sequence[int] = 5,
    student: Names = (),
    protocol: Names = (),
    metric: Names = (),
    sets: Mapping[str, Any] | None = None,
    backbone: str = "",
    teacher: str = "",
    precision: str = "fp32",
    data_root: str | None = None,
    image_size: int | None = None,
    classes: str | int | None = None,
    download: bool = False,
    floor: bool = False,
    results: str | os.PathLike[str] = "results",
    device: str = "auto",
    executor: str = "local",
    jobs: int | None = 1,
) -> list[Record]:
    """Distil, train students, write records and ``leaderboard.csv``, as ``ddbench run`` does; what is there is reused.

    Args:
        method, student, protocol, metric: names, wildcards allowed, one or several.
        seeds: how many, or which.
        sets: ``{"m": 1000, "d3hr.steps": 50, "protocol.epochs": 5}``, as ``--set``.
        classes: some of them, as ``--classes``: a count, labels or names.
        floor: also run random real images and k-means.
        jobs: workers; 1 works in this process, None starts as many as the command line does.

    Returns:
        A record for each (method, IPC, student, protocol, seed), in that order; failed and skipped cells too, with
        their reason in ``record.outcome``.

    Raises:
        UsageError, MissingError: a name or a value that is wrong, data or weights that are not there.
    """
    from dataclasses import replace

    from benchmark.core.compute import resolve_device
    from benchmark.pipeline.execution import Execution
    from benchmark.pipeline.requirements import check_requirements
    from benchmark.pipeline.run import carry_out

    methods = _names("method", method)
    if not methods:
        raise UsageError("no method is named", where="run(method=…)", hint="ddbench list methods")
    given = {"download": download or None, "image_size": image_size, "classes": classes}
    request = Request(
        dataset=dataset,
        methods=methods + tuple(f for f in FLOORS if floor and f not in methods),
        ipc=whole_numbers("run", "ipc", ipc, 1, 10**6),
        students=_names("student", student),
        protocols=_names("protocol", protocol),
        seeds=_seeds(seeds),
        sets=dict(sets or {}),
        teacher=teacher,
        backbone=backbone,
        precision=precision,
        data_root=data_root,
        dataset_options={name: value for name, value in given.items() if value is not None},
        metrics=_names("metric", metric),
    )
    check_requirements(replace(request, methods=methods), device)
    how = Execution(Path(results), resolve_device(device), executor, jobs)
    plan = how.plan([request], Store())
    failures, _ = carry_out(plan, how)
    found = []
    for cell in (*plan.of_kind("evaluate"), *plan.skipped):
        document = find_record(how.results, cell.identity.to_json())
        if document is None:
            raise DataError(f"no record of {cell.identity.method.name}: {failures.get(getattr(cell, 'key', ''), '')}")
        found.append(Record.from_json(document))
    return found


@checked
def evaluate(
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    dataset: str,
    protocol: str = "hard",
    student: str = "",
    teacher: str = "",
    seed: int = 0,
    sets: Mapping[str, Any] | None = None,
    precision: str = "fp32",
    data_root: str | None = None,
    image_size: int | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Train one student on images in memory and test it, as ``ddbench evaluate`` does with a folder; writes no record.

    Args:
        images: ``[N, C, side, side]`` in grey levels 0..255, equally many of every class: uint8, or float32 where
            they are to be trained on as they are (`load_set` of a released ``.pt``).
        labels: int64 ``[N]``, positions in the dataset's order of classes.
        sets: changes of the protocol: ``{"epochs": 5}``.

    Returns:
        The scores of a record (``top1_last``, ``top1_best``, ``ece`` …, percent, and ``curve``) and ``gates``.

    Raises:
        UsageError: no images or labels of this dataset.
        GateError: not equally many images of every class, or labels that do not follow the dataset's order.
    """
    from benchmark.core import compute
    from benchmark.data import load_dataset
    from benchmark.evaluation import gates, train_student
    from benchmark.evaluation.protocols import load_protocol
    from benchmark.plugins import registry
    from benchmark.teachers import get_teacher

    whole_numbers("evaluate", "seed", seed, 0, LARGEST)
    data = load_dataset(dataset, root=data_root, **({} if image_size is None else {"image_size": image_size}))
    _check_images(images, labels, data)
    if student:
        registry().get("student", student, where="evaluate(student=…)")
    rules, where = load_protocol(protocol, dict(sets or {})), compute.resolve_device(device)
    judge = get_teacher(Store(), data, teacher or rules.teacher_of(data), where)
    numerics = compute.Precision.named(precision)
    with compute.prepared("evaluate"):
        checks = {"teacher": gates.check_teacher(judge, data), "set": gates.check_set(images, labels, judge, data)}
        result = train_student(
            images,
            labels,
            dataset=data,
            protocol=rules,
            student=student or rules.student_of(data.image_size),
            teacher=judge,
            ipc=len(labels) // len(data.classes),
            seed=seed,
            device=where,
            precision=numerics,
        )
    return {**result.scores, "curve": result.curve, "gates": checks}


@checked
def load_set(
    source: str | os.PathLike[str] | Record, *, dataset: str = "", data_root: str | None = None
) -> DistilledSet:
    """A distilled set: ``images`` ``[N, C, side, side]`` in grey levels (uint8; float32 of released floats), ``labels``
    int64 ``[N]``, ``ipc``, ``manifest``.

    Args:
        source: a folder or file (of ``ddbench distill``, or released by a paper's authors), or the record of one of its
            students, whose set is then taken from the store.
        dataset: what it was made of; needed where the folder has no manifest.

    Raises:
        MissingError: no such folder, or the store does not hold the record's set.
        DataError: classes, counts or images that cannot be right.
    """
    from benchmark.data import load_dataset
    from benchmark.sets.given import describe_set, open_set

    if isinstance(source, Record):
        folder = Store().open_key("set", source.identity.set) if source.identity.set else None
        if folder is None:
            hint = "run the same cell again: it is made anew"
            raise MissingError(f"the set of record {source.id[:12]} is not in this store", hint=hint)
        dataset = dataset or source.identity.dataset.name
    else:
        folder = Path(source)
        dataset = dataset or describe_set(folder).get("dataset", "")
    if not dataset:
        raise UsageError(f"{folder} has no manifest that names its dataset", where="load_set", hint="give dataset=…")
    return open_set(folder, load_dataset(dataset, root=data_root))


@checked
def records(results: str | os.PathLike[str] = "results") -> pandas.DataFrame:
    """The records of a results folder, one row each; columns are the paths of the schema: ``identity.method.name``.

    Damaged files are left out; ``ddbench results verify`` names them.
    """
    import pandas

    return pandas.json_normalize(list(iter_records(results, [])), max_level=2)


@checked
def leaderboard(results: str | os.PathLike[str] = "results") -> pandas.DataFrame:
    """The board of a results folder: the rows and columns of ``leaderboard.csv`` (see `results/README.md`)."""
    from benchmark.results.boards import read_csv, write_csv

    with tempfile.TemporaryDirectory() as folder:
        return read_csv(write_csv(iter_records(results, []), Path(folder) / "leaderboard.csv"))


def _check_images(images: torch.Tensor, labels: torch.Tensor, data: Dataset) -> None:
    """Refuse what are no images and labels of the dataset.

    Raises:
        UsageError: says what they are.
    """
    import torch

    square = images.ndim == 4 and images.shape[2] == images.shape[3] > 0 and len(images) > 0
    levels = images.dtype == torch.float32 and images.numel() > 0 and bool(images.max() > 2)
    if not (levels or images.dtype == torch.uint8) or not square or images.shape[1] != data.channels:
        raise UsageError(
            f"images must be uint8 [N, C, side, side], not {images.dtype} {tuple(images.shape)}",
            where="evaluate(images=…)",
            allowed=f"C = {data.channels} for {data.name}; uint8, or float32 in grey levels 0..255",
            hint="multiply images of 0..1 by 255; take mean and deviation out of normalised ones",
        )
    whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    if not whole or labels.shape != images.shape[:1]:
        raise UsageError(
            f"labels must be whole numbers [N], N = {len(images)} as the images, "
            f"not {labels.dtype} {tuple(labels.shape)}",
            where="evaluate(labels=…)",
        )
    if not 0 <= int(labels.min()) <= int(labels.max()) < len(data.classes):
        raise UsageError(
            f"labels are {int(labels.min())} to {int(labels.max())}",
            where="evaluate(labels=…)",
            allowed=f"0 to {len(data.classes) - 1}: positions in the order of {data.name}'s classes",
        )


def _seeds(given: int | Sequence[int]) -> tuple[int, ...]:
    """How many, or which."""
    if isinstance(given, Integral):
        return tuple(range(*whole_numbers("run", "seeds", given, 1, MOST_SEEDS)))
    return whole_numbers("run", "seeds", given, 0, LARGEST)


def _names(kind: str, given: Names) -> tuple[str, ...]:
    from benchmark.plugins import registry

    return tuple(registry().select(kind, (given,) if isinstance(given, str) else given, where=kind))
