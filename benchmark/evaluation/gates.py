"""Checks before any student trains: the commonest failures of this field end in chance accuracy without an error."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from benchmark.core.errors import DataError, GateError
from benchmark.training.augment import center_view
from benchmark.training.testing import accuracy, test_set

if TYPE_CHECKING:
    from benchmark.data import Dataset
    from benchmark.teachers import Teacher

SEEN = 10_000  # images of a set that the teacher looks at: of more, an even selection (of 50,000 it takes a minute)
FIT = 2.33  # deviations by which labels must fit better than shuffled ones: 1 % of meaningless sets reach it
ORDERED = 5  # images a class from which another order of the classes can be read
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
    images: Tensor, labels: Tensor, teacher: Teacher, dataset: Dataset, waived: bool = False
) -> dict[str, Any]:
    """The set has equally many images of every class, and the teacher recognises them clearly above chance.

    "Clearly": at least 1.5 times chance and 1.645 standard deviations above it, which a set whose labels mean nothing
    reaches with probability 5 % (more often where there are so few images that all of them must be right), or each
    image's own class ranks far higher than it would under shuffled labels, which tells ten poor images from noise where
    counting the right ones cannot; and not far better explained by another class order. Of more than ``SEEN`` images
    an even selection is looked at.

    Args:
        waived: the method means to fail (noise); the record says so.

    Returns:
        ``{"recognised", "chance", "status"}``; percent; status ``ok`` or ``waived``.

    Raises:
        DataError: a class is missing, counts differ, a label is out of range.
        GateError: at chance, or recognised under a shuffled class map.
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
    logits = teacher.logits(center_view(images, dataset.image_size))
    guess, truth = logits.argmax(dim=1).cpu(), labels.cpu()
    recognised = 100 * (guess == truth).double().mean().item()
    chance = 100 / classes
    report = {"recognised": recognised, "chance": chance, "status": "ok"}
    if waived:
        return {**report, "status": "waived"}
    table = torch.zeros(classes, classes)
    table.index_put_((truth, guess), torch.ones(len(truth)), accumulate=True)
    # a shuffled class map: each class is recognised as one other class, far more often than as itself
    mapped = 100 * (table.max(dim=1).values.sum() / len(truth)).item()
    distinct = len(set(table.argmax(dim=1).tolist()))
    # never above 100 %: two images of two classes cannot do better than both right
    bound = min(100.0, max(chance + 1.645 * _deviation(chance, len(labels)), 1.5 * chance))
    ordered = len(labels) >= ORDERED * classes  # of one image a class any order would explain all of them
    other_order = ordered and mapped > 2 * recognised and mapped > 60
    if (recognised >= bound or _fit(logits, truth) >= FIT) and not other_order:
        return report
    if ordered and mapped > 60 and distinct > 0.6 * classes and mapped > recognised + 20:
        example = next(c for c in range(classes) if int(table[c].argmax()) != c)
        raise GateError(
            f"the distilled set's class map is shuffled: the teacher recognises {recognised:.1f} % as labelled but "
            f"{mapped:.1f} % under another order (what is labelled {dataset.classes[example]!r} looks like "
            f"{dataset.classes[int(table[example].argmax())]!r})",
            allowed="class order of the dataset: " + ", ".join(dataset.classes[:5]) + (", …" if classes > 5 else ""),
            hint="check the folders' names and the class map of whoever made the set (ImageNet ids, fastai's names)",
        )
    raise GateError(
        f"the teacher recognises {recognised:.1f} % of the distilled set, chance is {chance:.1f} %",
        allowed=f"at least {bound:.1f} % for {len(labels)} images",
        hint="look at the contact sheet; wrong class order, wrong normalisation or broken images; a method whose "
        "images mean nothing must register with gate='waived'",
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
