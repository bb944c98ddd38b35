"""Checks before any student trains: the commonest failures of this field end in chance accuracy without an error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from benchmark.core.errors import DataError, GateError
from benchmark.evaluation.class_order import Order, find_order
from benchmark.training.augment import center_view
from benchmark.training.testing import accuracy, test_set

if TYPE_CHECKING:
    from benchmark.data import Dataset
    from benchmark.teachers import Teacher

SEEN = 10_000  # images of a set that the teacher looks at: of more, an even selection (of 50,000 it takes a minute)
FIT = 2.33  # deviations by which labels must fit better than shuffled ones: 1 % of meaningless sets reach it
WAIVE = "--waive-gate"  # the option of `ddbench run` and `evaluate`
TOLERANCE = 1.0  # points by which a teacher may miss its recorded accuracy (another resampling, another machine)


def check_teacher(teacher: Teacher, dataset: Dataset) -> dict[str, Any]:
    """The teacher has a head for these classes and reaches its recorded accuracy on the test split.

    Returns:
        ``{"accuracy", "expected", "status"}``; accuracies in percent.

    Raises:
        GateError: another number of classes; below the recorded accuracy; at chance.
    """
    classes = len(dataset.classes)
    images, labels = test_set(dataset, resize=teacher.resize, device=teacher.device)
    logits = teacher.logits(images)
    if logits.shape[1] != classes:
        raise GateError(
            f"teacher {teacher.name} has a head for {logits.shape[1]} classes, {dataset.name} has {classes}",
            allowed=f"a teacher trained on the classes of {dataset.name}",
            hint="ddbench list students (a student's name as teacher is trained here), or another file",
        )
    top1, _ = accuracy(logits, labels)
    chance = 100 / classes
    expected = teacher.accuracy
    if top1 < chance + 3 * _deviation(chance, len(labels)) + 1:
        raise GateError(
            f"teacher {teacher.name} classifies {dataset.name}'s test split at chance ({top1:.1f} %, chance "
            f"{chance:.1f} %): its class order is probably another one",
            allowed="class order of the dataset: " + ", ".join(dataset.classes[:5]) + (", …" if classes > 5 else ""),
            hint="ddbench show dataset NAME prints the order; reorder the rows of the teacher's last layer",
        )
    if expected is not None and top1 < expected - TOLERANCE:
        raise GateError(
            f"teacher {teacher.name} reaches {top1:.1f} % on {dataset.name}'s test split, {expected:.1f} % is recorded",
            allowed=f"at most {TOLERANCE} points less",
            hint="check normalisation, resolution and the file; or remove the artifact so that it is trained again",
        )
    return {"accuracy": top1, "expected": expected, "status": "ok"}


def check_set(
    images: Tensor, labels: Tensor, teacher: Teacher, dataset: Dataset, waived: bool = False, given: bool = False
) -> dict[str, Any]:
    """The set has equally many images of every class, and its labels follow the dataset's order of classes.

    The gate judges order, not quality: a set that the teacher hardly recognises is scored, with status ``weak``; one
    whose labels follow another order of the classes (`class_order`) is refused. ``weak`` means no significant
    difference from chance: fewer than 1.5 times chance and 1.645 standard deviations above it, and the images' own
    classes rank no higher than they would under shuffled labels. Of more than ``SEEN`` images an even selection is
    looked at.

    Args:
        waived: the method means to fail (noise), or the user waives the gate; the record says so.
        given: the set was made elsewhere. Chance accuracy then most likely is another class order that cannot be read
            from so poor images, and is refused.

    Returns:
        ``{"recognised", "chance", "status"}``; percent; status ``ok``, ``weak`` or ``waived``.

    Raises:
        DataError: a class is missing, counts differ, a label is out of range.
        GateError: the class order is another one; at chance, where ``given``.
    """
    classes = len(dataset.classes)
    if len(images) != len(labels) or len(images) == 0:
        raise DataError(f"{len(images)} images but {len(labels)} labels")
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        wrong = int(labels.min()) if int(labels.min()) < 0 else int(labels.max())
        raise DataError(f"label {wrong} is out of range", allowed=f"0 to {classes - 1} ({dataset.name})")
    counts = torch.bincount(labels.cpu(), minlength=classes)
    if int(counts.min()) != int(counts.max()):
        low, high = int(counts.argmin()), int(counts.argmax())
        raise DataError(
            f"class {dataset.classes[low]!r} has {counts[low]} images, class {dataset.classes[high]!r} {counts[high]}",
            allowed="the same number of images of every class",
        )
    if len(images) > SEEN:
        chosen = torch.linspace(0, len(images) - 1, SEEN, dtype=torch.float64).round().long()
        images, labels = images[chosen], labels[chosen]
    logits = teacher.logits(center_view(images, dataset.image_size)).float().cpu()
    truth = labels.cpu()
    recognised = 100 * (logits.argmax(dim=1) == truth).double().mean().item()
    chance = 100 / classes
    report = {"recognised": recognised, "chance": chance, "status": "ok"}
    if waived:
        return {**report, "status": "waived"}
    order = find_order(logits.numpy(), truth.numpy())
    if order.shuffled:
        raise GateError(
            _shuffled(order, logits, truth, dataset.classes, recognised),
            allowed="class order of the dataset: " + ", ".join(dataset.classes[:5]) + (", …" if classes > 5 else ""),
            hint="check the folders' names and the class map of whoever made the set (ImageNet ids, fastai's names); "
            f"if the order is right, {WAIVE} scores the set",
        )
    # never above 100 %: two images of two classes cannot do better than both right
    bound = min(100.0, max(chance + 1.645 * _deviation(chance, len(labels)), 1.5 * chance))
    if recognised >= bound or _fit(logits, truth) >= FIT:
        return report
    if given:
        raise GateError(
            f"the teacher recognises {recognised:.1f} % of the set, chance is {chance:.1f} %",
            allowed=f"at least {bound:.1f} % for {len(labels)} images of a set that was made elsewhere",
            hint="wrong class order, wrong normalisation or broken images are the commonest reasons; "
            f"if the set is meant to be so, {WAIVE} scores it",
        )
    return {**report, "status": "weak"}


def _shuffled(order: Order, logits: Tensor, truth: Tensor, classes: Sequence[str], recognised: float) -> str:
    """The sentence that says what speaks for another class order."""
    moved = sorted(order.moved, key=lambda a: -order.table[a, order.classes[a]])
    renamed = np.arange(len(classes))
    renamed[moved] = order.classes[moved]
    under = 100 * float((logits.argmax(dim=1).numpy() == renamed[truth.numpy()]).mean())
    pairs = [f"what is labelled {classes[a]!r} looks like {classes[order.classes[a]]!r}" for a in moved[:3]]
    return (
        f"the distilled set's class map is shuffled in {len(moved)} of {len(classes)} classes: the teacher recognises "
        f"{recognised:.1f} % as labelled and {under:.1f} % under another order ({'; '.join(pairs)}"
        + ("; …" if len(moved) > 3 else "")
        + f"); the other order is e^{order.evidence:.1f} times the better explanation"
    )


def _fit(logits: Tensor, truth: Tensor) -> float:
    """How far the true classes' ranks stand above those of shuffled labels, in standard deviations.

    The sum of ranks ``a[i, label of i]`` under random permutations of the labels has mean ``n * mean(a)`` and, with
    ``a`` centred by rows and columns, variance ``sum(a²) / (n - 1)`` over images times images (Hoeffding 1951).

    Args:
        logits: float ``[n, classes]``; truth: int64 ``[n]``, every class equally often.
    """
    ranks = logits.cpu().argsort(1).argsort(1).double()
    centred = ranks - ranks.mean(0) - ranks.mean(1, keepdim=True) + ranks.mean()
    n, classes = centred.shape
    variance = centred.square().sum().item() * n / classes / max(n - 1, 1)
    return centred[torch.arange(n), truth].sum().item() / math.sqrt(variance) if variance else 0.0


def _deviation(chance: float, n: int) -> float:
    """Standard deviation in percent of a guesser's accuracy over ``n`` images."""
    return 100 * math.sqrt(chance / 100 * (1 - chance / 100) / n)
