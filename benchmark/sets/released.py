"""Reads distilled sets that others made: image folders as authors publish them, their class order established.

A wrong class order gives chance accuracy and no error, so nothing is guessed. Classes are told by, in this turn:

0. ``metadata.jsonl`` or ``metadata.csv`` (Hugging Face): ``file_name`` with a class's name or number;
1. folders named as the dataset's folders or classes (wnids on ImageNet): the order is certain;
2. folders that are numbers or end in one: ``0``, ``00000`` (RDED, D4M), ``new000`` (SRe2L);
3. flat files ``class000_id000.jpg`` (SRe2L, RDED's file names), ``0-image00.png`` (D4M), or ``n01440764_3.jpg``: a
   folder's name of the dataset, an underscore and anything (ImageNet's own file names).

Numbers are positions in the dataset's class order, or class indices of ImageNet-1K where the dataset is a subset of it
and the numbers are exactly those; any other numbers are an error. File names that carry a class of their own must
agree: all of a folder's, and with its number if it has one. What numbers cannot prove, the gate before training does:
the teacher has to recognise the set.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmark.core.cost import available_memory
from benchmark.core.errors import DataError, MissingError
from benchmark.core.foreign import inside, opened_image
from benchmark.data.base import resize_crop
from benchmark.data.decode import to_mode
from benchmark.data.files import some
from benchmark.data.listed import read_table

if TYPE_CHECKING:
    import torch

    from benchmark.data import Dataset

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
METADATA = ("metadata.jsonl", "metadata.csv")
LAYOUTS = (
    "class folders named as the dataset's (or as its classes), by number (0, 00000, new000), or flat files "
    "class000_id000.png or WNID_0.jpg"
)
_NUMBER = re.compile(r"(?:[A-Za-z_-]*?)(\d+)")  # 7, 00007, new007, class_7
_FILE = re.compile(r"class(\d+)_id(\d+)|(\d+)-image(\d+)")


def read_released(folder: Path, dataset: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    """A released set as images uint8 ``[N, C, side, side]`` and labels int64 ``[N]``, class after class.

    Square images of one size stay as they are where that is at least ``dataset.image_size``: authors store 224 px for
    datasets of 32 px, and their students' random crops are cut from these. Others are resized (shorter side) and
    centre-cropped to ``dataset.image_size``.

    Raises:
        MissingError: no such folder, or no image in it.
        DataError: classes that cannot be told or are not the dataset's, unequal counts, an unreadable image.
    """
    import torch

    root = Path(folder)
    files, _ = find_classes(root, dataset)
    _no_stored_labels(root)
    counts = [len(files[label]) for label in range(len(dataset.classes))]
    if len(set(counts)) != 1:
        low, high = int(np.argmin(counts)), int(np.argmax(counts))
        raise DataError(
            f"classes have unequal numbers of images: {dataset.classes[low]!r} {counts[low]}, "
            f"{dataset.classes[high]!r} {counts[high]}",
            where=str(root),
            allowed="the same number for every class",
        )
    ordered = [file for label in range(len(dataset.classes)) for file in files[label]]
    side = _stored_side(ordered, dataset.image_size)
    need, free = 2 * len(ordered) * dataset.channels * side * side, available_memory()
    if need > free:
        raise DataError(
            f"{len(ordered)} images of {side} px take {need / 1e9:.1f} GB, {free / 1e9:.1f} GB are free",
            where=str(root),
            allowed="a set that fits into memory",
        )
    images = torch.empty(len(ordered), dataset.channels, side, side, dtype=torch.uint8)
    for row, file in enumerate(ordered):
        images[row] = torch.from_numpy(_image(file, dataset.channels, side))
    return images, torch.arange(len(dataset.classes)).repeat_interleave(counts[0])


STORED_LABELS = (".tar", ".pt", ".pth", ".npy", ".npz", ".pkl")  # FKD's batch_0.tar, label files of relabelled sets


def _no_stored_labels(root: Path) -> None:
    """Refuse a folder of images that has labels of its own in files: they are not read, and are not to be ignored."""
    found = sorted(str(f.relative_to(root)) for f in root.rglob("*") if f.suffix.lower() in STORED_LABELS)
    if found:
        raise DataError(
            f"files beside the images that may hold labels and are not read: {some(found, 3)}",
            where=str(root),
            allowed="images alone: their labels are made by the protocol (`fkd` stores a teacher's for every crop)",
            hint="move these files elsewhere to score the images under the protocol's own labels",
        )


def count_ipc(root: Path) -> int | None:
    """Images a class as far as folders or file names tell it without the dataset; None where counts differ."""
    counts: dict[object, int] = defaultdict(int)
    for file in image_files(root):
        counts[str(file.parent) if file.parent != root else _told_class(file)] += 1
    numbers = set(counts.values())
    return numbers.pop() if len(numbers) == 1 and None not in counts else None


def image_files(root: Path) -> list[Path]:
    """The image files below ``root``, sorted; hidden ones and those of hidden folders and ``__MACOSX`` left out."""
    found = (file.relative_to(root) for file in root.rglob("*") if file.suffix.lower() in SUFFIXES)
    return sorted(root / file for file in found if not any(_unseen(part) for part in file.parts))


def _unseen(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"  # .ipynb_checkpoints, macOS's ._0.jpg


def find_classes(root: Path, dataset: Dataset) -> tuple[dict[int, list[Path]], str]:
    """The image files of each class, and what told it: ``names``, ``numbers``, ``file names``, ``table``."""
    root = _descend(root)
    for name in METADATA:
        if (root / name).is_file():
            return _by_table(root / name, dataset), "table"
    groups: dict[str, list[Path]] = defaultdict(list)
    flat, named, other = [], defaultdict(list), []
    known = {name: label for label, name in enumerate(dataset.folders)}
    for file in image_files(root):
        if file.parent != root:
            groups[str(file.relative_to(root).parent)].append(file)
        elif _FILE.fullmatch(file.stem):
            flat.append(file)
        elif file.stem.partition("_")[0] in known:
            named[known[file.stem.partition("_")[0]]].append(file)
        else:
            other.append(file)
    if groups:
        labels, how = _folder_labels(sorted(groups), dataset, root)
        found = {labels[name]: sorted(files, key=_order) for name, files in groups.items()}
        for name, files in groups.items():
            _agree(name, files, how)
        return found, how
    if (flat or named) and (other or (flat and named)):
        odd = other[0] if other else next(iter(named.values()))[0]
        raise DataError(f"cannot tell the class of {odd.name!r}", where=str(root), allowed=LAYOUTS)
    if named:
        absent = [name for name, label in known.items() if label not in named]
        if absent:
            raise DataError(f"{len(absent)} of {len(known)} classes have no file, e.g. {absent[0]!r}", where=str(root))
        return {label: sorted(files, key=_order) for label, files in named.items()}, "names"
    if not flat and other:
        raise DataError(
            f"{len(other)} images whose classes cannot be told from names like {other[0].name!r}",
            where=str(root),
            allowed=LAYOUTS,
        )
    if not flat:
        raise MissingError(f"no images in {root}", where=str(root), allowed=LAYOUTS)
    by_number: dict[int, list[Path]] = defaultdict(list)
    for file in flat:
        by_number[_file_class(file)].append(file)
    numbers = _positions(sorted(by_number), dataset, root)
    return {numbers[n]: sorted(files, key=_order) for n, files in by_number.items()}, "file names"


def _by_table(file: Path, dataset: Dataset) -> dict[int, list[Path]]:
    """The image files that a table names, by class, in its order."""
    table, root = read_table(file), file.parent
    paths = [inside(root, name, where=str(file)) for name in table.names]
    gone, unnamed = [p for p in paths if not p.is_file()], sorted(set(image_files(root)) - set(paths))
    if gone or unnamed:
        text = f"it names {gone[0].name!r}, which is not there" if gone else f"it does not name {unnamed[0].name!r}"
        raise DataError(text, where=str(file), allowed="each image of the folder once")
    kinds = sorted(set(table.labels))
    if all(kind.isdecimal() for kind in kinds):
        positions = _positions(sorted(map(int, kinds)), dataset, file)
        labels = {kind: positions[int(kind)] for kind in kinds}
    else:
        labels, _ = _folder_labels(kinds, dataset, file)
    found: dict[int, list[Path]] = defaultdict(list)
    for path, kind in zip(paths, table.labels):
        found[labels[kind]].append(path)
    return found


def _descend(root: Path) -> Path:
    """Past folders that hold a single folder and no image: an archive's own top folder, or ``train/``."""
    if not root.is_dir():
        raise MissingError(f"no folder {root}", where="ddbench evaluate SET", allowed=LAYOUTS)
    while True:
        entries = [e for e in root.iterdir() if not _unseen(e.name)]
        folders = [e for e in entries if e.is_dir() and not e.is_symlink()]  # a link may lead out, or round in circles
        if len(folders) != 1 or any(e.suffix.lower() in SUFFIXES for e in entries):
            return root
        root = folders[0]


def _folder_labels(names: list[str], dataset: Dataset, root: Path) -> tuple[dict[str, int], str]:
    known = {name: label for label, name in enumerate(dataset.folders)}
    for label, name in enumerate(dataset.classes):
        known.setdefault(name, label)
        known.setdefault(re.sub(r"[^A-Za-z0-9._-]+", "_", name), label)
    if all(name in known for name in names):
        labels = {name: known[name] for name in names}
        if sorted(labels.values()) == list(range(len(dataset.classes))):
            return labels, "names"
        absent = sorted(set(range(len(dataset.classes))) - set(labels.values()))
        raise DataError(
            f"{len(absent)} of {len(dataset.classes)} classes have no folder, e.g. {dataset.folders[absent[0]]!r}",
            where=str(root),
        )
    matches = {name: _NUMBER.fullmatch(name) for name in names}
    if all(matches.values()) and not any(name in known for name in names):
        numbers = {name: int(match.group(1)) for name, match in matches.items() if match}
        if len(set(numbers.values())) == len(names):
            positions = _positions(sorted(numbers.values()), dataset, root)
            return {name: positions[n] for name, n in numbers.items()}, "numbers"
    odd = next((n for n in names if n not in known and not matches[n]), names[0])
    raise DataError(
        f"cannot tell the class of {odd!r} among {len(names)} names of folders or labels",
        where=str(root),
        allowed=f"{LAYOUTS}; {dataset.name} has e.g. {', '.join(dataset.folders[:3])}",
        hint="rename them, or name the dataset that the set was made of with --dataset",
    )


def _positions(numbers: list[int], dataset: Dataset, root: Path) -> dict[int, int]:
    """Class numbers of a set to positions in the dataset's order."""
    if numbers == list(range(len(dataset.classes))):
        return {n: n for n in numbers}
    subset = dataset.backbone_classes
    if subset is not None and numbers == sorted(subset):
        return {n: subset.index(n) for n in numbers}
    shown = ", ".join(map(str, numbers[:4])) + (" …" if len(numbers) > 4 else "")
    raise DataError(
        f"the set's class numbers ({len(numbers)}: {shown}) are not those of {dataset.name}",
        where=str(root),
        allowed=f"0 to {len(dataset.classes) - 1}" + (", or the subset's ImageNet-1K indices" if subset else ""),
        hint="name the dataset that the set was made of with --dataset",
    )


def _file_class(file: Path) -> int | None:
    match = _FILE.fullmatch(file.stem)
    return int(match.group(1) or match.group(3)) if match else None


def _told_class(file: Path) -> int | str | None:
    """The class in a flat file's name: its number, or its WordNet id."""
    wnid = re.match(r"n\d{8}(?=_)", file.stem)
    return wnid.group() if wnid else _file_class(file)


def _order(file: Path) -> tuple[tuple[int, ...], str]:
    """Numeric order of file names, so that ``…id10`` follows ``…id9``."""
    return tuple(int(n) for n in re.findall(r"\d+", file.stem)), file.name


def _agree(name: str, files: list[Path], how: str) -> None:
    """A class number in files' names must be one for the whole folder, and its own where folders have numbers: else two
    releases were mixed up."""
    told = {_file_class(f) for f in files} - {None}
    if len(told) > 1 or (told and how == "numbers" and told != {int(_NUMBER.fullmatch(name).group(1))}):
        raise DataError(
            f"files of class {', '.join(map(str, sorted(told)))} lie in the folder {name!r}",
            where=str(files[0].parent),
            hint="the set is damaged or mixed up: unpack it again",
        )


def _stored_side(files: Sequence[Path], least: int) -> int:
    """The side of images that are all square, of one size and at least ``least`` px; ``least`` where they are not."""
    sizes = set()
    for file in files:
        with opened_image(file) as image:
            sizes.add(image.size)
    (width, height), *others = sizes
    return width if width == height >= least and not others else least


def _image(file: Path, channels: int, side: int) -> np.ndarray:
    with opened_image(file) as image:
        pixels = np.array(resize_crop(to_mode(image, "L" if channels == 1 else "RGB"), side))
    return pixels.reshape(side, side, channels).transpose(2, 0, 1)
