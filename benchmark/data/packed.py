"""Images inside larger files (Hugging Face's parquet and Arrow, ImageNet's own tars, webdataset shards) as an `Index`.

Tars are not unpacked: each image is read at its offset. The pages of a parquet file are compressed and its rows
shuffled, so its images are copied once into one plain file per shard below the store, a row group at a time, and read
from there at their offsets. A dataset has the same digest in a tar, in parquet and in folders: only labels, file names
and bytes count, in the order of label and name.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import shutil
import tarfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmark.core.archives import check_memory
from benchmark.core.cost import available_memory
from benchmark.core.errors import DataError, MissingError
from benchmark.core.foreign import open_regular, parse_json
from benchmark.core.progress import Progress
from benchmark.core.store import default_cache, digest_of
from benchmark.data.decode import EXTENSIONS, header, open_image
from benchmark.data.files import Index, Names, readable, retried, some

IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp")
LABEL_COLUMNS = ("label", "fine_label", "labels", "class_id", "cls", "class", "target")
SUFFIXES = (".parquet", ".tar")
ROWS = 64  # of a parquet file that are read at a time
SMALL = 1 << 30  # bytes that any of them may unpack to
UNPACKED = 100  # times a parquet file's size: images are compressed themselves, so that more is no set of images
COPIED = (".parquet", ".arrow")  # their images are copied into one plain file per shard
ARROW_END = b"\xff\xff\xff\xff\0\0\0\0"  # of an Arrow stream: a file without it is cut off
INNER = ("", "data", "plain_text", "cifar100", "default", "full_size", "320px", "160px")  # of Hugging Face's copies
TEST_PARTS = ("validation", "valid", "val", "test")  # the first that is there is the test split
_PART = re.compile(r"(?:^|[-_])(train|validation|valid|val|test)(?=[-_.]|$)")
_OF = re.compile(r"-(\d+)-of-(\d+)(?:-|$)")
_NUMBER = re.compile(r"-(\d{2,})$")
LAYOUT = "train-*.parquet and validation-*.parquet (or test-*), or tars named so"


@dataclass
class PackedIndex(Index):
    """Images at offsets of larger files: image ``i`` is ``sizes[i]`` bytes of ``blobs[folder[i]]``.

    ``folders`` are the names of the shards below ``root``, ``blobs`` the files that hold their images.
    """

    blobs: tuple[str, ...] = ()
    offsets: np.ndarray | None = None  # int64 [n]

    def path(self, index: int) -> str:
        """Shard and image, for messages."""
        return f"{os.path.join(self.root, self.folders[self.folder[index]])}:{self.names[index]}"

    def read(self, index: int) -> bytes:
        """The bytes of one image file.

        Raises:
            DataError: the shard is gone or shorter than it was; names it.
        """
        blob, size = self.blobs[self.folder[index]], int(self.sizes[index])

        def part() -> bytes:
            with open_regular(blob, links=True) as file:
                file.seek(int(self.offsets[index]))
                return file.read(size)

        with readable(blob):
            data = retried(blob, part)
        if len(data) != size:
            raise DataError(f"ends inside {self.names[index]}", where=blob, hint="get or unpack the file again")
        return data

    def image(self, index: int, mode: str | None = None, size: int | None = None) -> Image.Image:
        return open_image(io.BytesIO(self.read(index)), mode, size, name=self.path(index))

    def header(self, index: int) -> tuple[tuple[int, int], str]:
        return header(io.BytesIO(self.read(index)), name=self.path(index))

    def digest(self, index: int) -> str:
        return hashlib.sha256(self.read(index)).hexdigest()

    def take(self, indices: np.ndarray) -> PackedIndex:
        part = super().take(indices)
        return PackedIndex(**vars(part), blobs=self.blobs, offsets=self.offsets[indices])


@dataclass(frozen=True)
class Shards:
    """The shards of a dataset: their folder, and the files of the training and of the test split."""

    base: Path
    train: tuple[Path, ...]
    test: tuple[Path, ...]

    @property
    def format(self) -> str:
        """``parquet``, ``arrow`` or ``tar``."""
        return self.train[0].suffix[1:]


@dataclass(frozen=True)
class Rows:
    """The images of one shard, in its order.

    Attributes:
        blob: the file that holds their bytes.
        labels: int64, or text (WordNet ids, class names; empty where the shard does not say).
    """

    blob: str
    names: Names
    labels: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray


def find_shards(places: Sequence[Path]) -> Shards | None:
    """The first of the folders (or of those that Hugging Face puts inside) with shards of both splits, or None."""
    for place in places:
        if is_saved(place):
            parts = {part: tuple(sorted((place / part).glob("*.arrow"))) for part in ("train", *TEST_PARTS)}
            test = next((parts[part] for part in TEST_PARTS if parts[part]), ())
            if not parts["train"] or not test:
                raise DataError(
                    f"saved parts: {', '.join(part for part, files in parts.items() if files) or 'none'}",
                    where=str(place),
                    allowed="train/*.arrow and validation/*.arrow (or valid/, val/, test/)",
                    hint="save both parts: DatasetDict({'train': …, 'test': …}).save_to_disk(…)",
                )
            return Shards(place, parts["train"], test)
        for inner in INNER:
            base = place / inner if inner else place
            for suffix in SUFFIXES:
                parts = _parts(base, suffix) if base.is_dir() else {}
                test = next((parts[p] for p in TEST_PARTS if p in parts), None)
                if "train" in parts and test:
                    return Shards(base, tuple(parts["train"]), tuple(test))
    return None


def unsplit_shards(place: Path) -> tuple[Path, ...]:
    """The shards of a folder with one part only, or none: a `datasets.Dataset` on disk, parquet files or tars without a
    test part.
    """
    if (place / "state.json").is_file():
        return tuple(sorted(place.glob("*.arrow")))
    for inner in INNER:
        base = place / inner if inner else place
        for suffix in SUFFIXES:
            files = [f for f in sorted(base.glob(f"*{suffix}")) if f.is_file() and not f.name.startswith(".")]
            named = [f for f in files if _PART.search(f.name.lower())]
            parts = _parts(base, suffix) if named else {}
            if files and (not named or (set(parts) == {"train"} and len(parts["train"]) == len(files))):
                return tuple(files)
    return ()


def is_saved(place: Path) -> bool:
    """Whether `datasets.DatasetDict.save_to_disk` wrote this folder."""
    return (place / "dataset_dict.json").is_file()


def _parts(base: Path, suffix: str) -> dict[str, list[Path]]:
    parts: dict[str, list[Path]] = {}
    for file in sorted(base.glob(f"*{suffix}")):
        named = _PART.search(file.name.lower()) if file.is_file() else None  # opening a FIFO would wait for ever
        if named and not file.name.startswith(".") and "_t3" not in file.name:  # ILSVRC2012_img_train_t3: task 3
            parts.setdefault(named.group(1), []).append(file)
    return parts


def read_index(
    files: Sequence[Path],
    label_of: Callable[[Sequence[Any], Names], np.ndarray],
    rename: Callable[[str], str] = str,
    in_order: bool = False,
) -> PackedIndex:
    """The index of one split.

    Args:
        label_of: from the labels of all rows (whole numbers or texts) and their names to int64 positions in the class
            order; rows with -1 are left out.
        rename: the name that an image has in the original folders.
        in_order: keep the order of the rows; else that of label and name, as in folders.

    Raises:
        DataError: a shard is missing, truncated, or has no images and labels; says what is there.
        MissingError: pyarrow is not installed.
    """
    _complete(files)
    with Progress(len(files), f"listing {files[0].parent}", "shards") as bar, ThreadPoolExecutor(2) as pool:
        shards = []
        for rows in pool.map(_rows, files):
            shards.append(rows)
            bar.update()
    names = Names.join([rows.names for rows in shards])
    labels = label_of(np.concatenate([rows.labels for rows in shards]), names)
    counts = [len(rows.names) for rows in shards]
    stamps = np.array([os.stat(file).st_mtime_ns for file in files], np.int64)
    shard = np.repeat(np.arange(len(files), dtype=np.int32), counts)
    renamed = [rename(names[i]) for i in range(len(names))]
    index = PackedIndex(
        files[0].parent,
        tuple(file.name for file in files),
        shard,
        labels,
        Names.of(renamed),
        np.concatenate([rows.sizes for rows in shards]),
        stamps[shard],
        blobs=tuple(rows.blob for rows in shards),
        offsets=np.concatenate([rows.offsets for rows in shards]),
    )
    order = np.arange(len(index)) if in_order else sorted(range(len(index)), key=lambda i: (labels[i], renamed[i]))
    order = np.asarray(order, dtype=np.int64)
    return index.take(order[labels[order] >= 0])


def numbered(classes: int, where: Path) -> Callable[[Sequence[Any], Names], np.ndarray]:
    """A ``label_of`` for labels that are positions in the class order already; checks that each class is there."""

    def label_of(labels: Sequence[Any], names: Names) -> np.ndarray:
        array = np.asarray(labels)
        if array.dtype.kind not in "iu":
            raise DataError(
                f"labels like {str(array[0])!r}", where=str(where), allowed=f"whole numbers 0 to {classes - 1}"
            )
        found = np.unique(array)
        if not np.array_equal(found, np.arange(classes)):
            raise DataError(
                f"labels {found.min()} to {found.max()}, {len(found)} different ones",
                where=str(where),
                allowed=f"0 to {classes - 1}, each at least once",
                hint="another dataset, a part of one, or a test split without labels lies there",
            )
        return array.astype(np.int64)

    return label_of


def label_names(file: Path) -> list[str]:
    """The class names that `datasets` wrote into a parquet file's metadata; empty where it wrote none."""
    if file.suffix not in COPIED:
        return []
    with _table(file) as (schema, _):
        column = _columns(schema, file)[1]
        metadata = schema.metadata or {}
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        feature = parse_json(metadata[b"huggingface"])["info"]["features"][column]
        return [str(name) for name in feature.get("names") or []]
    return []


def _complete(files: Sequence[Path]) -> None:
    """Refuse a split of which shards are missing (``train-00003-of-00294.parquet``, ``imagenet1k-train-0007.tar``)."""
    told = [found for file in files if (found := _OF.search(file.stem) or _NUMBER.search(file.stem))]
    if len(told) != len(files):
        return
    numbers = [int(found.group(1)) for found in told]
    total = int(told[0].group(2)) if told[0].re is _OF else max(numbers) + 1
    absent = sorted(set(range(total)) - set(numbers))
    if absent:
        raise DataError(
            f"{len(absent)} of {total} shards are missing: {some(absent)}",
            where=str(files[0].parent),
            allowed=f"files like {files[0].name}, numbered 0 to {total - 1}",
            hint="get the missing files",
        )


def _rows(file: Path) -> Rows:
    """The images of one shard; remembered in the store by path, size and modification time."""
    stat = os.stat(file)
    key = digest_of(["shard 1", str(file.resolve()), stat.st_size, stat.st_mtime_ns])
    folder = default_cache() / "external" / "shards"
    table, copy = folder / f"{key}.npz", folder / f"{key}.bin"
    blob = copy if file.suffix in COPIED else file
    with contextlib.suppress(OSError, ValueError, KeyError), np.load(table, allow_pickle=False) as data:
        names = Names(data["block"].tobytes(), data["ends"])
        if int((data["offsets"] + data["sizes"]).max()) <= os.stat(blob).st_size:
            return Rows(str(blob), names, data["labels"], data["offsets"], data["sizes"])
    with readable(folder):
        folder.mkdir(parents=True, exist_ok=True)
    found = list(_unpacked(file, copy) if file.suffix in COPIED else _members(file))
    if not found:
        raise DataError("holds no image with a class", where=str(file), allowed="images with labels; " + LAYOUT)
    names, labels, offsets, sizes = zip(*found)
    rows = Rows(str(blob), Names.of(names), np.array(labels), np.array(offsets, np.int64), np.array(sizes, np.int64))
    arrays = {"block": np.frombuffer(rows.names.block, np.uint8), "ends": rows.names.ends, "labels": rows.labels}
    temporary = table.with_name(f".{uuid.uuid4().hex}.npz")
    with contextlib.suppress(OSError):  # remembering is a convenience
        np.savez(temporary, **arrays, offsets=rows.offsets, sizes=rows.sizes)
        os.replace(temporary, table)
    return rows


Row = tuple[str, Any, int, int]  # name, label, offset, size


# -- parquet ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _table(file: Path) -> Iterator[tuple[Any, Callable[[list[str]], Iterator[Any]]]]:
    """(schema, parts) of an open parquet file or Arrow stream; ``parts(columns)`` reads some rows at a time.

    What pyarrow raises becomes a `DataError` that names the file.
    """
    kind = file.suffix[1:]
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingError(
            f"reading {kind} files needs the package pyarrow", where=str(file), hint="pip install 'ddbench[hf]'"
        ) from error
    try:
        if kind == "arrow":
            with open_regular(file, links=True) as opened:
                reader = pyarrow.ipc.open_stream(opened)
                yield reader.schema, lambda columns: (batch.select(columns) for batch in reader)
                opened.seek(-len(ARROW_END), os.SEEK_END)
                if opened.read() != ARROW_END:
                    raise pyarrow.ArrowInvalid("it has no end: the file is cut off")
        else:
            open_regular(file, links=True).close()  # pyarrow would wait for a FIFO
            with pyarrow.parquet.ParquetFile(file) as table:
                yield (
                    table.schema_arrow,
                    lambda columns: table.iter_batches(_batch(table, columns, file), columns=columns),
                )
    except (pyarrow.ArrowException, OSError, MemoryError, OverflowError) as error:
        ends = "begins and ends with the letters PAR1" if kind == "parquet" else "ends with its end mark"
        raise DataError(
            f"cannot be read as {kind}: {str(error).strip().splitlines()[0][:200]}",
            where=str(file),
            allowed=f"a whole {kind} file (it {ends})",
            hint="get the file again: an interrupted download looks like this",
        ) from error


def _batch(table: Any, columns: list[str], file: Path) -> int:
    """How many rows of a parquet file are read at a time, so that they fit into memory however they are compressed.

    A row is no larger than its row group's pages; in one group, many rows may be the same bytes of a dictionary.

    Raises:
        DataError: a row group does not fit.
    """
    groups = [table.metadata.row_group(g) for g in range(table.num_row_groups)]
    parts = [g.column(c) for g in groups for c in range(g.num_columns)]
    sizes = [part.total_uncompressed_size for part in parts if part.path_in_schema.split(".")[0] in columns]
    largest = max(sizes, default=0)
    check_memory(2 * largest, "the pages of a row group", file)
    return int(min(ROWS, max(1, available_memory() // 4 // max(1, largest))))


def number_columns(file: Path) -> list[str]:
    """Columns of lists or of fractional numbers beside images and labels, such as stored soft labels."""
    import pyarrow

    with _table(file) as (schema, _):
        known = _columns(schema, file)
        kinds = {field.name: field.type for field in schema if field.name not in known}
        lists = (pyarrow.types.is_list, pyarrow.types.is_large_list, pyarrow.types.is_fixed_size_list)
        return [
            n for n, kind in kinds.items() if any(is_list(kind) for is_list in lists) or pyarrow.types.is_floating(kind)
        ]


def _columns(schema: Any, file: Path) -> tuple[str, str]:
    """The names of the columns with the images and with the labels."""
    image = next((name for name in IMAGE_COLUMNS if name in schema.names), "")
    label = next((name for name in LABEL_COLUMNS if name in schema.names), "")
    if not image or not label:
        raise DataError(
            f"columns {', '.join(schema.names)}",
            where=str(file),
            allowed=f"an image column ({', '.join(IMAGE_COLUMNS)}) and a label column ({', '.join(LABEL_COLUMNS)})",
            hint="rename the columns",
        )
    return image, label


def _unpacked(file: Path, target: Path) -> Iterator[Row]:
    """Copy the images of a parquet or Arrow file one after the other into ``target``, some rows at a time."""
    with _table(file) as (schema, parts):
        image, label = _columns(schema, file)
        free, need = shutil.disk_usage(target.parent).free, os.stat(file).st_size
        if free < 1.05 * need:
            raise DataError(
                f"the images of {file.name} take {need / 1e9:.1f} GB in the store, {free / 1e9:.1f} GB are free",
                where=str(target.parent),
                hint="set DDBENCH_CACHE to a folder on a larger disk",
            )
        most = int(min(0.95 * free, max(UNPACKED * need, SMALL)))
        temporary, rows, offset = target.with_name(f".{uuid.uuid4().hex}.bin"), [], 0
        try:
            with open(temporary, "wb") as out:
                for part in parts([image, label]):
                    for value, number in zip(part.column(image).to_pylist(), part.column(label).to_pylist()):
                        data, name = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, "")
                        if not isinstance(data, bytes) or number is None:
                            raise DataError(
                                f"row {len(rows)}: {image} is {type(data).__name__}, {label} {number!r}",
                                where=str(file),
                                allowed="image bytes (or a struct of bytes and path) and a label in every row",
                            )
                        if offset + len(data) > most:
                            raise DataError(
                                f"unpacks to more than {most / 1e9:.1f} GB, from {need / 1e9:.3f} GB",
                                where=str(file),
                                allowed=f"images of at most {UNPACKED} times the file, on a disk with room for them",
                            )
                        out.write(data)
                        rows.append((os.path.basename(name or "") or f"row{len(rows):08d}", number, offset, len(data)))
                        offset += len(data)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    yield from rows


# -- tars ------------------------------------------------------------------------------------------------------------


def _members(file: Path) -> Iterator[Row]:
    """The images of a tar: webdataset's ``KEY.jpg`` with ``KEY.cls``, or ImageNet's own (tars of classes, or flat)."""
    try:
        with tarfile.open(file, "r:") as tar:
            yield from _images(tar, 0, "", file)
    except (tarfile.TarError, EOFError, OSError, ValueError, MemoryError, OverflowError) as error:
        raise DataError(
            f"cannot be read as a tar: {error}",
            where=str(file),
            allowed="a whole, uncompressed tar: images are read at their offsets",
            hint="get the file again, or gunzip it",
        ) from error


def _images(tar: tarfile.TarFile, start: int, label: str, file: Path) -> Iterator[Row]:
    end = os.stat(file).st_size
    images, numbers = {}, {}
    for member in tar:
        name = os.path.basename(member.name)
        key, dot, suffix = name.partition(".")
        if not member.isreg() or not key:
            continue
        if start + member.offset_data + member.size > end:
            raise tarfile.ReadError(f"it ends inside {name}")
        if suffix.lower() == "tar":  # ILSVRC2012_img_train.tar holds a tar of each class
            if label:
                raise tarfile.ReadError(f"a tar in a tar in a tar: {name} in {label}")
            with tarfile.open(fileobj=tar.extractfile(member), mode="r:") as inner:
                yield from _images(inner, start + member.offset_data, key, file)
        elif suffix.lower() == "cls":
            numbers[key] = int(tar.extractfile(member).read(32))
        elif f".{suffix}".lower().endswith(EXTENSIONS):
            images[key] = (name, start + member.offset_data, member.size)
    tar.fileobj.seek(tar.offset)
    if any(tar.fileobj.read(512)) or tar.fileobj.tell() != tar.offset + 512:  # a tar ends with blocks of zeros
        raise tarfile.ReadError("it has no end: the file is cut off")
    if numbers and (set(numbers) ^ set(images)):
        odd = sorted(set(numbers) ^ set(images))
        raise DataError(f"{len(odd)} image(s) without .cls or the reverse: {some(odd, 3)}", where=str(file))
    for key, (name, offset, size) in images.items():
        yield name, numbers[key] if numbers else label, offset, size
