"""The distilled set on disk: ``<root>/<class>/<index>.png``, ``manifest.json`` and a contact sheet.

Any tool that reads class folders reads it; ``ddbench evaluate DIR`` reads one from anywhere.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from benchmark.core.errors import DataError, MissingError, UsageError
from benchmark.core.store import digest_file, digest_of

if TYPE_CHECKING:
    import torch

    from benchmark.data import Dataset

MANIFEST = "manifest.json"
SCHEMA = 1
SHEET_ROWS = 20  # classes on a contact sheet; of more classes evenly spaced ones are shown
SHEET_COLUMNS = 20
THREADS = min(8, os.cpu_count() or 1)  # that read a set
BATCH = 1024  # images in flight at a time


@dataclass(frozen=True)
class DistilledSet:
    """A distilled set in memory.

    Attributes:
        images: uint8 ``[N, C, H, W]``, classes in order, indices in order.
        labels: int64 ``[N]``.
        ipc: images per class.
        digest: SHA-256 of class order and image content (not of cost or provenance).
        manifest: the document read or written.
    """

    images: torch.Tensor
    labels: torch.Tensor
    ipc: int
    digest: str
    manifest: dict[str, Any]


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
    if not (root / MANIFEST).is_file():
        raise MissingError(
            f"no {MANIFEST} in {root}",
            hint="for a set released by a paper's authors: ddbench evaluate DIR --as NAME --dataset DATASET --ipc N",
        )
    manifest = json.loads((root / MANIFEST).read_text())
    if manifest.get("schema") != SCHEMA:
        raise DataError(f"manifest schema {manifest.get('schema')!r}", where=str(root / MANIFEST), allowed=str(SCHEMA))
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
        found = (
            sorted(f.name for f in os.scandir(root / folder) if f.name.endswith(".png"))
            if (root / folder).is_dir()
            else []
        )
        if len(found) != ipc:
            raise DataError(
                f"class {dataset.classes[label]!r} has {len(found)} images, the manifest says {ipc}",
                where=str(root / folder),
                hint="distil again, or restore the missing files",
            )
        names += [f"{folder}/{name}" for name in found]
    size, channels = manifest["size"], manifest["channels"]
    images = torch.empty(len(names), channels, size, size, dtype=torch.uint8)  # filled in place: sets may be gigabytes

    def read(row: int) -> None:
        name = names[row]
        data = (root / name).read_bytes()
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
    return DistilledSet(images, labels, ipc, content_digest(manifest), manifest)


def open_set(root: Path, dataset: Dataset, ipc: int | None = None) -> DistilledSet:
    """A set from anywhere: one with a manifest, or one in a layout that authors publish (`distilled_import`).

    Raises:
        MissingError: no such folder.
        DataError: classes, counts or images that cannot be right.
    """
    import torch

    root = Path(root)
    if (root / MANIFEST).is_file():
        found = read_set(root, dataset)
        if ipc and found.ipc != ipc:
            raise DataError(
                f"the set has {found.ipc} images a class, not {ipc}", where=str(root), hint=f"--ipc {found.ipc}"
            )
        return found
    from benchmark.sets.released import read_released

    images, labels = read_released(root, dataset)
    counts = torch.bincount(labels, minlength=len(dataset.classes))
    if counts.min() != counts.max() or (ipc and counts.max() != ipc):
        odd = int((counts != (ipc or int(counts.max()))).nonzero()[0])
        raise DataError(
            f"class {dataset.classes[odd]!r} has {int(counts[odd])} images, {ipc or int(counts.max())} expected",
            where=str(root),
            hint="give --ipc the number of images a class that the folder holds",
        )
    return DistilledSet(images, labels, int(counts[0]), array_digest(images, labels), {})


def describe_folder(root: Path) -> dict[str, Any]:
    """``{"method", "ipc", "dataset"}`` as far as the folder's manifest tells.

    Raises:
        MissingError: no such folder.
    """
    if not Path(root).is_dir():
        raise MissingError(f"no folder {root}", hint="ddbench distill --method … --out DIR makes one")
    file = Path(root) / MANIFEST
    seeds = sorted(p.parent.name for p in Path(root).glob(f"seed*/{MANIFEST}"))
    if not file.is_file() and seeds:
        hint = f"ddbench evaluate {Path(root) / seeds[0]}"
        raise UsageError(f"{root} holds a set for each of {len(seeds)} seeds", allowed=", ".join(seeds), hint=hint)
    if not file.is_file():
        return {}
    try:
        manifest = json.loads(file.read_text())
        return {"method": manifest["method"]["name"], "ipc": manifest["ipc"], "dataset": manifest["dataset"]["name"]}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"the manifest cannot be read ({type(error).__name__})", where=str(file)) from error


def content_digest(manifest: dict[str, Any]) -> str:
    """The set's identity: class order and the digest of every image."""
    return digest_of({"classes": manifest["classes"], "files": manifest["files"]})


def array_digest(images: torch.Tensor, labels: torch.Tensor) -> str:
    """Identity of a set without a manifest: its pixels and labels."""
    sha = hashlib.sha256(str((tuple(images.shape), labels.tolist())).encode())
    sha.update(images.contiguous().numpy().tobytes())
    return sha.hexdigest()


def read_png(file: Path | io.BytesIO, channels: int, name: str = "") -> torch.Tensor:
    """One image as uint8 ``[C, H, W]``.

    Raises:
        DataError: the file is not a readable image; names it.
    """
    import torch

    try:
        with Image.open(file) as image:
            array = np.array(image.convert("L" if channels == 1 else "RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"cannot read an image: {error}", where=name or str(file)) from error
    return torch.from_numpy(array).view(*array.shape[:2], channels).permute(2, 0, 1).contiguous()


def _spaced(total: int, most: int) -> list[int]:
    return sorted({round(i * (total - 1) / max(1, min(total, most) - 1)) for i in range(min(total, most))})


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
