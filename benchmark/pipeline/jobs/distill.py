"""Make a distilled set, whole or a part of it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark import __version__
from benchmark.backbones.resolve import resolve_backbone
from benchmark.core import compute
from benchmark.core.cost import Meter
from benchmark.core.errors import DataError, DDBenchError, JobError
from benchmark.core.progress import Progress
from benchmark.core.store import Stage, Store
from benchmark.pipeline.guard import guarded
from benchmark.pipeline.jobs.base import Context, Job, Source
from benchmark.plugins.asked import asking, held, load
from benchmark.results.records import MethodId

if TYPE_CHECKING:
    import numpy as np
    import torch

    from benchmark.methods import Method, Task, Unit

SET_VERSION = 1  # of the distilled set's layout and of how units are assembled
SHOWN = 5  # classes that lack images which an error names one by one
GOLDEN_RATIO = 0.6180339887498949  # its multiples, modulo 1, leave no wide gap however many are taken


@dataclass(frozen=True, kw_only=True)
class DistillJob(Job):
    """The set of one method, IPC and seed.

    Attributes:
        method: with every parameter that can change the images.
        hints: the other parameters.
        inputs: key or digest of all that the set is made from: dataset, backbone, teacher, files.
        backbone, teacher: their names; "" where the method needs none.
    """

    kind = "distill"
    phase = "distill"

    method: MethodId
    ipc: int
    seed: int
    inputs: dict[str, str]
    hints: dict[str, Any]
    backbone: str = ""
    teacher: str = ""

    @cached_property
    def stage(self) -> Stage:
        return set_stage(self.method, self.ipc, self.inputs, self.seed, compute.Precision.named(self.precision))

    def is_done(self, context: Context) -> bool:
        return context.store.has_key("set", self.stage.key)

    def share(self, units: int) -> tuple[int, int]:
        """Which of ``units`` units are this job's: from the first to before the second."""
        return 0, units

    def cut(self, parts: int) -> list[PartJob]:
        """Jobs that make the units in ``parts`` parts, for this job to assemble."""
        same = {f.name: getattr(self, f.name) for f in fields(self)}
        return [
            PartJob(
                **same | {"key": f"{self.key}/{part}of{parts}", "label": f"{self.label}, part {part + 1}/{parts}"},
                part=part,
                parts=parts,
            )
            for part in range(parts)
        ]

    def open(self, context: Context) -> tuple[Method, Task, list[Unit]]:
        """The method, the task that it is handed, and how its work splits."""
        from benchmark.methods import Task
        from benchmark.teachers import get_teacher

        cls = load(self.method.name)
        values = self.method.params | self.hints
        with asking(self.method.name, "its parameters"):
            params = cls.Params(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
            method = held(self.method.name, cls(params))
        dataset = self.source.load()
        task = Task(
            method=self.method.name,
            dataset=dataset.without_test(),
            ipc=self.ipc,
            seed=self.seed,
            store=context.store,
            device=context.device,
            precision=compute.Precision.named(self.precision),
            backbone_key=self.inputs.get("backbone", ""),
            teacher_key=self.inputs.get("teacher", ""),
        )
        if self.backbone:
            place = str(context.store.root), self.backbone, context.device, self.precision
            task.load_backbone = lambda: _loaded_backbone(*place, self.source)
        if self.teacher:
            task.load_teacher = lambda: get_teacher(context.store, dataset, self.teacher, context.device)
        if named := method.classifiers(task.dataset):
            task.load_classifiers = lambda label: [
                get_teacher(context.store, dataset, part, context.device) for part in named[label].split("+")
            ]
        return method, task, method.units(task)

    def work(self, context: Context) -> None:
        context.store.build(self.stage, lambda folder: self._write(folder, context))

    def make_units(self, context: Context) -> list[Path]:
        """Make the job's units as chunks of the set's stage; each holds uint8 images and the seconds they took, without
        those of shared stages (`Method.stages`), which are counted where these are made."""
        from safetensors.torch import save_file

        method, task, units = self.open(context)

        faults: dict[str, DataError] = {}

        def make(index: int, file: Path) -> None:
            with Meter() as meter:
                images = _distilled(method, task, units[index])
            meta = {"seconds": f"{meter.seconds:.3f}", "peak": str(meter.peak)}
            save_file({"images": images.contiguous().cpu()}, str(file), metadata=meta)

        order = unit_order(*self.share(len(units)), self.seed)
        files: dict[int, Path] = {}
        with Progress(len(order), self.label, "unit") as bar:
            for index in order:
                try:
                    (files[index],) = context.store.chunks(self.stage, len(units), make, which=[index])
                except DataError as error:  # bad data of one class stops no other
                    name = _named(units[index], task)
                    print(f"{name} waits: {error.what} ({error.where}); the others go on", file=sys.stderr, flush=True)
                    faults[name] = error
                bar.update()
        if faults:
            raise _incomplete(faults, len(order))
        return [files[index] for index in sorted(files)]

    def _write(self, folder: Path, context: Context) -> None:
        """Make all units and write the set."""
        from safetensors import safe_open

        from benchmark.sets.folder import write_set

        files = self.make_units(context)
        method, task, units = self.open(context)
        seconds = peak = 0.0
        for file in files:
            with safe_open(str(file), "pt") as chunk:
                meta = chunk.metadata()
                seconds, peak = seconds + float(meta["seconds"]), max(peak, float(meta["peak"]))
        shared = shared_seconds(method, task)
        about = {
            "method": self.method.to_json(),
            "seed": self.seed,
            "backbone": {"name": self.backbone, "key": task.backbone_key} if self.backbone else None,
            "precision": task.precision.document(),
            "ddbench": __version__,
            "cost": {
                "seconds": round(seconds + shared, 3),
                "shared_seconds": round(shared, 3),
                "peak_memory_bytes": int(peak),
                "device": context.device_name,
            },
        }
        if (tiles := method.tiles(task.dataset)) > 1:
            about["tiles"] = tiles
        write_set(folder, task.dataset, task.ipc, _in_order(files, units, task), about)


@dataclass(frozen=True, kw_only=True)
class PartJob(DistillJob):
    """The units of part ``part`` of ``parts`` of a set; the set's own job assembles them."""

    kind = "part"

    part: int
    parts: int

    def is_done(self, context: Context) -> bool:
        if super().is_done(context):
            return True
        try:
            units = len(self.open(context)[2])
        except (Exception, SystemExit):  # noqa: BLE001 - a plug-in that cannot name its units: the job will say why
            return False
        return not set(range(*self.share(units))) & set(context.store.missing_chunks(self.stage, units))

    def share(self, units: int) -> tuple[int, int]:
        return self.part * units // self.parts, (self.part + 1) * units // self.parts

    def work(self, context: Context) -> None:
        try:
            self.make_units(context)
        except Exception:
            if not context.store.has(self.stage):  # another command may have finished the whole set meanwhile
                raise


def set_stage(method: MethodId, ipc: int, inputs: dict[str, str], seed: int, precision: compute.Precision) -> Stage:
    """The stage of one distilled set."""
    settings = {"method": method.name, "method_version": method.version, "params": method.params, "ipc": ipc}
    return Stage("set", SET_VERSION, settings, inputs, seed, precision.document())


def unit_order(low: int, high: int, seed: int) -> list[int]:
    """Units ``low`` to ``high``, rotated by the seed; starts spread evenly however many seeds there are.

    So sets that are made side by side start with different shared stages instead of waiting for the same one.
    """
    turn = low + int((high - low) * (seed * GOLDEN_RATIO % 1))
    return [*range(turn, high), *range(low, turn)]


def shared_seconds(method: Method, task: Task) -> float:
    """What the stages took that the task's set shares with others, and the VAE latents of the training split where the
    method uses them, whichever processes made them."""
    stages, classes = method.stages(task), len(task.dataset.classes)
    if any(work.stage == "encode" for work in method.work(len(task.train), classes, task.ipc)):
        from benchmark.backbones.latents import moments_stage

        stages = [
            *stages,
            *(moments_stage(task.dataset, task.backbone, c, method.needs().resize) for c in range(classes)),
        ]
    return sum(task.store.info(stage)["seconds"] for stage in stages if task.store.has(stage))


@lru_cache(maxsize=2)
def _loaded_backbone(root: str, name: str, device: str, precision: str, source: Source):
    from benchmark.backbones import load_backbone

    dataset = source.load()
    ref = resolve_backbone(dataset, name)
    folder = ref.build(Store(root), dataset, device)
    return load_backbone(folder, dataset, device, compute.Precision.named(precision), ref.key)


def _distilled(method: Method, task: Task, unit: Unit) -> torch.Tensor:
    """The unit's images; whatever the method raises names the unit and the line."""
    import torch

    try:
        with guarded(f"the method {task.method}", task.dataset):
            images = method.distill(task, unit)
    except (DDBenchError, OSError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise JobError(
            f"{task.method} failed on {unit.name}: {type(error).__name__}: {error}",
            where=f"{frame.filename}:{frame.lineno} in {frame.name}",
            hint="the record says so; other jobs go on",
        ) from error
    check_images(images, unit, task)
    return images


def _named(unit: Unit, task: Task) -> str:
    """What messages call a unit: its class, where it is of one."""
    labels = sorted({label for label, _ in unit.cells})
    return f"class {task.dataset.folders[labels[0]]}" if len(labels) == 1 else unit.name


def _incomplete(faults: dict[str, DataError], units: int) -> DataError:
    """What the record of a set says that lacks the units ``faults``."""
    shown = [f"{name}: {error.what} ({error.where})" for name, error in list(faults.items())[:SHOWN]]
    more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    return DataError(
        f"{len(faults)} of {units} parts are missing, the others are done: " + "; ".join(shown) + more,
        where=", ".join(str(error.where) for error in list(faults.values())[:SHOWN]),
        hint="mend the files (or add --on-corrupt skip) and repeat the command: what was computed for other classes' "
        "images is kept",
    )


def check_images(images: Any, unit: Unit, task: Task) -> None:
    """Refuse what is no set of images.

    Raises:
        JobError: not a tensor of uint8, or of another shape than the unit's.
    """
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


def _in_order(files: list[Path], units: list[Unit], task: Task) -> Iterator[tuple[int, int, np.ndarray]]:
    """(class, index, image uint8 ``[H, W, C]``) by class, then index; one unit's file is open at a time."""
    from safetensors import safe_open

    where = {cell: (u, row) for u, unit in enumerate(units) for row, cell in enumerate(unit.cells)}
    opened, current = None, -1
    for label in range(len(task.dataset.classes)):
        for index in range(task.ipc):
            unit, row = where[label, index]
            if unit != current:
                with safe_open(str(files[unit]), "pt") as chunk:
                    opened, current = chunk.get_tensor("images").permute(0, 2, 3, 1).numpy(), unit
            yield label, index, opened[row]
