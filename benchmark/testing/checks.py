"""What every method must keep, checked on four classes of tiny digits with a tiny backbone and an untrained teacher.

Each check raises :class:`Broken` with what went wrong; the rule that it stands for is in `RULES`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import random
import shutil
import traceback
from collections.abc import Callable, Collection, Iterator
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from benchmark.core.errors import DDBenchError
from benchmark.data.withheld import RULE, WithheldError
from benchmark.methods import Method, Task, Unit
from benchmark.pipeline.jobs.distill import check_images
from benchmark.testing.bench import CLASSES, Bench, make_teacher

Images = dict[tuple[int, int], torch.Tensor]  # by (class, index)
IPC = 2
NOT_TRIED = "not tried"


class Broken(Exception):  # noqa: N818 - a rule is broken
    """A method does not keep a rule; the text says how."""


class Subject:
    """A method under test: ``images`` makes all its images in a store of its own, or in one that exists."""

    def __init__(self, bench: Bench, name: str, settings: dict[str, Any]) -> None:
        self.bench, self.name, self.settings = bench, name, settings
        self._first: Images | None = None

    def task(self, store: str, ipc: int = IPC, bench: Bench | None = None, **other) -> tuple[Method, Task, list[Unit]]:
        settings = {**self.settings, **other}
        return (bench or self.bench).task(self.name, ipc, store=f"{self.name}-{store}", **settings)

    def images(
        self, store: str, *, turn: int = 1, ipc: int = IPC, bench: Bench | None = None, noise: int = 0, **other
    ) -> Images:
        """The images of all units, made in order (``turn`` 1) or backwards (-1).

        ``noise`` seeds the global random states, which nobody may depend on. ``other``: another seed or parameters.
        """
        method, task, units = self.task(store, ipc, bench, **other)
        torch.manual_seed(noise)
        np.random.seed(noise)
        random.seed(noise)
        found: Images = {}
        for unit in units[::turn]:
            found.update(zip(unit.cells, distilled(method, task, unit), strict=True))
        return found

    def artifacts(self, store: str) -> dict[tuple[str, str], dict]:
        """The digests of the artifacts' files in a store, by name and key of their stages."""
        root = self.bench.root / f"{self.name}-{store}" / "artifacts"
        return {
            (file.parent.parent.name, file.parent.name): json.loads(file.read_text())["files"]
            for file in root.glob("*/*/artifact.json")
        }

    @property
    def first(self) -> Images:
        """The images that the others are compared with."""
        if self._first is None:
            self._first = self.images("first")
        return self._first


def distilled(method: Method, task: Task, unit: Unit) -> torch.Tensor:
    """The unit's images.

    Raises:
        Broken: they are no images of the unit.
    """
    images = method.distill(task, unit)
    if isinstance(images, torch.Tensor):
        if images.is_floating_point() and not torch.isfinite(images).all():
            raise Broken(
                f"images of {unit.name} are not finite: {int((~torch.isfinite(images)).sum())} NaN or infinite"
            )
        if type(images) is not torch.Tensor or images.device.type != "cpu":
            raise Broken(f"images of {unit.name} are on {images.device}; hand them over on the CPU")
    try:
        check_images(images, unit, task)
    except DDBenchError as error:
        raise Broken(f"{error.what}; allowed: {error.allowed}") from error
    return images


def same(a: Images, b: Images) -> bool:
    """Whether two results are bitwise equal."""
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def difference(a: Images, b: Images) -> str:
    """Which images differ, for a message."""
    cells = [k for k in a if k not in b or not torch.equal(a[k], b[k])]
    shown = ", ".join(f"class {c} index {i}" for c, i in cells[:3])
    return f"{len(cells)} of {len(a)} images differ ({shown}{' …' if len(cells) > 3 else ''})"


# -- the checks ------------------------------------------------------------------------------------------------------


def parameters(subject: Subject) -> None:
    method, _, _ = subject.task("parameters")
    for name in ("Params", "requires", "presets", "quick", "trains"):  # of a subclass for something of its own?
        if not isinstance(getattr(method, name), type(getattr(Method, name))):
            raise Broken(f"{name} is a {type(getattr(method, name)).__name__}; the contract gives the name a meaning")
    silent = [f.name for f in dataclasses.fields(type(method.params)) if not f.metadata.get("help")]
    if silent:
        raise Broken(f"{', '.join(silent)}: no help text; make the field with param(default, help, source)")


def runs(subject: Subject) -> None:
    with contextlib.suppress(WithheldError):  # the next rule's
        assert subject.first


def test_split(subject: Subject) -> None:
    assert subject.first


def units(subject: Subject) -> None:
    for ipc in (1, 3):
        method, task, units = subject.task("units", ipc)
        cells = sorted(cell for unit in units for cell in unit.cells)
        wanted = [(c, i) for c in range(CLASSES) for i in range(ipc)]
        if cells != wanted:
            missing, more = sorted(set(wanted) - set(cells))[:3], [c for c in cells if cells.count(c) > 1][:3]
            raise Broken(f"units at IPC {ipc}: missing (class, index) {missing}, more than once {more}")
        for unit in units:
            distilled(method, task, unit)


def determinism(subject: Subject) -> None:
    again = subject.images("again", noise=1)
    if not same(subject.first, again):
        raise Broken(f"the same seed gave other images the second time: {difference(subject.first, again)}")


def order(subject: Subject) -> None:
    backwards = subject.images("backwards", turn=-1)
    if not same(subject.first, backwards):
        raise Broken(f"with the last unit first: {difference(subject.first, backwards)}")


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def interruption(subject: Subject) -> None:
    method, task, units = subject.task("killed")
    for unit in units[: len(units) // 2]:
        distilled(method, task, unit)
    kept = subject.images("killed", noise=2)  # a new process would go on like this: another object, the same store
    if not same(subject.first, kept):
        raise Broken(f"begun, then begun again: {difference(subject.first, kept)}")
    for count in _kills(subject):
        resumed = _killed(subject, count)
        if not same(subject.first, resumed):
            raise Broken(f"killed in the middle and begun again: {difference(subject.first, resumed)}")


def _kills(subject: Subject) -> Iterator[int]:
    """After how many convolutions to kill: in the middle, where the method runs a network at all."""
    with patch.object(torch.nn.Conv2d, "forward", _counting(calls := [0], 0)):
        subject.images("counted")
    if calls[0] > 1:
        yield calls[0] // 2


def _counting(calls: list[int], limit: int) -> Callable:
    forward = torch.nn.Conv2d.forward

    def call(self, x):
        calls[0] += 1
        if calls[0] == limit:
            raise Killed
        return forward(self, x)

    return call


def _killed(subject: Subject, limit: int) -> Images:
    with patch.object(torch.nn.Conv2d, "forward", _counting([0], limit)):
        try:
            return subject.images("killed inside")
        except Killed:
            pass
    return subject.images("killed inside", noise=3)


def device(subject: Subject) -> None:
    from benchmark.testing.pretend_cuda import pretended

    with pretended():
        found = subject.images("gpu", bench=Placed(subject.bench, "cuda:0"))
    for cell, image in subject.first.items():
        if (found[cell].int() - image.int()).abs().max() > 1:
            raise Broken(f"class {cell[0]} index {cell[1]} differs by more than one grey level from the CPU's")


def unchanged(subject: Subject) -> None:
    before = fingerprint(subject.bench)
    subject.images("unchanged")
    changed = [name for name, value in fingerprint(subject.bench).items() if value != before[name]]
    if changed:
        raise Broken(f"it changed {', '.join(changed)}")


def stages(subject: Subject) -> None:
    method, task, units = subject.task("stages")
    declared = method.stages(task)
    for unit in units:
        distilled(method, task, unit)
    missing = [stage.name for stage in declared if not task.store.has(stage)]
    if missing:
        raise Broken(f"stages() names {', '.join(sorted(set(missing)))}, which making all units did not build")


def keys(subject: Subject) -> None:
    assert subject.first
    subject.images("again", noise=1)
    first, again = subject.artifacts("first"), subject.artifacts("again")
    known = {key: files for key, files in first.items() if again.get(key) == files}  # some hold measured times
    if not known:
        return
    method, _, _ = subject.task("keys")
    for what, change in (("seed", {"seed": 1}), ("ipc", {"ipc": 1}), *_changes(method)):
        store = f"other {what}"
        try:
            subject.images(store, **change)
        except Exception:  # noqa: BLE001 - a value that the method refuses here, or that breaks another rule
            continue
        for (name, key), files in subject.artifacts(store).items():
            if known.get((name, key), files) != files:
                give = "seeded=True" if what == "seed" else f"{what}=…"
                raise Broken(
                    f"{name} has the same key with another {what} ({change[what]}) and another content: the first "
                    f"result would be used for both; give it to task.stage(…, {give})"
                )


def _changes(method: Method) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each parameter with another value than the method has, where one can be found without knowing the method."""
    for spec in dataclasses.fields(type(method.params)):
        value, meta = getattr(method.params, spec.name), spec.metadata
        low, high = meta.get("low"), meta.get("high")
        candidates = [*(meta.get("choices") or ()), *(meta.get("tune") or ())]
        if isinstance(value, bool):
            candidates.append(not value)
        elif isinstance(value, (int, float)):
            candidates += [2 * value, value / 2 if isinstance(value, float) else value // 2, value + 1, value - 1]
        for other in candidates:
            inside = not isinstance(other, (int, float)) or (
                (low is None or other >= low) and (high is None or other <= high)
            )
            if other != value and inside:
                yield spec.name, {spec.name: other}
                break


class Placed(Bench):
    """A bench whose backbone, teacher and tasks are on ``device``."""

    def __init__(self, bench: Bench, device: str) -> None:
        from benchmark.backbones import load_backbone
        from benchmark.core.compute import Precision
        from benchmark.teachers import Teacher

        self.root, self.dataset, self.classes, self.device = bench.root, bench.dataset, bench.classes, device
        self.backbone = load_backbone(self.root / "backbone", self.dataset, device, Precision(), "tiny-backbone")
        known = {"name": bench.teacher.name, "key": bench.teacher.key, "accuracy": bench.teacher.accuracy}
        norm = {"mean": self.dataset.mean, "std": self.dataset.std, "size": self.dataset.image_size}
        self.teacher = Teacher(make_teacher(self.dataset).model, **norm, **known, device=device)

    def task(self, *args, **options):
        method, task, units = super().task(*args, **options)
        task.device = self.device
        return method, task, units


def fingerprint(bench: Bench) -> dict[str, str]:
    """Digests of all that a method is handed."""
    train = bench.dataset.train
    arrays = {
        "the training images": [train.array],
        "the training labels": [train.labels],
        "train.by_class": train.by_class,
        "the teacher": [v.cpu().numpy() for v in bench.teacher.model.state_dict().values()],
        "the backbone": [
            v.float().cpu().numpy()
            for part in (bench.backbone.vae, bench.backbone.dit)
            for v in part.state_dict().values()
        ],
    }
    found = {}
    for name, values in arrays.items():
        sha = hashlib.sha256()
        for value in values:
            sha.update(np.ascontiguousarray(value).tobytes())
        found[name] = sha.hexdigest()
    modes = [m.training for m in (bench.teacher.model, bench.backbone.vae, bench.backbone.dit)]
    return {**found, "the mode (train or eval) of a network": str(modes)}


# name: (rule, check)
RULES: dict[str, tuple[str, Callable[[Subject], None]]] = {
    "parameters": ("every parameter has a help text; attributes of Method mean what they mean there", parameters),
    "runs": ("it makes uint8 images [n, C, side, side] on the CPU for every unit", runs),
    "test split": (RULE, test_split),
    "units": ("units make every (class, index) once, at any IPC", units),
    "determinism": ("all randomness comes from task.generator", determinism),
    "order": ("images do not depend on the order in which units are made", order),
    "interruption": ("an interrupted method, begun again, makes the same images", interruption),
    "device": ("tensors follow task.device, and images equal the CPU's within one grey level", device),
    "unchanged": ("a method does not change what it is handed", unchanged),
    "stages": ("stages() names shared stages that are built", stages),
    "keys": ("the key of a stage holds every parameter, the IPC and the seed where its result depends on them", keys),
}


def check_method(
    bench: Bench, name: str, settings: dict[str, Any] | None = None, left_out: Collection[str] = ()
) -> dict[str, str]:
    """Check a method against every rule of `RULES` but those ``left_out``.

    Args:
        bench: where it runs; methods that are not registered are in its ``classes``.
        settings: parameters beside the method's `quick` ones.

    Returns:
        By name of the rule what is wrong; empty where the rule is kept; `NOT_TRIED` and why, where a method that does
        not run at all cannot show it.
    """
    subject = Subject(bench, name, settings or {})
    found: dict[str, str] = {}
    stopped = ""  # the rule that the very first run breaks
    for label, (_, check) in RULES.items():
        if label in left_out:
            continue
        if stopped:
            found.setdefault(label, f"{NOT_TRIED}: see {stopped}")
            continue
        before = fingerprint(bench)
        try:
            check(subject)
            found[label] = ""
        except WithheldError as error:
            found["test split"] = error.what
            found.setdefault(label, f"{NOT_TRIED}: see test split")
        except (Broken, DDBenchError) as error:
            found[label] = str(error)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a plug-in raises breaks its rule
            frame = traceback.extract_tb(error.__traceback__)[-1]
            found[label] = f"{type(error).__name__}: {error} ({frame.filename}:{frame.lineno})"
            if "read-only" in str(error):
                found["unchanged"] = f"it wrote to the training split: {error} ({frame.filename}:{frame.lineno})"
        if label == "runs" and found[label]:
            stopped = label
        if fingerprint(bench) != before:  # the next checks must not see what this one left behind
            found["unchanged"] = found.get("unchanged") or "it changed what it was handed"
            classes = bench.classes
            shutil.rmtree(bench.root / "backbone", ignore_errors=True)
            bench.__init__(bench.root)  # type: ignore[misc]
            bench.classes = classes
    return {label: found.get(label, "") for label in RULES if label not in left_out}
