"""What a protocol says, field by field. A protocol is an immutable YAML file; a change is a new version."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from benchmark.core.store import digest_of
from benchmark.data.base import plain_name

if TYPE_CHECKING:
    from benchmark.data import Dataset

_SIZE_RULE = re.compile(r"(<=|>=)(\d+)(px|classes)")


def explained(default: Any, help: str, choices: tuple | None = None, *, low: Any = None, high: Any = None) -> Any:
    """A field with its explanation and its allowed values: where there are few, all of them; of numbers, the range."""
    metadata = {"help": help, "choices": choices, "low": low, "high": high}
    if isinstance(default, (dict, list)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def by_ipc(table: Any, ipc: int) -> Any:
    """The entry of the largest key not above ``ipc`` (the smallest key's below it); a plain value is for every IPC."""
    if not isinstance(table, dict):
        return table
    keys = sorted(int(k) for k in table)
    fitting = [k for k in keys if k <= ipc] or keys[:1]
    return table[fitting[-1]]


@dataclass(frozen=True)
class Protocol:
    """How students are trained and tested. Fields that may depend on IPC are a value or ``{IPC: value}``, where an
    entry holds from that IPC up."""

    name: str = explained("", "name on the command line")
    version: int = explained(1, "raised with every change: records never mix versions", low=1, high=10**6)
    summary: str = explained("", "one line")
    source: str = explained("", "paper and repository file that the settings come from")

    student: str = explained(
        "convnet3_bn", "student where the command names none; for a ConvNet-3 above 64 px ResNet-18 is trained"
    )
    teacher: Any = explained(
        "convnet3_bn", "teacher (of the labels and of the gates), or {largest image side: name, …}; several joined by +"
    )
    labels: str = explained(
        "hard",
        "hard: the class; soft: the teacher's output for every augmented batch; stored: outputs saved once, per epoch",
        ("hard", "soft", "stored"),
    )
    loss: str = explained(
        "ce",
        "ce: cross-entropy; kl: divergence to the teacher; mse_ce: logits' squared error + CE",
        ("ce", "kl", "mse_ce"),
    )
    temperature: float = explained(
        1.0, "teacher's and student's logits are divided by this before the softmax", low=0.001, high=10000.0
    )
    temperature_squared: bool = explained(False, "whether the KL loss is multiplied by the squared temperature")
    ce_weight: float = explained(0.0, "weight of the hard-label term in mse_ce", low=0, high=1000000.0)
    label_smoothing: float = explained(0.0, "label smoothing of the hard-label loss", low=0, high=1)

    epochs: Any = explained(
        None, "passes over the distilled set (by IPC); null where `steps` decides", low=1, high=10**7
    )
    steps: Any = explained(None, "optimiser steps (by IPC); null where `epochs` decides", low=1, high=10**10)
    batch: Any = explained(64, "images a step (by IPC), never more than the set has", low=1, high=10**7)
    batch_factor: dict = explained(
        {}, "multiplies the batch where the dataset has exactly that many classes", low=1, high=10**4
    )

    optimizer: str = explained(
        "adamw",
        "optimizer; adamw and sgd are fused kernels, adamw_torch torch's default ones, in whose order scripts round",
        ("adamw", "adamw_torch", "sgd"),
    )
    lr: dict = explained(
        {"default": 1e-3}, "learning rate by the student's group, or `default`", low=1e-12, high=1000.0
    )
    momentum: float = explained(0.9, "momentum (sgd)", low=0, high=1)
    betas: list = explained([0.9, 0.999], "moment decay (adamw)", low=0, high=1)
    weight_decay: float = explained(0.0, "weight decay", low=0, high=1000.0)
    decay: str = explained(
        "matrices", "what decays: all parameters, or only weights of two or more dimensions", ("all", "matrices")
    )
    schedule: str = explained(
        "cosine",
        "cosine: to 0; half_cosine: half a cosine's way, so it ends at 50 % of the rate; step: times `gamma` at "
        "`milestones`; constant",
        ("cosine", "half_cosine", "step", "constant"),
    )
    schedule_by: str = explained(
        "step", "whether the rate changes with every step or with every epoch", ("step", "epoch")
    )
    warmup: float = explained(
        0.0, "part of the run (0 to 1) over which the rate rises linearly; by step only", low=0, high=1
    )
    milestones: list = explained([], "epochs after which the rate drops (schedule: step)", low=0, high=10**7)
    gamma: float = explained(0.1, "factor of a drop", low=0, high=1000.0)
    remake_optimizer: bool = explained(False, "whether a drop starts a new optimizer (momentum is lost)")
    ema: float | None = explained(
        None, "decay of a running mean of the weights that is tested instead; null: none", low=0, high=1
    )
    accumulate: int = explained(
        1, "a batch is trained in so many parts whose gradients add up (BatchNorm sees a part)", low=1, high=10**6
    )
    bn_updates: int = explained(
        1, "how often a step updates BatchNorm's running statistics with its batch", low=0, high=100
    )

    augment: list = explained([], "augmentations in order, drawn for each image; see `ddbench show protocol`")
    mix: str = explained("none", "mixing of images, one draw a batch", ("none", "cutmix", "mixup"))
    mix_alpha: float = explained(1.0, "parameter of mixing's Beta distribution", low=0.001, high=10000.0)
    mix_probability: float = explained(1.0, "chance that a batch is mixed", low=0, high=1)
    normalize: Any = explained(
        "dataset", "mean and deviation of pixels: dataset (its own), imagenet (for every dataset), or {mean: …, std: …}"
    )
    resolution: int | None = explained(
        None, "side in pixels at which students train; null: the dataset's", low=4, high=16384
    )
    test_resize: float = explained(
        1.0,
        "stored test images are resized to this times the resolution, rounded as side // 7 * 8 for 8/7, then "
        "centre-cropped",
        low=0.1,
        high=16,
    )

    evaluate_every: int = explained(0, "test after every so many epochs; 0: only after the last", low=0, high=10**7)
    evaluate_after: float = explained(
        0.0, "no test up to this epoch number counted from 0 (below 1: that part of the epochs)", low=0, high=10**7
    )
    evaluate_remainder: int | None = explained(
        None, "which of `evaluate_every` epochs, counted from 0, is tested; null: the last of them", low=0, high=10**7
    )
    label_seed: int = explained(
        42, "seed of crops and mixing where labels are stored: one set of labels for every seed", low=0, high=2**62
    )
    datasets: dict = explained(
        {},
        "fields that differ: {dataset name or pattern, name/student, or a size such as <=32px or >=100classes: {…}}",
    )
    notes: dict = explained({}, "why a field has its value, and where that is written")

    def document(self) -> dict[str, Any]:
        """Everything that can change a result, as JSON (without texts)."""
        skipped = ("summary", "source", "notes")
        return _jsonable({f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in skipped})

    @property
    def digest(self) -> str:
        """SHA-256 of :meth:`document`."""
        return digest_of(self.document())

    def for_dataset(self, dataset: Dataset, student: str = "") -> Protocol:
        """This protocol with the fields that ``datasets`` sets for the dataset (and student); same name and version.

        Later entries win.
        """
        changes: dict[str, Any] = {}
        for rule, fields in self.datasets.items():
            if applies(rule, dataset, student):
                changes.update(fields)
        return dataclasses.replace(self, **changes, datasets={})

    def teacher_for(self, dataset: str, image_size: int, imagenet: bool) -> str:
        """The teacher's name for a dataset that may not be there yet, and images of this side.

        ``imagenet``: the classes are ImageNet-1K's. Weights that were trained on these fit no others: the same
        architecture is then trained here. Of ``datasets`` only entries by name choose a teacher.
        """
        teacher = self.teacher
        for rule, fields in self.datasets.items():
            if "teacher" in fields and fnmatchcase(plain_name(dataset), rule):
                teacher = fields["teacher"]
        if not isinstance(teacher, dict):
            return teacher
        sides = sorted(int(s) for s in teacher)
        name = teacher[next((s for s in sides if image_size <= s), sides[-1])]
        return name if imagenet else name.removeprefix("torchvision:")

    def teacher_of(self, dataset: Dataset) -> str:
        """The teacher's name for a dataset."""
        return self.teacher_for(dataset.name, dataset.image_size, dataset.backbone_classes is not None)

    def student_of(self, image_size: int) -> str:
        """The student's name where the command names none, for images of this side."""
        return "resnet18" if image_size > 64 and self.student.startswith("convnet3") else self.student

    def batch_size(self, ipc: int, classes: int, images: int | None = None) -> int:
        """Images a step: never more than the set's ``images``, where given."""
        full = by_ipc(self.batch, ipc) * self.batch_factor.get(classes, 1)
        return full if images is None else min(full, images)

    def length(self, ipc: int, classes: int, images: int) -> tuple[int, int]:
        """``(epochs, steps)`` of a run on a set of ``images`` images; the last epoch may be cut short by `steps`."""
        each = -(-images // self.batch_size(ipc, classes, images))
        if self.steps is not None:
            steps = by_ipc(self.steps, ipc)
            return -(-steps // each), steps
        epochs = by_ipc(self.epochs, ipc)
        return epochs, epochs * each

    def rate(self, group: str) -> float:
        """Base learning rate of a student's group."""
        return float(self.lr.get(group, self.lr["default"]))


def applies(rule: str, dataset: Dataset, student: str) -> bool:
    """Whether an entry of ``datasets`` is meant for this dataset and student."""
    size = _SIZE_RULE.fullmatch(rule)
    if size:
        sign, number, unit = size[1], int(size[2]), size[3]
        value = dataset.image_size if unit == "px" else len(dataset.classes)
        return value <= number if sign == "<=" else value >= number
    name, slash, architecture = rule.partition("/")
    return fnmatchcase(plain_name(dataset.name), name) and (not slash or fnmatchcase(student, architecture))


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(v) for v in value]
    return value
