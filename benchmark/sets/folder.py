"""The distilled set on disk: ``<root>/<class>/<index>.png``, ``manifest.json`` and a contact sheet.

Any tool that reads class folders reads it; ``ddbench evaluate SET`` reads one from anywhere.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from benchmark.core.errors import DataError, MissingError
from benchmark.core.foreign import inside, is_odd, opened_image, read_bytes, read_json
from benchmark.core.store import digest_file, digest_of
from benchmark.data.decode import to_mode

if TYPE_CHECKING:
    import torch

    from benchmark.data import Dataset

MANIFEST = "manifest.json"
SCHEMA = 1
SHEET_ROWS = 20  # classes on a contact sheet; of more classes evenly spaced ones are shown
SHEET_COLUMNS = 20
THREADS = min(8, os.cpu_count() or 1)  # that read a set
BATCH = 1024  # images in flight at a time


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and not is_odd(value)


def _is_count(value: Any, most: int = 10**6) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_name, value))


MANIFEST_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "dataset.name": (_is_name, "a name"),
    "dataset.digest": (_is_name, "a digest"),
    "method.name": (_is_name, "a name"),
    "method.version": (lambda v: isinstance(v, (int, str)), "a version"),
    "method.params": (lambda v: isinstance(v, dict), "an object"),
    "method.inputs": (lambda v: isinstance(v, dict), "an object"),
    "classes": (_is_names, "a list of names"),
    "folders": (lambda v: _is_names(v) and not any("/" in name for name in v), "a list of folder names"),
    "ipc": (_is_count, "a whole number from 1"),
    "tiles": (lambda v: _is_count(v, 8), "a whole number from 1"),
    "size": (lambda v: _is_count(v, 16384), "a side in pixels"),
    "channels": (lambda v: v in (1, 3) and not isinstance(v, bool), "1 or 3"),
    "backbone": (lambda v: isinstance(v, dict) and _is_name(v.get("name")) and _is_name(v.get("key")), "name and key"),
    "cost": (lambda v: isinstance(v, dict), "an object"),
    "cost.seconds": (lambda v: isinstance(v, (int, float)) and not isinstance(v, bool), "a number"),
    "precision": (lambda v: isinstance(v, dict) and not any(isinstance(x, (dict, list)) for x in v.values()), "flat"),
    "files": (
        lambda v: isinstance(v, dict) and all(isinstance(d, str) and len(d) == 64 for d in v.values()),
        "names with SHA-256 digests",
    ),
}  # fmt: skip
NEEDED = ("classes", "folders", "ipc", "size", "channels", "files")  # to read a set


@dataclass(frozen=True)
class DistilledSet:
    """A distilled set in memory.

    Attributes:
        images: ``[N, C, H, W]`` in grey levels 0..255, classes in order, indices in order: uint8; float32 of tensors
            released as fractions of levels or beyond 0..255 (`benchmark.sets.tensors`).
        labels: int64 ``[N]``.
        ipc: images per class.
        digest: SHA-256 of class order and image content (not of cost or provenance), and of ``factor`` where a user
            gave it.
        manifest: the document read or written.
        factor: each image is a square of so many by so many training images (`benchmark.training.formation`).
        note: how the images were read, in words, where this is no matter of course.
    """

    images: torch.Tensor
    labels: torch.Tensor
    ipc: int
    digest: str
    manifest: dict[str, Any]
    factor: int = 1
    note: str = ""

    def training(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Images and labels on which students train: the tiles of each image where there are several."""
        from benchmark.training.formation import training_images

        return training_images(self.images, self.labels, self.factor)


def write_set(
    root: Path, dataset: Dataset, ipc: int, images: Iterable[tuple[int, int, np.ndarray]], meta: dict[str, Any]
) -> None:
    """Write images ``(class, index, uint8 [H, W, C])`` one at a time, then the manifest and the contact sheet.

    ``meta`` holds method, version, parameters, seed, backbone key and cost.
    """
    files: dict[str, str] = {}
    size = channels = 0
    shown = _spaced(len(dataset.classes), SHEET_ROWS)
    thumbs: dict[tuple[int, int], np.ndarray] = {}
    for label, index, array in images:
        name = f"{dataset.folders[label]}/{index:05d}.png"
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        height, width, channels = array.shape
        size = height
        Image.fromarray(array[:, :, 0] if channels == 1 else array).save(file, compress_level=6)
        files[name] = digest_file(file)
        if label in shown and index < SHEET_COLUMNS:
            thumbs[label, index] = array
    expected = ipc * len(dataset.classes)
    if len(files) != expected:
        raise DataError(f"the method made {len(files)} images; {ipc} for each class, {expected} in all, expected")
    manifest = {
        "schema": SCHEMA,
        "dataset": {"name": dataset.name, "digest": dataset.digest},
        "classes": list(dataset.classes),
        "folders": list(dataset.folders),
        "ipc": ipc,
        "size": size,
        "channels": channels,
        "files": files,
        **meta,
    }
    (root / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True))
    contact_sheet(thumbs, [dataset.classes[c] for c in shown], shown).save(root / "contact_sheet.png")


def read_set(root: Path, dataset: Dataset) -> DistilledSet:
    """Read a set that ddbench wrote (or one with the same layout) and check it against ``dataset``.

    Raises:
        MissingError: no such folder or no manifest.
        DataError: other classes or class order, wrong counts, a missing, unreadable or changed image.
    """
    import torch

    root = Path(root)
    hint = "for a set released by a paper's authors: ddbench evaluate SET --as NAME --dataset DATASET"
    manifest = read_manifest(root, hint)
    if tuple(manifest["classes"]) != dataset.classes:
        theirs, ours = manifest["classes"], list(dataset.classes)
        if sorted(theirs) == sorted(ours):
            first = next(i for i, (a, b) in enumerate(zip(theirs, ours)) if a != b)
            what = f"the class order differs: position {first} is {theirs[first]!r} there and {ours[first]!r} here"
        else:
            odd = sorted(set(theirs) ^ set(ours))[:3]
            what = f"other classes than {dataset.name} ({len(theirs)} against {len(ours)}; e.g. {', '.join(odd)})"
        raise DataError(what, where=str(root), hint="give --dataset the dataset that the set was made of")
    ipc, names = manifest["ipc"], []
    for label, folder in enumerate(manifest["folders"]):
        found = _pictures(inside(root, folder))
        if len(found) != ipc:
            raise DataError(
                f"class {dataset.classes[label]!r} has {len(found)} images, the manifest says {ipc}",
                where=str(root / folder),
                hint="distil again, or restore the missing files",
            )
        names += [f"{folder}/{name}" for name in found]
    size, channels = manifest["size"], manifest["channels"]
    with opened_image(inside(root, names[0])) as first:  # before memory is taken for what the manifest claims
        if first.size != (size, size):
            raise DataError(f"{names[0]} has {first.size} px, the manifest says {size} px", where=str(root))
    images = torch.empty(len(names), channels, size, size, dtype=torch.uint8)  # filled in place: sets may be gigabytes

    def read(row: int) -> None:
        name = names[row]
        data = read_bytes(inside(root, name))
        if manifest["files"].get(name) != hashlib.sha256(data).hexdigest():
            raise DataError(f"{name} is not the image that was written (its SHA-256 differs)", where=str(root))
        pixels = read_png(io.BytesIO(data), channels, name=str(root / name))
        if pixels.shape != images.shape[1:]:
            raise DataError(f"{name} has shape {tuple(pixels.shape)}, the manifest says {size} px", where=str(root))
        images[row] = pixels

    with ThreadPoolExecutor(THREADS) as pool:  # PIL and SHA-256 work outside Python's lock
        for start in range(0, len(names), BATCH):
            list(pool.map(read, range(start, min(start + BATCH, len(names)))))
    labels = torch.arange(len(manifest["folders"])).repeat_interleave(ipc)
    return DistilledSet(images, labels, ipc, content_digest(manifest), manifest, manifest.get("tiles", 1))


def read_manifest(root: Path, hint: str = "", *, need: Sequence[str] = NEEDED) -> dict[str, Any]:
    """The manifest of the set in ``root``, checked: types, and that it names only plain paths inside the folder.

    Args:
        need: fields of `MANIFEST_FIELDS` that must be there; the others may be missing or null.

    Raises:
        MissingError: there is none. DataError: it is no manifest, or names what no set holds.
    """
    file = Path(root) / MANIFEST
    if not os.path.lexists(file):
        raise MissingError(f"no {MANIFEST} in {root}", hint=hint or "ddbench distill … --out DIR makes a set with one")
    try:
        manifest = read_json(file)
    except OSError as error:
        raise DataError(f"the manifest cannot be read: {error.strerror}", where=str(file)) from error
    except DataError as error:
        raise DataError(f"the manifest {error.what}", where=str(file), hint=error.hint) from error
    fault = next(_manifest_faults(manifest, need), "")
    if fault:
        raise DataError(f"the manifest cannot be read: {fault}", where=str(file), allowed="one that ddbench wrote")
    for name in manifest["files"]:
        inside(root, name, where=str(file))
    return manifest


def _manifest_faults(manifest: Any, need: Sequence[str]) -> Iterator[str]:
    """What is wrong with the parts of a manifest that are used."""
    if not isinstance(manifest, dict):
        yield "not a JSON object"
        return
    if manifest.get("schema") != SCHEMA:
        yield f"schema {manifest.get('schema')!r}, not {SCHEMA}"
    for name, (fits, meaning) in MANIFEST_FIELDS.items():
        value: Any = manifest
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is None and name not in need:
            continue
        if not fits(value):
            yield f"{name} is {str(value)[:60]!r}, not {meaning}"
            return
    folders = set(manifest["folders"])
    if len(folders) != len(manifest["classes"]) or len(manifest["folders"]) != len(folders):
        yield "not one folder a class"
    for name in manifest["files"]:
        folder, slash, picture = name.rpartition("/")
        if not slash or folder not in folders or not picture.endswith(".png"):
            yield f"{name!r} is no FOLDER/INDEX.png"
            return


def _pictures(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.name.endswith(".png"))


def content_digest(manifest: dict[str, Any]) -> str:
    """The set's identity: class order and the digest of every image."""
    return digest_of({"classes": manifest["classes"], "files": manifest["files"]})


def array_digest(images: torch.Tensor, labels: torch.Tensor) -> str:
    """Identity of a set without a manifest: its pixels and labels."""
    kind = f" {images.dtype}" if images.is_floating_point() else ""
    sha = hashlib.sha256(f"{(tuple(images.shape), labels.tolist())}{kind}".encode())
    sha.update(images.contiguous().numpy().tobytes())
    return sha.hexdigest()


def read_png(file: Path | io.BytesIO, channels: int, name: str = "") -> torch.Tensor:
    """One image as uint8 ``[C, H, W]``.

    Raises:
        DataError: the file is not a readable image; names it.
    """
    import torch

    with opened_image(file, name=name) as image:
        array = np.array(to_mode(image, "L" if channels == 1 else "RGB"))
    return torch.from_numpy(array).view(*array.shape[:2], channels).permute(2, 0, 1).contiguous()


def _spaced(total: int, most: int) -> list[int]:
    return sorted({round(i * (total - 1) / max(1, min(total, most) - 1)) for i in range(min(total, most))})


def sheet_of(found: DistilledSet, dataset: Dataset) -> Image.Image:
    """The contact sheet of a set in memory: its stored images."""
    shown = _spaced(len(dataset.classes), SHEET_ROWS)
    thumbs = {}
    for label in shown:
        for index in range(min(found.ipc, SHEET_COLUMNS)):
            image = found.images[label * found.ipc + index].clamp(0, 255).round().byte()
            thumbs[label, index] = image.permute(1, 2, 0).numpy()
    return contact_sheet(thumbs, [dataset.classes[c] for c in shown], shown)


def contact_sheet(thumbs: dict[tuple[int, int], np.ndarray], names: list[str], rows: list[int]) -> Image.Image:
    """One row a class, its name at the left; small images are enlarged by whole factors so that pixels stay pixels."""
    from PIL import ImageDraw, ImageFont

    side = max(a.shape[0] for a in thumbs.values())
    scale = max(1, 64 // side)
    cell = side * scale
    columns = 1 + max(index for _, index in thumbs)
    font = ImageFont.load_default(size=13)
    margin = 12 + max(int(font.getlength(n[:18])) for n in names)
    sheet = Image.new("RGB", (margin + columns * (cell + 2), len(rows) * (cell + 2) + 2), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (label, name) in enumerate(zip(rows, names)):
        top = 2 + row * (cell + 2)
        draw.text((6, top + cell // 2 - 8), name[:18], fill="black", font=font)
        for column in range(columns):
            array = thumbs.get((label, column))
            if array is not None:
                picture = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).convert("RGB")
                sheet.paste(picture.resize((cell, cell), Image.Resampling.NEAREST), (margin + column * (cell + 2), top))
    return sheet
