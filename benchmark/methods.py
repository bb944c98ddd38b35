"""The contract of a distillation method: what a plug-in writes, what the harness hands it.

A method never sees the test split, the protocol or a student. The smallest one::

    class Mean(Method):
        def distill(self, task, unit):
            return torch.stack([task.train.images([i])[0] for i in ...])
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from benchmark.core import compute
from benchmark.core.errors import UsageError
from benchmark.core.foreign import LARGEST, parse_yaml
from benchmark.core.store import Stage, Store

if TYPE_CHECKING:
    import torch

    from benchmark.backbones import Backbone
    from benchmark.data import Dataset, Split
    from benchmark.teachers import Teacher


def param(
    default: Any,
    help: str,
    source: str = "",
    *,
    choices: Sequence | None = None,
    low=None,
    high=None,
    keyed: bool = True,
    late: bool = False,
    tune: Sequence = (),
    backbone: str = "",
) -> Any:
    """A documented parameter of a method: a dataclass field with help, the source of its default, and its range.

    ``keyed=False`` says that it cannot change the images (a hint on what else to keep): it enters no key.
    ``late=True`` is for a parameter that a method gained after records were made with it: it enters keys and records
    only where it differs from ``default``, so that the older ones stay valid.
    ``tune`` lists the values that `ddbench tune` tries. ``backbone="guidance"``: where a guidance was chosen for the
    backbone, that is the default (:mod:`benchmark.backbones.guidance`), and the one given here is the authors'.
    """
    metadata = {"help": help, "source": source, "choices": choices, "low": low, "high": high, "keyed": keyed}
    metadata |= {"late": late, "backbone": backbone}
    metadata["tune"] = tuple(tune)
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: default, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class NoParams:
    """For methods without parameters."""


@dataclass(frozen=True)
class Unit:
    """The piece of work that moves as a whole between workers: the ``(class, index)`` cells it makes, in order."""

    name: str
    cells: tuple[tuple[int, int], ...]


TEACHER = "teacher"  # as a network of `Work`: whichever teacher the run has


@dataclass(frozen=True)
class Work:
    """A part of what a distilled set costs on the backbone or on a classifier, for ``plan``.

    Attributes:
        stage: on the backbone ``encode`` and ``decode`` (VAE), ``invert`` and ``sample`` (steps of the DiT), ``tune``
            (training it), ``refine`` (gradient steps on latents through it); on a classifier ``recover`` (forward and
            backward), ``score`` (forward) and ``match`` (a gradient on its weights, and the gradient of that).
        images: how many; ``steps`` each, with ``guidance``.
        shared: done once for every IPC and seed.
        network: the classifier: a student's name, or `TEACHER` for the teacher of the run; empty: the backbone.
    """

    stage: str
    images: int
    steps: int = 1
    guidance: float = 1.0
    shared: bool = False
    network: str = ""


@dataclass(frozen=True)
class Needs:
    """What a method uses besides the training split, with the parameters that it was given.

    Attributes:
        backbone, teacher: whether it uses `Task.backbone`, `Task.teacher`.
        batch: images that pass through the backbone together, at most; memory is predicted from it.
        batch_parameter: the parameter that lowers it, named where memory is too small.
        training: whether it trains weights of the backbone, which takes more memory.
        resize: the filter that brings its training images to the backbone's size: bicubic or bilinear.
    """

    backbone: bool = False
    teacher: bool = False
    batch: int = 64
    batch_parameter: str = ""
    training: bool = False
    resize: str = "bicubic"


class Method:
    """Base of every method. Override :meth:`distill`; the rest has sensible defaults."""

    Params: ClassVar[type] = NoParams  # a frozen dataclass whose fields are made by `param`
    requires: ClassVar[frozenset[str]] = frozenset()  # of "backbone", "teacher", whatever the parameters: see `needs`
    presets: ClassVar[dict[str, dict[str, Any]]] = {}  # named sets of parameters, for `--preset`
    trains: ClassVar[bool] = False  # by gradients, without loss scaling: float16 is refused before any work

    quick: ClassVar[dict[str, Any]] = {}  # parameter values with which `ddbench check` takes a moment

    def __init__(self, params: Any) -> None:
        self.params = params

    @classmethod
    def defaults(cls, dataset: str) -> dict[str, Any]:
        """Parameter defaults that this dataset wants instead of the general ones (documented where they are set)."""
        return {}

    @classmethod
    def authors(cls, dataset: str) -> dict[str, Any]:
        """What ``--settings authors`` sets: the parameters whose default is the backbone's or the harness's."""
        return {f.name: f.default for f in dataclasses.fields(cls.Params) if f.metadata.get("backbone")}

    @classmethod
    def on_backbone(cls, given: dict[str, Any]) -> bool:
        """Whether a method with these parameters samples from the harness's backbone, so that its guidance applies."""
        return True

    def needs(self) -> Needs:
        """What the method uses; by default what `requires` lists. Override it where that depends on the parameters.

        Plans, checks before a run and cost predictions all ask here.
        """
        return Needs(backbone="backbone" in self.requires, teacher="teacher" in self.requires)

    def why_not(self, dataset: Dataset, ipc: int) -> str:
        """Reason this method cannot make ``ipc`` images per class of ``dataset``, or "" if it can."""
        return ""

    def inputs(self, dataset: Dataset) -> dict[str, str]:
        """External inputs that the parameters name (a folder of weights …): name to content digest, part of the key."""
        return {}

    def classifiers(self, dataset: Dataset) -> dict[str, str]:
        """Classifiers beside the run's teacher that the parameters name: name of the input to their names, as --teacher
        takes them (``resnet18``; ``a+b`` for two). They are trained before, by jobs of their own, their weights are
        part of the key, and :meth:`Task.classifiers` hands them over.
        """
        return {}

    def resolved(self, image_size: int) -> dict[str, Any]:
        """The parameters as they act on images of ``image_size`` pixels: a value that stands for another (0 or -1 for
        "the published one") replaced by it. Lets ``tune`` see that two settings are one.
        """
        return dataclasses.asdict(self.params)

    def units(self, task: Task) -> list[Unit]:
        """How the work splits; a class a unit unless overridden."""
        return [Unit(f"class {c}", tuple((c, i) for i in range(task.ipc))) for c in range(len(task.dataset.classes))]

    def stages(self, task: Task) -> list[Stage]:
        """Shared stages that :meth:`distill` will build (statistics, fine-tuning): lets ``plan`` say what is cached."""
        return []

    def work(self, images: int, classes: int, ipc: int) -> list[Work]:
        """What one set costs where the training split has ``images`` images: lets ``plan`` predict."""
        return []

    def work_at(self, images: int, classes: int, ipc: int, image_size: int) -> list[Work]:
        """:meth:`work`, for methods whose cost also depends on the resolution."""
        return self.work(images, classes, ipc)

    def tiles(self, dataset: Dataset) -> int:
        """Training images along a stored image's side: students train on tiles x tiles enlarged cuts of each image
        (`benchmark.training.formation`); 1 for images that are trained on as they are."""
        return 1

    def distill(self, task: Task, unit: Unit) -> torch.Tensor:
        """Make the unit's images.

        Returns:
            uint8 ``[len(unit.cells), C, H, W]`` in the order of ``unit.cells``, where C, H, W are
            ``task.dataset.channels`` and ``task.dataset.image_size`` (both sides), unless the method's ``out_size``
            says otherwise.
        """
        raise NotImplementedError(f"{type(self).__name__}.distill")


@dataclass
class Task:
    """Everything a method may use, and nothing else."""

    method: str  # name
    dataset: Dataset  # classes, image_size, channels, digest; `task.train` is its training split
    ipc: int
    seed: int
    store: Store
    device: str = "cpu"
    precision: compute.Precision = field(default_factory=compute.Precision)
    load_backbone: Callable[[], Backbone] | None = None
    load_teacher: Callable[[], Teacher] | None = None
    load_classifiers: Callable[[str], list[Teacher]] | None = None  # by name of an input of `Method.classifiers`
    backbone_key: str = ""  # key of the backbone, known before it exists
    teacher_key: str = ""

    @property
    def train(self) -> Split:
        """The training split."""
        return self.dataset.train

    @cached_property
    def backbone(self) -> Backbone:
        """The diffusion backbone, loaded on first use (only for methods that require one)."""
        if self.load_backbone is None:
            raise _undeclared(self.method, "backbone")
        return self.load_backbone()

    @cached_property
    def teacher(self) -> Teacher:
        """The teacher, loaded on first use (only for methods that require one)."""
        if self.load_teacher is None:
            raise _undeclared(self.method, "teacher")
        return self.load_teacher()

    def classifiers(self, name: str) -> list[Teacher]:
        """The classifiers behind ``name``, one of :meth:`Method.classifiers`, in the order in which they are named."""
        assert self.load_classifiers is not None, f"{self.method} did not name classifiers"
        return self.load_classifiers(name)

    def generator(self, class_index: int, index: int, *purpose: object) -> torch.Generator:
        """The CPU generator of (seed, method, class, index[, purpose])."""
        return compute.generator(self.seed, self.method, class_index, index, *purpose)

    def stage(
        self,
        name: str,
        version: int,
        *,
        class_index: int | None = None,
        seeded: bool = False,
        chunk: int | None = None,
        classifier: str = "",
        **params,
    ) -> Stage:
        """A shared stage of this method on this dataset; its key holds the keys of the dataset and of the run's
        backbone and teacher, where the method requires them.

        Args:
            class_index: the stage reads the training images of this class and no others. Its key then holds the digest
                of these images in place of the dataset's, so that it outlives changes elsewhere and serves subsets.
                Work that draws random numbers names the class ``task.dataset.backbone_class(class_index)``.
            seeded: False (the default) makes one artifact serve every seed.
            classifier: what else it is made with, one of those that :meth:`Method.classifiers` asks for
                (``resnet18``): its key enters too.
        """
        inputs = {"dataset": self.dataset.digest}
        if class_index is not None:
            inputs = {"class": self.train.class_digest(class_index)}
            params = {**params, "class": self.dataset.backbone_class(class_index)}
        if classifier:
            from benchmark.teachers import teacher_key

            inputs["classifier"] = teacher_key(self.dataset, classifier)
        if self.load_backbone is not None:
            inputs["backbone"] = self.backbone_key
        if self.load_teacher is not None:
            inputs["teacher"] = self.teacher_key
        seed = self.seed if seeded else None
        return Stage(name, version, params, inputs, seed, self.precision.document(), chunk)

    def artifact(self, stage: Stage, make: Callable[[Path], None], *, seconds: float = 0.0) -> Path:
        """The stage's folder, made once by ``make(folder)`` and cached; ``seconds`` as in :meth:`Store.build`."""
        return self.store.build(stage, make, seconds=seconds)


def _undeclared(method: str, what: str) -> UsageError:
    return UsageError(
        f"{method} uses task.{what} and does not say that it needs one",
        where=f"the class of {method}",
        hint=f'add the line   requires = frozenset({{"{what}"}})   to the class (or return it from `needs`)',
    )


def make_params(
    method: type[Method], name: str, dataset: str, given: dict[str, Any], chosen: dict[str, Any] | None = None
) -> Any:
    """The method's parameters: general defaults, then the dataset's, then ``given`` (strings are converted).

    Args:
        chosen: what was chosen for the backbone (:func:`benchmark.backbones.guidance.chosen`), before defaults.

    Raises:
        UsageError: an unknown key (nearest one named), a wrong type, a value out of range.
    """
    fields = {f.name: f for f in dataclasses.fields(method.Params)}
    values = dict(method.defaults(dataset))
    if chosen and method.on_backbone(given):
        values |= {k: chosen[f.metadata["backbone"]] for k, f in fields.items() if f.metadata.get("backbone") in chosen}
    for key, value in given.items():
        if key not in fields:
            import difflib

            near = difflib.get_close_matches(key, fields, n=1, cutoff=0.4)
            raise UsageError(
                f"{name} has no parameter {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
                where=f"--set {key}={value}",
                allowed=", ".join(sorted(fields)) or "none",
                hint=f"ddbench show method {name}",
            )
        values[key] = convert(value, fields[key], f"--set {key}={value}")
    try:
        return method.Params(**values)
    except (TypeError, ValueError, ArithmeticError) as error:  # from checks of its own, of values that fit their types
        shown = ", ".join(f"{key}={value}" for key, value in given.items()) or "defaults"
        raise UsageError(
            f"{name} takes no such parameters: {error}",
            where=f"--set {shown[:200]}",
            allowed=", ".join(sorted(fields)) or "none",
            hint=f"ddbench show method {name}",
        ) from error


def convert(value: Any, spec: dataclasses.Field, where: str) -> Any:
    """Convert a command-line or YAML value to the type of the field's default and check its range."""
    default = spec.default if spec.default is not dataclasses.MISSING else spec.default_factory()
    if isinstance(value, str) and not isinstance(default, str):
        try:
            value = parse_yaml(value, where)
        except UsageError:
            value = str(value)
    optional = value is None and (default is None or "None" in str(spec.type))
    if not optional:
        kind = type(default) if default is not None else _TYPES[str(spec.type).split("|")[0].strip()]
        good = isinstance(value, kind) and not (kind is not bool and isinstance(value, bool))
        if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            value, good = float(value), True
        if kind is float and isinstance(value, str):  # YAML reads 1e6 as text
            try:
                value, good = float(value), True
            except ValueError:
                good = False
        if kind is int and isinstance(value, (str, float)):
            try:
                good = float(value).is_integer()
                value = int(float(value)) if good else value
            except (ValueError, OverflowError):
                good = False
        if kind is tuple and isinstance(value, list):
            value, good = tuple(value), True
        element = next((t for n, t in _TYPES.items() if kind is tuple and f"tuple[{n}," in str(spec.type)), None)
        if good and element is not None:
            whole = element is float and all(isinstance(v, int) for v in value)
            good = all(isinstance(v, element) or whole for v in value) and not any(isinstance(v, bool) for v in value)
        for number in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(number, (int, float)) and not abs(number) <= LARGEST:  # NaN, infinities, endless digits
                good = False
        if not good:
            shown = repr(value) if len(repr(value)) < 80 else f"{repr(value)[:80]}…"
            wanted = _type_name(kind) + (f", each item {_type_name(element)}" if element else "")
            raise UsageError(f"{spec.name} must be {wanted}, not {shown}", where=where)
    choices, low, high = (spec.metadata.get(k) for k in ("choices", "low", "high"))
    if choices and value not in choices:
        import difflib

        near = difflib.get_close_matches(str(value), [str(c) for c in choices], n=1)
        raise UsageError(
            f"{spec.name} cannot be {value!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
            where=where,
            allowed=", ".join(map(str, choices)),
        )
    if value is not None and ((low is not None and value < low) or (high is not None and value > high)):
        bounds = f"at least {low}" if high is None else f"at most {high}" if low is None else f"{low} to {high}"
        raise UsageError(f"{spec.name} = {value} is out of range", where=where, allowed=bounds)
    return value


_TYPES = {"int": int, "float": float, "bool": bool, "str": str, "tuple": tuple}  # of fields whose default is None


def _type_name(kind: type) -> str:
    return {tuple: "a list", int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(
        kind, kind.__name__
    )
