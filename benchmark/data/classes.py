"""Some classes of a dataset as a dataset of their own (``--classes``): pilots, and subsets that have no name."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Sequence

import numpy as np

from benchmark.core.errors import UsageError
from benchmark.core.store import digest_of
from benchmark.data.base import Dataset, Split
from benchmark.data.holdout import SubsetSplit

ALLOWED = "a count (10), labels (0,5,7 or 0-9), or names of classes or folders (n01440764,n02102040)"


def chosen_labels(spec: str, classes: Sequence[str], folders: Sequence[str]) -> tuple[int, ...]:
    """The labels that ``spec`` names, ascending: a count of classes spread evenly over the label order, or labels and
    ranges of labels, or names of classes or folders; several are separated by commas.

    Raises:
        UsageError: not a class of the dataset (names the nearest), fewer than two classes.
    """
    text, total = spec.strip(), len(classes)
    if re.fullmatch(r"\d+", text):
        count = int(text)
        if not 2 <= count <= total:
            raise UsageError(
                f"{count} classes cannot be chosen", where=f"--classes {spec}", allowed=f"2 to {total}; {ALLOWED}"
            )
        return tuple(i * total // count for i in range(count))
    position = {name.lower(): i for names in (classes, folders) for i, name in enumerate(names)}
    found: set[int] = set()
    if text.lower() in position:  # a name that holds a comma
        text = str(position[text.lower()]) + ","
    for part in filter(None, (p.strip() for p in text.split(","))):
        span = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if part.lower() in position:  # classes called 1 to 10 go by their names
            found.add(position[part.lower()])
        elif span:
            first, last = int(span.group(1)), int(span.group(2) or span.group(1))
            if not first <= last < total:
                raise UsageError(f"no labels {part}", where=f"--classes {spec}", allowed=f"0 to {total - 1}; {ALLOWED}")
            found.update(range(first, last + 1))
        else:
            near = difflib.get_close_matches(part.lower(), position, n=1, cutoff=0.5)
            raise UsageError(
                f"no class {part!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
                where=f"--classes {spec}",
                allowed=ALLOWED,
            )
    if len(found) < 2:
        raise UsageError("at least two classes are needed", where=f"--classes {spec}", allowed=ALLOWED)
    return tuple(sorted(found))


class ClassesSplit(SubsetSplit):
    """The images of some classes of a split, which are numbered anew in the order of ``labels``."""

    def __init__(self, parent: Split, labels: Sequence[int]) -> None:
        super().__init__(parent, np.sort(np.concatenate([parent.by_class[label] for label in labels])))
        self.labels = np.searchsorted(np.asarray(labels), self.labels).astype(np.int64)


def restricted(dataset: Dataset, spec: str) -> Dataset:
    """``dataset`` with the classes of ``spec`` (:func:`chosen_labels`) alone; itself, where these are all.

    A class keeps its number for backbones and its digest, so class-wise stages are those of the whole dataset. The
    digest is over these classes' images, so it does not change with the others'.
    """
    labels = chosen_labels(spec, dataset.classes, dataset.folders)
    if len(labels) == len(dataset.classes):
        return dataset
    train, test = (ClassesSplit(split, labels) for split in (dataset.train, dataset.test))
    classes = tuple(dataset.classes[label] for label in labels)
    content = {
        "classes": list(classes),
        "shape": [dataset.image_size, dataset.channels],
        **{k: [s.class_digest(c) for c in range(len(labels))] for k, s in (("train", train), ("test", test))},
    }
    theirs = dataset.backbone_classes
    return dataclasses.replace(
        dataset,
        name=f"{dataset.name}@{len(labels)}classes",
        classes=classes,
        folders=tuple(dataset.folders[label] for label in labels),
        train=train,
        test=test,
        digest=digest_of({"restricted": 1, **content}),
        backbone_classes=tuple(theirs[label] for label in labels) if theirs is not None else None,
        notes={**dataset.notes, "classes": f"{len(labels)} of {len(dataset.classes)}"},
        whole=dataset,
        chosen=labels,
    )
