"""Distilled sets released as tensors: DC's, DSA's and DM's ``res_*.pt``, MTT's pair of files, and ``.npz``.

Tensors are read without running code of the file (``weights_only``, ``allow_pickle=False``). Images come in grey
levels: mean and standard deviation are taken out of floats that are normalised. They become uint8 where the file holds
whole levels 0..255, and stay float32, unrounded and with what lies outside 0..255, where it holds others: methods that
learn pixels use both, and students lose two points without (docs/released-sets.md). `tensor_notes` says in words what
was done and what was left out. Stored soft labels are refused: no protocol trains with labels from a file, and leaving
them out would give another set's accuracy.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.core.archives import check_zip, read_npz
from benchmark.core.cost import available_memory
from benchmark.core.errors import DataError, MissingError, UsageError
from benchmark.core.foreign import open_regular
from benchmark.data.base import plain_name

if TYPE_CHECKING:
    import torch

    from benchmark.data import Dataset

SUFFIXES = (".pt", ".pth", ".npz")
IMAGE_KEYS = ("images", "image", "images_best", "syn_images", "image_syn", "data", "x")
LABEL_KEYS = ("labels", "label", "labels_best", "syn_labels", "label_syn", "targets", "y")
RATE_KEYS = ("lr", "syn_lr", "lr_best")
FAR = 0.5  # beyond 0..1; DC's images of Fashion-MNIST leave 0..1 at a third of their values, by 0.5 at most
OUTSIDE = 0.05  # of values that far out after the normalisation is taken out: more, and it was another one (ZCA)
SLACK = 0.1  # beyond 0..1 of images stored so; black lies further down in normalised ones
NORMALISED = 20  # deviations that no normalised value reaches
WHOLE = 0.01  # grey levels: images nearer to whole levels than this were 8-bit images before somebody scaled them
LARGEST = 64 << 30  # bytes of a file
LAYOUTS = (
    "{'data': [[images, labels], …]} (DC, DSA, DM), {'images': …, 'labels': …}, [images, labels], or an images file "
    "with a labels file beside it (MTT: images_best.pt, labels_best.pt); images [N, C, H, W], labels [N]"
)
# Mean and standard deviation that DC's code, and the code that follows it, normalises with
# (github.com/VICO-UoE/DatasetCondensation, utils.py, get_dataset).
NORMALISATION = {
    "fashionmnist": ((0.2861,), (0.3530,)),
    "svhn": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
    "tinyimagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def is_tensors(path: Path) -> bool:
    """Whether ``path`` is meant as a file of tensors; ``FILE.pt#2`` is the third of several sets in a file."""
    return _split(path)[0].suffix.lower() in SUFFIXES


def tensor_file(path: Path) -> Path:
    """The file of ``FILE`` or ``FILE#NUMBER``."""
    return _split(path)[0]


def read_tensors(path: Path, dataset: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    """A set as images ``[N, C, side, side]`` in grey levels, uint8 or float32, and labels int64 ``[N]``, class after
    class.

    Raises:
        MissingError: no such file, or an images file without its labels file.
        DataError: no tensors, other shapes or classes than the dataset's, soft labels, a normalisation that is not
            known.
    """
    import torch

    images, labels = load_pair(path)
    where = str(path)
    if images.shape[1] != dataset.channels or images.shape[2] != images.shape[3]:
        raise DataError(
            f"images {list(images.shape)}",
            where=where,
            allowed=f"[N, {dataset.channels}, side, side], as {dataset.name} has them",
            hint="name the dataset that the set was made of with --dataset",
        )
    if images.shape[2] < dataset.image_size:
        raise DataError(
            f"images of {images.shape[2]} px",
            where=where,
            allowed=f"at least the {dataset.image_size} px of the dataset",
        )
    counts = torch.bincount(labels, minlength=len(dataset.classes))
    if len(counts) != len(dataset.classes) or counts.min() != counts.max():
        raise DataError(
            f"{len(labels)} labels {int(labels.min())} to {int(labels.max())}, {int(counts.min())} to "
            f"{int(counts.max())} images a class",
            where=where,
            allowed=f"classes 0 to {len(dataset.classes) - 1}, the same number of images for each",
            hint="name the dataset that the set was made of with --dataset",
        )
    pixels, _ = _pixels(images, dataset)
    far = float(((pixels < -255 * FAR) | (pixels > 255 * (1 + FAR))).float().mean())
    if far > OUTSIDE:
        raise DataError(
            f"{100 * far:.0f} % of the values lie more than {FAR} outside 0..1 after mean and deviation are taken out",
            where=where,
            allowed=f"at most {100 * OUTSIDE:.0f} %",
            hint="the set was whitened (ZCA) or normalised otherwise: MTT's images_zca_*.pt beside it are not "
            "whitened; else write its images as pixels 0..255 first",
        )
    order = torch.argsort(labels, stable=True)
    return pixels[order], labels[order]


def tensor_notes(path: Path, dataset: Dataset) -> str:
    """What was done to a set's tensors and what of the file was not used, in words for the user."""
    images, _ = load_pair(path)
    pixels, how = _pixels(images, dataset)
    document = _document(_split(path)[0])
    parts = [how]
    if pixels.is_floating_point():
        outside = float(((pixels < -WHOLE) | (pixels > 255 + WHOLE)).float().mean())
        parts.append("students train on these floats, not on 8-bit pixels")
        if outside:
            parts[-1] += f" ({100 * outside:.1f} % of the values lie outside the range of pixels)"
    sets = _several(document)
    if sets > 1:
        parts.append(f"the file holds {sets} sets: this is number {_split(path)[1]} (FILE#1 names the second)")
    if _is_pair(document) or (isinstance(document, dict) and {"dataset", "data", "label"} <= document.keys()):
        parts.append(
            "IDC and CIM write such files: give --factor 2 (or what they were made with) where each image holds "
            "several training images"
        )
    rates = [key for key in RATE_KEYS if isinstance(document, dict) and key in document]
    file = _split(path)[0]
    if rates or ("images" in file.name and _sibling(file, "lr").is_file()):
        parts.append("its learned learning rate is not used: the protocol sets the rate")
    return "; ".join(parts)


def count_sets(path: Path) -> int:
    """How many sets a file holds: DC's have one for each repetition of the experiment.

    Raises:
        MissingError, DataError: see `read_tensors`.
    """
    return _several(_document(_split(path)[0]))


def load_pair(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """(images as stored, class labels int64) of a file, checked to fit each other.

    Raises:
        MissingError, DataError: see `read_tensors`.
    """
    import torch

    file, number = _split(path)
    document = _document(file)
    images, labels = _pair(document, number, file)
    images, labels = _plain(images, "images", file), _plain(labels, "labels", file)
    if images.ndim == 4 and images.shape[3] in (1, 3) and images.shape[1] not in (1, 3):
        images = images.permute(0, 3, 1, 2)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if images.ndim != 4 or labels.ndim not in (1, 2) or len(images) != len(labels) or not len(images):
        raise DataError(f"images {list(images.shape)}, labels {list(labels.shape)}", where=str(file), allowed=LAYOUTS)
    if images.is_floating_point() and not bool(torch.isfinite(images).all()):
        raise DataError("images hold NaN or infinite values", where=str(file), hint="the set is damaged: get it again")
    if labels.ndim == 2:
        classes = labels.argmax(1)
        if not torch.equal(labels.double(), torch.nn.functional.one_hot(classes, labels.shape[1]).double()):
            raise DataError(
                f"the labels are soft: {list(labels.shape)} values",
                where=str(file),
                allowed="one class a image",
                hint="no protocol trains with labels from a file; to score the images alone, with a protocol's own "
                "labels, store their argmax instead and name the set accordingly",
            )
        labels = classes
    if labels.is_floating_point() and not torch.equal(labels, labels.round()):
        raise DataError("labels that are no whole numbers", where=str(file), allowed="class numbers from 0")
    labels = labels.long()
    if int(labels.min()) < 0 or int(labels.max()) >= 10**6:
        raise DataError(f"labels {int(labels.min())} to {int(labels.max())}", where=str(file), allowed="from 0")
    return images, labels


def _plain(value: Any, what: str, file: Path) -> torch.Tensor:
    """An array as a tensor of ordinary numbers that fits into memory.

    Raises:
        DataError: complex, text, sparse, quantised, without data, or larger in memory than what is free (a file may
            hold one number and call it a million images).
    """
    import torch

    odd = isinstance(value, np.ndarray) and value.dtype.kind not in "biuf"
    tensor = value if odd else torch.as_tensor(value).detach()
    if odd or tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized or tensor.is_complex():
        kind = "" if odd else f", {tensor.layout}, on {tensor.device}".replace("torch.", "")
        raise DataError(f"the {what} are {value.dtype}{kind}", where=str(file), allowed="dense arrays of real numbers")
    need, free = 3 * 4 * tensor.numel(), available_memory()  # as float32, and what is computed from them
    if need > free:
        raise DataError(
            f"the {what} {list(tensor.shape)} take {need / 1e9:.1f} GB, {free / 1e9:.1f} GB are free",
            where=str(file),
            allowed="a set that fits into memory",
        )
    return tensor


def _split(path: Path) -> tuple[Path, int]:
    found = re.fullmatch(r"(.+)#(\d{1,4})", path.name)
    return (path.with_name(found.group(1)), int(found.group(2))) if found else (path, 0)


def _document(file: Path) -> Any:
    """Everything in a file: tensors, lists and dicts of them."""
    import torch

    if not file.exists():
        raise MissingError(f"no file {file}", where="ddbench evaluate FILE", hint="check the path")
    try:
        with open_regular(file, links=True, most=LARGEST) as opened:
            if file.suffix.lower() == ".npz":
                return read_npz(file)
            check_zip(opened, file)
            return torch.load(opened, map_location="cpu", weights_only=True)
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - unpickling raises anything for a damaged file
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise DataError(
            f"cannot be read: {reason}",
            where=str(file),
            allowed="a whole file of tensors, lists and dicts, without code (torch.load(weights_only=True), npz)",
            hint="get the file again; if it holds other objects, store its tensors alone",
        ) from error


def _is_array(value: Any) -> bool:
    import torch

    return isinstance(value, (torch.Tensor, np.ndarray))


def _is_pair(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_is_array, value))


def _several(document: Any) -> int:
    """How many sets a file of DC's holds: one for each repetition of the experiment."""
    data = document.get("data") if isinstance(document, dict) else document
    return len(data) if isinstance(data, (list, tuple)) and data and all(map(_is_pair, data)) else 1


def _pair(document: Any, number: int, file: Path) -> tuple[Any, Any]:
    data = document.get("data") if isinstance(document, dict) else document
    total = _several(document)
    if number >= total:
        raise UsageError(f"the file holds {total} set(s)", where=f"{file}#{number}", allowed=f"#0 to #{total - 1}")
    if _is_pair(data):
        return tuple(data)
    if isinstance(data, (list, tuple)) and data and all(map(_is_pair, data)):
        return tuple(data[number])
    if isinstance(document, dict):
        keys = {str(key).lower(): value for key, value in document.items() if _is_array(value)}
        images, labels = (next((keys[k] for k in known if k in keys), None) for known in (IMAGE_KEYS, LABEL_KEYS))
        if images is not None and labels is not None:
            return images, labels
    if _is_array(document):
        beside = _sibling(file, "labels")
        if beside == file or not beside.is_file():
            raise MissingError(
                f"{file.name} holds images without labels",
                where=str(file),
                allowed=LAYOUTS,
                hint=f"put {beside.name} beside it",
            )
        labels = _document(beside)
        if _is_array(labels):
            return document, labels
    held = sorted(map(str, document)) if isinstance(document, dict) else type(document).__name__
    raise DataError(f"no set of images and labels: it holds {str(held)[:120]}", where=str(file), allowed=LAYOUTS)


def _sibling(file: Path, what: str) -> Path:
    """MTT's other files: ``images_best.pt`` has ``labels_best.pt`` beside it, ``images_zca_500.pt`` ``labels_500.pt``.

    (``images_zca_*`` are the whitened images of a run, brought back to normalised pixels: distill.py of
    mtt-distillation.)
    """
    beside = file.with_name(file.name.replace("images", what, 1))
    plain = beside.with_name(beside.name.replace("_zca", "", 1))
    return plain if plain.is_file() and not beside.is_file() else beside


def _pixels(images: torch.Tensor, dataset: Dataset) -> tuple[torch.Tensor, str]:
    """Images in grey levels, uint8 where these are whole ones and float32 otherwise; and how they were made."""
    import torch

    if images.dtype == torch.uint8:
        return images, "pixels 0..255 as stored"
    values = images.float()
    low, high = float(values.min()), float(values.max())
    if low >= -SLACK and high <= 1 + SLACK:
        values, how = values * 255, "floats 0..1"
    elif high > NORMALISED or (low >= 0 and high > 2):
        how = "floats 0..255"
    else:
        mean, std = NORMALISATION.get(plain_name(dataset.name), (dataset.mean, dataset.std))
        source = "as DC's code has them" if plain_name(dataset.name) in NORMALISATION else "of the training split"
        scale = [torch.tensor(part, dtype=torch.float32).view(1, -1, 1, 1) for part in (mean, std)]
        values = (values * scale[1] + scale[0]) * 255
        how = f"floats {low:.2f} to {high:.2f}, taken as normalised with "
        how += " and ".join(
            f"{what} " + ", ".join(f"{v:.4f}" for v in part) for what, part in (("mean", mean), ("deviation", std))
        )
        how += f" ({source})"
    levels = values.round()
    if float((values - levels).abs().max()) < WHOLE and float(levels.min()) >= 0 and float(levels.max()) <= 255:
        return levels.byte(), how + ", which are 8-bit pixels"
    return values, how
