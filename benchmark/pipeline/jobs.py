"""The work of one job. Everything it needs comes from the job's spec and the store; its result is a file."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmark import __version__
from benchmark.backbones.resolve import resolve_backbone
from benchmark.core import compute, distributed
from benchmark.core.cost import Meter
from benchmark.core.errors import DDBenchError, JobError
from benchmark.core.progress import Progress
from benchmark.core.provenance import cpu_name, gpu_name
from benchmark.core.store import Stage, Store
from benchmark.pipeline.outcomes import Context, keep_sheet, shared_seconds, write_outcome
from benchmark.pipeline.plan import Job, set_stage, student_stage
from benchmark.plugins import registry
from benchmark.results.records import find_record

STAGES = {"backbone": "backbone", "teacher": "teacher", "distill": "set", "evaluate": "student"}  # of jobs' results
GOLDEN_RATIO = 0.6180339887498949  # its multiples, modulo 1, leave no wide gap however many are taken


class LostInput(JobError):
    """What an earlier job made is gone or was found damaged (and set aside); that job, ``key``, must be done again."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the distilled set {key[:12]} is not whole any more", hint="repeat the command")
        self.key = key


# -- whether a job is done -------------------------------------------------------------------------------------------


def is_done(job: Job, context: Context) -> bool:
    """Whether the job's result is there."""
    store = context.store
    if job.kind == "part":
        if store.has_key("set", job.key.split("/")[0]):
            return True
        try:
            return not _part_missing(job, context, stage_of(job))
        except Exception:  # noqa: BLE001 - a plug-in that cannot name its units: the job will say why
            return False
    if job.kind == "backbone" and job.spec["backbone"] not in registry().names("backbone"):
        return True  # external: nothing to make
    there = store.has_key(STAGES[job.kind], job.key)
    return there and (job.kind != "evaluate" or _is_recorded(job, context))


def _is_recorded(job: Job, context: Context) -> bool:
    """Whether a good record holds all that the trained student scored (a failed one, or one without a metric, not)."""
    record = find_record(context.results, job.spec["identity"])
    if record is None or record["outcome"]["status"] != "ok":
        return False
    try:
        made = json.loads((context.store.place("student", job.key) / "outcome.json").read_text())["scores"]
    except (OSError, ValueError, KeyError):
        return False  # damaged: opening it says so and makes it again
    return set(made) <= set(record["scores"])  # not equal values: where training is not repeatable, they never are


@lru_cache(maxsize=1000)
def _stage_cached(kind: str, text: str) -> Stage | None:
    spec = json.loads(text)
    if kind in ("part", "distill"):
        info = registry().get("method", spec["method"])
        precision = compute.Precision.named(spec["precision"])
        arguments = spec["document"]["params"], spec["ipc"], spec["inputs"], spec["seed"], precision
        return set_stage(spec["method"], info.version, *arguments)
    if kind == "evaluate":
        return student_stage(spec["identity"], spec["metrics"])
    dataset = _dataset(spec)
    if kind == "teacher":
        from benchmark.teachers import teacher_stage

        return teacher_stage(dataset, spec["teacher"])
    return resolve_backbone(dataset, spec["backbone"]).stage


def stage_of(job: Job) -> Stage | None:
    """The stage whose artifact is the job's result; None for something external."""
    return _stage_cached(job.kind, json.dumps(job.spec, sort_keys=True))


def _part_missing(job: Job, context: Context, stage: Stage) -> list[int]:
    units = task_and_units(job, context)[2]
    mine = set(range(*_part_range(job, len(units))))
    return [i for i in context.store.missing_chunks(stage, len(units)) if i in mine]


def _part_range(job: Job, count: int) -> tuple[int, int]:
    part, parts = job.spec.get("part", (0, 1))
    return part * count // parts, (part + 1) * count // parts


# -- doing a job -----------------------------------------------------------------------------------------------------


def run_job(job: Job, context: Context) -> None:
    """Do the job; raises whatever goes wrong, with nothing half-written."""
    precision = compute.Precision.named(job.spec["precision"])
    compute.prepare("distill" if job.kind == "part" else job.kind, precision)
    {"backbone": _backbone, "teacher": _teacher, "part": _part, "distill": _distill, "evaluate": _evaluate}[job.kind](
        job, context
    )


def _dataset(spec: dict[str, Any]):
    """The job's dataset, which must be what the keys were made of when the run was planned."""
    from benchmark.data import load_dataset

    dataset = load_dataset(spec["dataset"], root=spec["data_root"], **spec["dataset_options"])
    if dataset.digest != spec.get("digest", dataset.digest):  # none in the plans of older versions
        raise JobError(
            f"the data changed since the run was planned: {dataset.name} was {spec['digest'][:12]} "
            f"and is {dataset.digest[:12]}",
            where=f"data root {spec['data_root'] or 'not set'}",
            allowed="the same labels, class order and images wherever jobs of a run are done",
            hint="bring the data back, or repeat the command (a job of a cluster: `ddbench plan --emit` again)",
        )
    return dataset


def _backbone(job: Job, context: Context) -> None:
    dataset = _dataset(job.spec)
    ref = resolve_backbone(dataset, job.spec["backbone"])
    ref.build(context.store, dataset, context.device, job.spec["judge"])


def _teacher(job: Job, context: Context) -> None:
    from benchmark.teachers import get_teacher

    get_teacher(context.store, _dataset(job.spec), job.spec["teacher"], context.device)


@lru_cache(maxsize=2)
def _loaded_backbone(root: str, name: str, device: str, precision: str, spec_text: str):
    from benchmark.backbones import load_backbone

    dataset = _dataset(json.loads(spec_text))
    ref = resolve_backbone(dataset, name)
    folder = ref.build(Store(root), dataset, device)
    return load_backbone(folder, dataset, device, compute.Precision.named(precision), ref.key)


@lru_cache(maxsize=2)
def _checked_teacher(root: str, name: str, device: str, spec_text: str):
    """(teacher, its gate's report): loaded and tested once a process, whatever number of students it labels for."""
    from benchmark.evaluation import gates
    from benchmark.teachers import get_teacher

    dataset = _dataset(json.loads(spec_text))
    teacher = get_teacher(Store(root), dataset, name, device)
    return teacher, gates.check_teacher(teacher, dataset)


def _dataset_text(spec: dict[str, Any]) -> str:
    names = ("dataset", "digest", "data_root", "dataset_options")
    return json.dumps({k: v for k, v in spec.items() if k in names}, sort_keys=True)


def task_and_units(job: Job, context: Context):
    """(method, task, units) of a distillation job: what its units are made with."""
    from benchmark.methods import Task

    spec = job.spec
    cls = registry().get("method", spec["method"]).load()
    values = {
        k: tuple(v) if isinstance(v, list) else v for k, v in (spec["document"]["params"] | spec["hints"]).items()
    }
    method = cls(cls.Params(**values))
    dataset = _dataset(spec)
    task = Task(
        method=spec["method"],
        dataset=dataset.without_test(),
        ipc=spec["ipc"],
        seed=spec["seed"],
        store=context.store,
        device=context.device,
        precision=compute.Precision.named(spec["precision"]),
        backbone_key=spec["inputs"].get("backbone", ""),
        teacher_key=spec["inputs"].get("teacher", ""),
    )
    if "backbone" in method.requires:
        task.load_backbone = lambda: _loaded_backbone(
            str(context.store.root), spec["backbone"], context.device, spec["precision"], _dataset_text(spec)
        )
    if "teacher" in method.requires:
        from benchmark.teachers import get_teacher

        task.load_teacher = lambda: get_teacher(context.store, dataset, spec["teacher"], context.device)
    named = method.classifiers(task.dataset)
    if named:
        from benchmark.teachers import get_teacher

        task.load_classifiers = lambda label: [
            get_teacher(context.store, dataset, part, context.device) for part in named[label].split("+")
        ]
    return method, task, method.units(task)


def _part(job: Job, context: Context) -> None:
    stage = stage_of(job)
    try:
        _make_units(job, context, stage)
    except Exception:
        if not context.store.has(stage):  # another command may have finished the whole set meanwhile
            raise


def _make_units(job: Job, context: Context, stage: Stage) -> list[Path]:
    """Make the job's units as chunks of the set's stage; each holds uint8 images and the seconds they took, without
    those of shared stages (`Method.stages`), which are counted where these are made."""
    import torch
    from safetensors.torch import save_file

    method, task, units = task_and_units(job, context)
    low, high = _part_range(job, len(units))

    def make(index: int, file: Path) -> None:
        unit = units[index]
        with Meter() as meter:
            try:
                images = method.distill(task, unit)
            except (DDBenchError, OSError, MemoryError, torch.OutOfMemoryError):
                raise
            except Exception as error:
                raise JobError(
                    f"{task.method} failed on {unit.name}: {type(error).__name__}: {error}",
                    where=_last_frame(error),
                    hint="the record says so; other jobs go on",
                ) from error
        _check_images(images, unit, task)
        meta = {"seconds": f"{meter.seconds:.3f}", "peak": str(meter.peak)}
        save_file({"images": images.contiguous().cpu()}, str(file), metadata=meta)

    order = unit_order(low, high, job.spec["seed"])
    with Progress(len(order), job.label, "unit") as bar:
        files = context.store.chunks(stage, len(units), make, which=order, each=lambda _: bar.update())
    return [file for _, file in sorted(zip(order, files))]


def unit_order(low: int, high: int, seed: int) -> list[int]:
    """Units ``low`` to ``high``, begun elsewhere for every seed; starts spread evenly however many seeds there are.

    So sets that are made side by side make different shared statistics first, in place of waiting for the same.
    """
    turn = low + int((high - low) * (seed * GOLDEN_RATIO % 1))
    return [*range(turn, high), *range(low, turn)]


def _check_images(images, unit, task) -> None:
    import torch

    c, n = task.dataset.channels, len(unit.cells)
    if not isinstance(images, torch.Tensor) or images.dtype != torch.uint8 or images.ndim != 4:
        got = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, torch.Tensor) else type(images).__name__
        raise JobError(f"{task.method} returned {got} for {unit.name}", allowed=f"uint8 [{n}, {c}, H, W]")
    if images.shape[0] != n or images.shape[1] != c or images.shape[2] != images.shape[3]:
        raise JobError(
            f"{task.method} returned images of shape {tuple(images.shape)} for {unit.name}",
            allowed=f"[{n}, {c}, {task.dataset.image_size}, {task.dataset.image_size}]",
        )


def _distill(job: Job, context: Context) -> None:
    from benchmark.sets.folder import write_set

    stage, spec = stage_of(job), {k: v for k, v in job.spec.items() if k != "part"}
    whole = Job(job.kind, job.key, job.label, spec, job.needs)

    def make(folder: Path) -> None:
        from safetensors import safe_open

        files = _make_units(whole, context, stage)
        method, task, units = task_and_units(whole, context)
        where = {cell: (u, row) for u, unit in enumerate(units) for row, cell in enumerate(unit.cells)}
        seconds = peak = 0.0
        for file in files:
            with safe_open(str(file), "pt") as chunk:
                meta = chunk.metadata()
                seconds, peak = seconds + float(meta["seconds"]), max(peak, float(meta["peak"]))
        shared = shared_seconds(method, task)

        def images() -> Iterator:
            opened, current = None, -1
            for label in range(len(task.dataset.classes)):
                for index in range(task.ipc):
                    unit, row = where[label, index]
                    if unit != current:
                        with safe_open(str(files[unit]), "pt") as chunk:
                            opened, current = chunk.get_tensor("images").permute(0, 2, 3, 1).numpy(), unit
                    yield label, index, opened[row]

        write_set(
            folder,
            task.dataset,
            task.ipc,
            images(),
            {
                "method": spec["document"],
                "seed": task.seed,
                "backbone": {"name": spec["backbone"], "key": spec["inputs"]["backbone"]}
                if task.backbone_key
                else None,
                "precision": task.precision.document(),
                "ddbench": __version__,
                "cost": {
                    "seconds": round(seconds + shared, 3),
                    "shared_seconds": round(shared, 3),
                    "peak_memory_bytes": int(peak),
                    "device": device_name(context),
                },
            },
        )

    context.store.build(stage, make)


def _evaluate(job: Job, context: Context) -> None:
    from benchmark.evaluation import gates, train_student
    from benchmark.evaluation.metrics.robustness import Context as Measured
    from benchmark.evaluation.protocols import load_protocol
    from benchmark.sets.folder import open_set, read_set
    from benchmark.sets.released import image_files

    spec, stage = job.spec, stage_of(job)
    identity = spec["identity"]
    dataset = _dataset(spec)
    folder = spec.get("set_dir")
    if folder:
        found = open_set(Path(folder), dataset, identity["ipc"])
        if found.digest != spec["set"]:
            raise JobError("the set changed since the run was planned", where=str(folder), hint="repeat the command")
    else:
        folder = context.store.open_key("set", spec["set"])
        if folder is None:
            raise LostInput(spec["set"])
        found = read_set(folder, dataset)

    protocol = load_protocol(spec["protocol"], spec["protocol_sets"])
    # before the gate: whoever reads that a set was refused wants to see it
    sheet = keep_sheet(Path(folder), identity, context) if distributed.writes() else ""

    def make(target: Path) -> None:
        teacher, teacher_check = _checked_teacher(
            str(context.store.root), spec["teacher"], context.device, _dataset_text(spec)
        )
        checks = {
            "teacher": teacher_check,
            "set": gates.check_set(
                found.images, found.labels, teacher, dataset, spec["gate"] == "waived", spec.get("given", False)
            ),
        }
        result = train_student(
            found.images,
            found.labels,
            dataset=dataset,
            protocol=protocol,
            student=identity["student"],
            teacher=teacher,
            ipc=identity["ipc"],
            seed=identity["seed"],
            device=context.device,
            precision=compute.Precision.named(spec["precision"]),
            workdir=context.store.workdir(stage),
            label=job.label,
            on_interval=lambda steps: context.store.log_work(stage, "steps", steps),
            store=context.store,
            set_key=spec["set"],
        )
        scores = {**result.scores, "curve": result.curve}
        for name in spec["metrics"]:
            measure = registry().get("metric", name).load()
            scores |= measure(Measured(result, dataset, context.device))
        cost = {"train_seconds": round(result.seconds, 3), "peak_memory_bytes": result.peak_memory}
        cost |= {
            "label_bytes": result.label_bytes,
            "device": device_name(context),
            "steps": result.steps,
        }
        outcome = {"scores": scores, "cost": cost, "gates": checks, "flags": result.flags, "resolved": result.resolved}
        (target / "outcome.json").write_text(json.dumps(outcome, sort_keys=True))

    outcome = json.loads((distributed.build(context.store, stage, make) / "outcome.json").read_text())
    if not distributed.writes():
        return
    made = found.manifest.get("cost", {})
    size = sum(f.stat().st_size for f in image_files(Path(folder)) if f.name != "contact_sheet.png")
    outcome["cost"] |= {"distill_seconds": made.get("seconds"), "image_bytes": size}
    outcome["cost"]["distill_shared_seconds"] = made.get("shared_seconds")
    outcome["cost"]["distill_peak_memory_bytes"] = made.get("peak_memory_bytes")
    artifacts = {"set": spec["set"], "contact_sheet": sheet, "images": found.digest, "protocol": protocol.document()}
    skipped = dataset.notes.get("skipped")
    flags = outcome.pop("flags") + ([f"skipped {skipped}"] if skipped else [])
    artifacts["resolved"] = outcome.pop("resolved")
    if spec.get("tuning"):
        artifacts["tuning"] = spec["tuning"]
    artifacts |= {"data": {k: v for k, v in dataset.notes.items() if k in ("format", "layout", "skipped files")}}
    status = {"status": "ok", "reason": "", "flags": flags}
    write_outcome(identity, context, status, artifacts=artifacts, **outcome)


def device_name(context: Context) -> str:
    """The name that a record gives its device."""
    return gpu_name() if context.device.startswith("cuda") else cpu_name() or "cpu"


def _last_frame(error: BaseException) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.filename}:{frame.lineno} in {frame.name}"
