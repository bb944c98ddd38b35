"""What ``ddbench evaluate`` is given: one set or several, each a folder, a file of tensors, or a zip of either."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.core.errors import DataError, MissingError, UsageError
from benchmark.core.foreign import is_plain_path, open_regular
from benchmark.core.store import default_cache, digest_file, digest_of
from benchmark.sets.folder import MANIFEST, NEEDED, DistilledSet, array_digest, read_manifest, read_set
from benchmark.sets.released import SUFFIXES as IMAGES
from benchmark.sets.released import count_ipc, image_files, read_released
from benchmark.sets.shards import count_rows, parquet_files, read_parquet
from benchmark.sets.tensors import SUFFIXES as TENSORS
from benchmark.sets.tensors import count_sets, is_tensors, load_pair, read_tensors, tensor_notes

if TYPE_CHECKING:
    from benchmark.data import Dataset

PACKED = (*IMAGES, *TENSORS, ".parquet", ".jsonl", ".csv", MANIFEST)  # what is unpacked of a zip
MTT = "images_best.pt"  # of the files that MTT leaves in a folder, the set of the paper's numbers
ALLOWED = "a folder of images, a file .pt, .npz or .zip, or a folder of such sets"
MOST_FACTOR = 8  # IDC and CIM use 2 and 3
_NUMBERED = re.compile(r"(?:seed|exp|run|set)[_-]?\d+", re.IGNORECASE)
_HUB = re.compile(r"(?:hf://|hf:|https://huggingface\.co/)?(?:datasets/)?([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)")


def each_set(given: Sequence[str]) -> list[str]:
    """The sets in what was named, one a seed: a file of DC's holds several, a folder may hold ``seed0``, ``seed1`` …

    Raises:
        MissingError: there is no such file or folder.
    """
    return [found for name in given for found in _sets_in(name)]


def _sets_in(name: str) -> list[str]:
    path = Path(name)
    if is_tensors(path):
        count = 1 if "#" in path.name else count_sets(path)
        return [f"{name}#{number}" for number in range(count)] if count > 1 else [name]
    if not path.exists():
        raise _missing(name)
    if not path.is_dir() or (path / MANIFEST).is_file():
        return [name]
    entries = sorted(os.scandir(path), key=lambda entry: [int(n) for n in re.findall(r"\d+", entry.name)])
    entries = [entry for entry in entries if not entry.name.startswith(".")]
    if (path / MTT).is_file() and not image_files(path):
        return [str(path / MTT)]
    files = [e for e in entries if e.is_file() and e.name.lower().endswith((*TENSORS, ".zip"))]
    if files and len(files) == len(entries) and not any("label" in e.name for e in files):
        return [found for entry in files for found in _sets_in(entry.path)]
    folders = [e for e in entries if e.is_dir() and _NUMBERED.fullmatch(e.name)]
    if folders and len(folders) == sum(e.is_dir() for e in entries):
        return [entry.path for entry in folders]
    return [name]


def _missing(name: str) -> MissingError:
    """The error for what is not there, with the command that gets what looks like an id on the Hugging Face hub."""
    found, hint = _HUB.fullmatch(name), "ddbench distill --method d3hr --dataset digits --out DIR makes one"
    if found:
        folder = found.group(1).rpartition("/")[2]
        hint = f"if it is an id on the Hugging Face hub: hf download {found.group(1)} --repo-type dataset "
        hint += f"--local-dir {folder}, then ddbench evaluate {folder} --dataset DATASET"
    return MissingError(
        f"no folder or file {name}",
        where="ddbench evaluate SET",
        allowed=ALLOWED,
        hint=hint,
    )


def open_set(root: Path, dataset: Dataset, ipc: int | None = None, factor: int | None = None) -> DistilledSet:
    """A set from anywhere: one with a manifest, or one as authors publish them (`released`, `tensors`, `shards`).

    Args:
        ipc: images a class that it must have.
        factor: each image is a square of so many by so many training images (IDC, CIM); None: what its manifest says.

    Raises:
        MissingError: no such folder. UsageError: a factor that is not possible, or not the manifest's.
        DataError: classes, counts or images that cannot be right.
    """
    import torch

    if factor is not None and not 1 <= factor <= MOST_FACTOR:
        raise UsageError(f"a factor of {factor} is not possible", where="--factor", allowed=f"1 to {MOST_FACTOR}")
    root = opened(Path(root))
    if (root / MANIFEST).is_file():
        found = read_set(root, dataset)
        if ipc and found.ipc != ipc:
            raise DataError(
                f"the set has {found.ipc} images a class, not {ipc}", where=str(root), hint=f"--ipc {found.ipc}"
            )
        if factor not in (None, found.factor):
            raise UsageError(f"{root / MANIFEST} says {found.factor}", where=f"--factor {factor}", hint="leave it out")
        return found
    files, note = parquet_files(root), ""
    if files:
        images, labels = read_parquet(files, dataset)
    elif is_tensors(root):
        images, labels = read_tensors(root, dataset)
        note = tensor_notes(root, dataset)
    else:
        images, labels = read_released(root, dataset)
    counts = torch.bincount(labels, minlength=len(dataset.classes))
    if counts.min() != counts.max() or (ipc and counts.max() != ipc):
        odd = int((counts != (ipc or int(counts.max()))).nonzero()[0])
        raise DataError(
            f"class {dataset.classes[odd]!r} has {int(counts[odd])} images, {ipc or int(counts.max())} expected",
            where=str(root),
            hint="give --ipc the number of images a class that the folder holds",
        )
    found = DistilledSet(images, labels, int(counts[0]), array_digest(images, labels), {}, note=note)
    if factor in (None, 1):
        return found
    decoded = f"each image is decoded to {factor}x{factor} training images"
    digest = digest_of({"set": found.digest, "factor": factor})
    return replace(found, digest=digest, factor=factor, note="; ".join(filter(None, [note, decoded])))


def describe_set(root: Path) -> dict[str, Any]:
    """``{"method", "ipc", "dataset", "classes"}`` as far as the folder's manifest tells (``classes`` where these are
    some of the dataset's); else IPC as images and labels tell it.

    Raises:
        MissingError: no such folder or file.
    """
    root = opened(Path(root))
    if is_tensors(root):
        counts = np.bincount(load_pair(root)[1].numpy())
        return {"ipc": int(counts.max())}
    if not (root / MANIFEST).is_file():
        shards = parquet_files(root)
        counted = count_rows(shards) if shards else count_ipc(root)
        return {"ipc": counted} if counted else {}
    manifest = read_manifest(root, need=(*NEEDED, "method.name", "dataset.name"))
    found = {"method": manifest["method"]["name"], "ipc": manifest["ipc"]}
    name = manifest["dataset"]["name"]
    if some := re.fullmatch(r"(.+)@\d+classes", name):
        return found | {"dataset": some.group(1), "classes": ",".join(manifest["folders"])}
    return found | {"dataset": name}


def describe_sets(given: Sequence[str]) -> dict[str, Any]:
    """What `describe_set` says of each of several sets, which must agree where it says something.

    Raises:
        MissingError: no such folder or file. DataError: sets of different IPC, methods or datasets.
    """
    told = [describe_set(Path(name)) for name in given]
    for key in ("ipc", "dataset", "classes", "method"):
        values = {found.get(key): name for found, name in zip(told, given)}
        if len(values) > 1:
            shown = "; ".join(f"{name}: {value}" for value, name in list(values.items())[:3])
            raise DataError(
                f"the sets differ in {key}", where=shown, allowed="several sets are the seeds of one method",
                hint="evaluate them one at a time",
            )  # fmt: skip
    return told[0]


def opened(path: Path) -> Path:
    """The folder or file of tensors that ``path`` is; a zip is unpacked below the store, once.

    Raises:
        MissingError: there is no such folder or file.
        DataError: a damaged zip, one with odd names, or one that holds no set.
    """
    if is_tensors(path) or path.is_dir():
        return path
    if path.suffix.lower() != ".zip" and path.exists():
        kinds = ", ".join((*TENSORS, ".zip"))
        raise MissingError(f"{path} is a file, not of tensors ({kinds})", where="ddbench evaluate SET", allowed=ALLOWED)
    if not path.is_file():
        raise _missing(str(path))
    folder = default_cache() / "external" / "unzipped" / digest_of(["unzipped 1", digest_file(path)])
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix="."))
        try:
            _unpack(path, temporary)
            if not folder.is_dir():  # another worker may have been faster
                os.replace(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    if not (folder / MANIFEST).is_file():
        inner = sorted(folder.rglob(MANIFEST))
        tensors = sorted(file for file in folder.rglob("*") if file.suffix.lower() in TENSORS)
        if len(inner) == 1:
            return inner[0].parent
        if tensors and not image_files(folder):
            return next((file for file in tensors if "images" in file.name), tensors[0])
    return folder


def _unpack(path: Path, folder: Path) -> None:
    """The images, tensors and tables of a zip, under their own names."""
    try:
        with open_regular(path, links=True) as file, zipfile.ZipFile(file) as archive:
            members = [m for m in archive.infolist() if m.filename.lower().endswith(PACKED) and not m.is_dir()]
            odd = next((m.filename for m in members if not is_plain_path(m.filename)), None)
            if odd is not None:
                raise DataError(f"it holds the name {odd!r}", where=str(path), allowed="plain relative paths")
            need, free = sum(m.file_size for m in members), shutil.disk_usage(folder).free
            if not members or need > free:
                text = f"it unpacks to {need / 1e9:.1f} GB, {free / 1e9:.1f} GB are free in the store"
                raise DataError(
                    text if members else f"none of its {len(archive.namelist())} files is a part of a set",
                    where=str(path),
                    allowed="a zip of images, .pt, .npz or .parquet files",
                )
            for member in members:
                target = folder / member.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, open(target, "xb") as out:
                    shutil.copyfileobj(source, out, 1 << 20)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise DataError(
            f"cannot be read as zip: {error}",
            where=str(path),
            allowed="a whole zip file, without a password and with each name once",
            hint="get the file again",
        ) from error
