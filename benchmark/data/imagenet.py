"""ImageNet-1K and its subsets, in the layouts in which people have them on disk.

Label order is always that of the sorted WordNet ids, so a label of ImageNet-1K is the class index of torchvision's
models and of DiT, and a subset's folders sort in label order in its own archive too. Other code numbers the same
subsets differently (Minimax reads Imagewoof from a file that is not sorted); a set or teacher made with such an order
scores at chance here, and the gates say so.

fastai's archives of Imagenette and Imagewoof are not subsets of ImageNet-1K's split: their ``val`` holds images of
ImageNet's training split. The two are told apart by ``notes["layout"]`` and by digest.
"""

from __future__ import annotations

import csv
import importlib.resources
import io
import re
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.core.archives import read_member
from benchmark.core.errors import DataError, MissingError
from benchmark.core.foreign import read_bytes
from benchmark.data.base import Dataset
from benchmark.data.files import Index, Names, class_folders, scan, scan_flat, some
from benchmark.data.options import check_options
from benchmark.data.packed import Shards, find_shards, read_index
from benchmark.data.sources import download_root, missing_data, present
from benchmark.data.trees import FILE_OPTIONS, check_classes, file_dataset, split_roots
from benchmark.data.wordnet import class_names, imagenet_positions, imagenet_wnids

SIZE = 224
STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # what every pretrained model of torchvision expects
WNID = re.compile(r"n\d{8}")
ORIGINAL = re.compile(r"(n\d{8}_\d+|ILSVRC2012_val_\d{8})(?:_n\d{8})?\.jpe?g$", re.IGNORECASE)

# github.com/fastai/imagenette; ids as in torchvision.datasets.Imagenette and Minimax's misc/class_woof.txt, sorted.
IMAGENETTE = (
    *("n01440764", "n02102040", "n02979186", "n03000684", "n03028079"),
    *("n03394916", "n03417042", "n03425413", "n03445777", "n03888257"),
)
IMAGEWOOF = (
    *("n02086240", "n02087394", "n02088364", "n02089973", "n02093754"),
    *("n02096294", "n02099601", "n02105641", "n02111889", "n02115641"),
)
FOLDERS = {  # names under which people keep them
    "imagenet1k": ("imagenet1k", "imagenet", "ImageNet", "imagenet-1k", "ILSVRC2012", "ilsvrc2012", "ILSVRC", "."),
    "imagenette": ("imagenette2", "imagenette2-320", "imagenette2-160", "imagenette", "imagenet-nette", "."),
    "imagewoof": ("imagewoof2", "imagewoof2-320", "imagewoof2-160", "imagewoof", "imagenet-woof", "."),
    "imagenet100": ("imagenet100", "imagenet-100", "."),
    "imageidc": ("imageidc", "imagenet-10", "."),
}
HUGGING_FACE = {  # the last part of the ids of the copies in parquet or webdataset shards
    "imagenet1k": ("imagenet-1k-wds", "ILSVRC/imagenet-1k"),
    "imagenette": ("frgfm/imagenette",),
    "imagewoof": ("frgfm/imagewoof",),
}
DEVKIT = ("meta.mat", "ILSVRC2012_validation_ground_truth.txt")  # of its folder data
DEVKIT_BYTES = 64 << 20  # of one of them: they have less than a megabyte
KAGGLE = ("", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")


@lru_cache(maxsize=1)
def cmc_list() -> tuple[str, ...]:
    """The 100 classes of Tian et al. (CMC, imagenet100.txt) in their order; the first ten are IDC's ImageNet-10."""
    text = importlib.resources.files("benchmark.data").joinpath("imagenet100.txt").read_text(encoding="utf-8")
    return tuple(text.split())


def subset_wnids(name: str) -> tuple[str, ...]:
    """WordNet ids of ImageNet-1K or of one of its subsets, in label order (sorted)."""
    if name == "imagenet1k":
        return imagenet_wnids()
    lists = {
        "imagenette": IMAGENETTE,
        "imagewoof": IMAGEWOOF,
        "imagenet100": cmc_list(),
        "imageidc": cmc_list()[:10],
    }
    return tuple(sorted(lists[name]))


@dataclass(frozen=True)
class Place:
    """Where the data lies: the folder with ``train/``, and whether it is ImageNet-1K or the subset's own archive."""

    base: Path
    layout: str  # "own" or "imagenet1k"
    shards: Shards | None = None  # parquet files or tars in the place of folders


def find(name: str, root: Path | None) -> Place | None:
    """Where ``name`` lies under the data root: its own archive first, else ImageNet-1K; reads only folder names."""
    if root is None:
        return None
    wnids = subset_wnids(name)
    if name != "imagenet1k":
        for folder in FOLDERS[name]:
            train = root / folder / "train"
            found = set(class_folders(train)) if train.is_dir() else set()
            if found == set(wnids) or (len(found) == len(wnids) and all(f.isdigit() for f in found)):
                return Place(root / folder, "own")
        named = [f for f in (*FOLDERS[name], *HUGGING_FACE.get(name, ())) if f != "."]
        places = [root / folder for folder in named] + [root] * (root.name in named)
        shards = find_shards(places)
        if shards:
            return Place(shards.base, "own", shards)
    for folder in FOLDERS["imagenet1k"]:
        for inner in KAGGLE:
            base = root / folder / inner
            if (base / "train").is_dir() and any((base / "train" / w).is_dir() for w in wnids):
                return Place(base, "imagenet1k")
    folders = (*HUGGING_FACE["imagenet1k"], *FOLDERS["imagenet1k"])
    shards = find_shards([root / folder for folder in folders])
    return Place(shards.base, "imagenet1k", shards) if shards else None


def locate(name: str, root: Path | None) -> Path:
    """Where the data lies (`DatasetInfo.find`)."""
    found = find(name, root)
    return present(name, root, found.base if found else None)


def load(name: str, argument: str, root: Path | None, options: dict[str, Any]) -> Dataset:
    """ImageNet-1K or a subset. ``download`` fetches the full-size Imagenette through torchvision.

    Raises:
        MissingError: the data, or the labels of a flat ``val/``, are not there.
        DataError: classes are missing, empty, or other than the dataset's.
    """
    check_options(name, options, (*FILE_OPTIONS, "download"))
    place = find(name, root)
    if place is None and options.get("download"):
        from torchvision.datasets import Imagenette

        target = download_root(name, root)
        Imagenette(str(target), split="train", size="full", download=True)
        place = find(name, root)
    if place is None:
        raise missing_data(name, root)
    wnids = subset_wnids(name)
    notes = {"root": str(place.base), "layout": place.layout}
    if place.shards:
        notes["container"] = place.shards.format
        train, test = packed_indexes(place, wnids)
    elif place.layout == "own":
        train, test = own_indexes(place.base, wnids)
    else:
        train, test = imagenet_indexes(place.base, wnids)
    return file_dataset(
        name,
        train,
        test,
        options,
        folders=wnids,
        classes=class_names(wnids),
        image_size=SIZE,
        channels=3,
        statistics=STATISTICS,
        backbone_classes=imagenet_positions(wnids),
        notes=notes,
    )


load_imagenet1k = partial(load, "imagenet1k")
load_imagenette = partial(load, "imagenette")
load_imagewoof = partial(load, "imagewoof")
load_imagenet100 = partial(load, "imagenet100")
load_imageidc = partial(load, "imageidc")


def own_indexes(base: Path, wnids: Sequence[str]) -> tuple[Index, Index]:
    """A subset in its own folders, named by WordNet id, or by number in label order as RDED's copies are."""
    train_root, test_root = split_roots(base)
    found = class_folders(train_root)
    folders = tuple(wnids) if set(found) == set(wnids) else tuple(sorted(found, key=int))
    check_classes(test_root, folders, class_folders(test_root))
    return scan(train_root, folders), scan(test_root, folders)


def packed_indexes(place: Place, wnids: Sequence[str]) -> tuple[Index, Index]:
    """The classes ``wnids`` of parquet files or tars, in the order and under the names of the original folders."""
    numbers = imagenet_wnids() if place.layout == "imagenet1k" else tuple(wnids)
    label = {wnid: i for i, wnid in enumerate(wnids)}
    parts = []
    for files in (place.shards.train, place.shards.test):

        def label_of(told: Sequence[Any], names: Names, where: str = str(files[0].parent)) -> np.ndarray:
            array = np.asarray(told)
            if array.dtype.kind in "iu":
                if not np.array_equal(np.unique(array), np.arange(len(numbers))):
                    raise DataError(
                        f"labels {array.min()} to {array.max()}, {len(np.unique(array))} different ones",
                        where=where,
                        allowed=f"0 to {len(numbers) - 1}, each at least once",
                        hint="a subset of ImageNet-1K lies in a folder of its name, e.g. imagenette",
                    )
                given = [numbers[i] for i in array.tolist()]
                _names_agree(given, names, where)
            elif any(not wnid for wnid in array):  # a flat val.tar: its labels are in the devkit
                table = flat_labels(place.base)
                stems = [Path(names[i]).stem for i in range(len(names))]
                absent = [stem for stem in stems if stem not in table]
                if absent or len(stems) != len(table):
                    raise DataError(
                        f"{len(stems)} images, {len(absent)} of them without a label ({some(absent, 3)}); "
                        f"{len(table)} labels",
                        where=where,
                        hint="get the tar or the devkit again",
                    )
                given = [table[stem] for stem in stems]
            else:
                given = array.tolist()
                if len(wnids) == 1000:
                    check_classes(Path(where), wnids, sorted(set(given)))
            return np.array([label.get(wnid, -1) for wnid in given], np.int64)

        parts.append(read_index(files, label_of, original_name))
    lost = sorted(set(range(len(wnids))) - set(parts[0].labels.tolist()) & set(parts[1].labels.tolist()))
    if lost:
        raise DataError(f"no images of {some([wnids[i] for i in lost])} in both splits", where=str(place.base))
    return parts[0], parts[1]


def original_name(name: str) -> str:
    """The name in the original folders of an image in a shard: without the WordNet id that Hugging Face appends."""
    found = ORIGINAL.match(name)
    return f"{found.group(1)}.JPEG" if found else name


def _names_agree(wnids: Sequence[str], names: Names, where: str) -> None:
    """The WordNet ids in the file names must be those that the labels say."""
    for i, wnid in enumerate(wnids):
        told = WNID.findall(names[i])
        if told and told[-1] != wnid:
            raise DataError(
                f"the label of {names[i]} says {wnid}",
                where=where,
                allowed="labels in the order of the sorted WordNet ids",
                hint="the copy numbers its classes in another order: it is not a copy of this dataset",
            )


def imagenet_indexes(base: Path, wnids: Sequence[str]) -> tuple[Index, Index]:
    """The classes ``wnids`` of an ImageNet-1K tree; ``val`` in class folders, or flat with the labels in a file."""
    train_root = base / "train"
    found = [name for name in class_folders(train_root) if WNID.fullmatch(name)]
    if len(wnids) == 1000:
        check_classes(train_root, wnids, found)
    val_root = next((base / name for name in ("val", "validation") if (base / name).is_dir()), None)
    if val_root is None:
        raise MissingError(
            "no folder val/",
            where=str(base),
            allowed="val/WNID/*.JPEG, or val/ILSVRC2012_val_*.JPEG flat",
            hint="unpack ILSVRC2012_img_val.tar there",
        )
    train = scan(train_root, wnids)
    val_folders = [name for name in class_folders(val_root) if WNID.fullmatch(name)]
    if val_folders:
        if len(wnids) == 1000:
            check_classes(val_root, wnids, val_folders)
        return train, scan(val_root, wnids)
    label = {wnid: i for i, wnid in enumerate(wnids)}
    table = {stem: label.get(wnid, -1) for stem, wnid in flat_labels(base).items()}
    return train, scan_flat(val_root.parent, val_root.name, table, stem=True)


def flat_labels(base: Path) -> dict[str, str]:
    """WordNet id of each image of a flat ``val/``, by file name without extension.

    Looks beside ``train/`` and up to three folders above (Kaggle's tree) for Kaggle's ``LOC_val_solution.csv`` and for
    the devkit, unpacked or not.

    Raises:
        MissingError: there is neither.
    """
    for folder in (base, *list(base.parents)[:3], base / "val"):
        solution = folder / "LOC_val_solution.csv"
        if solution.is_file():
            return kaggle_labels(solution)
        devkit = folder / "ILSVRC2012_devkit_t12"
        if (devkit / "data" / "meta.mat").is_file():
            parts = (read_bytes(devkit / "data" / part, links=True, most=DEVKIT_BYTES) for part in DEVKIT)
            return devkit_labels(*parts, where=devkit)
        archive = folder / "ILSVRC2012_devkit_t12.tar.gz"
        if archive.is_file():
            try:
                with tarfile.open(archive) as tar:
                    parts = [read_member(tar, f"ILSVRC2012_devkit_t12/data/{part}", DEVKIT_BYTES) for part in DEVKIT]
            except (tarfile.TarError, OSError, EOFError, ValueError, MemoryError, OverflowError, zlib.error) as error:
                raise DataError(f"cannot be read: {error}", where=str(archive), hint="get the devkit again") from error
            return devkit_labels(*parts, where=archive)
    raise MissingError(
        "val/ is flat and the labels of its images are not there",
        where=str(base),
        allowed="ILSVRC2012_devkit_t12.tar.gz (or unpacked), or Kaggle's LOC_val_solution.csv, beside train/ and val/",
        hint="put the devkit of image-net.org's download page there",
    )


def kaggle_labels(path: Path) -> dict[str, str]:
    """Kaggle's ``LOC_val_solution.csv``: ``ImageId`` and ``PredictionString``, whose first word is the WordNet id."""
    try:
        lines = io.StringIO(read_bytes(path, links=True).decode("utf-8"), newline="")
        rows = {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(lines)}
    except (OSError, ValueError, KeyError, IndexError, AttributeError, csv.Error) as error:
        raise DataError(f"cannot be read as Kaggle's table: {error}", where=str(path)) from error
    strange = sorted(set(rows.values()) - set(imagenet_wnids()))
    if strange:
        raise DataError(f"labels that are not ImageNet-1K's: {some(strange)}", where=str(path))
    return rows


def devkit_labels(meta: bytes, truth: bytes, *, where: Path) -> dict[str, str]:
    """The devkit's ``meta.mat`` and ground truth: line i is the *ILSVRC id* of ``ILSVRC2012_val_%08d``, from 1.

    ILSVRC ids are not positions in sorted order (1 is the kit fox); ``meta.mat`` maps them to WordNet ids. Its records
    are (ILSVRC2012_ID, WNID, words, gloss, num_children, …); inner nodes of the tree have children.
    """
    from scipy.io import loadmat

    try:
        synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        wnid_of = {int(s[0]): str(s[1]) for s in synsets if int(s[4]) == 0}
        if sorted(wnid_of.values()) != sorted(imagenet_wnids()):
            raise ValueError("meta.mat does not list the 1000 classes of ImageNet-1K")
        return {f"ILSVRC2012_val_{i:08d}": wnid_of[int(line)] for i, line in enumerate(truth.split(), 1)}
    except Exception as error:  # noqa: BLE001 - scipy raises anything for a damaged file
        raise DataError(f"no devkit: {error}", where=str(where), hint="get the devkit again") from error
