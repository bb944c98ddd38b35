"""Tables that name images and their labels: csv, tsv, and JSON lines as Hugging Face writes them."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmark.core.errors import DataError
from benchmark.core.foreign import is_odd, is_plain_path, open_regular
from benchmark.data.files import THREADS, Index, Names, class_folders, readable, some

SUFFIXES = (".csv", ".tsv", ".jsonl")
FILE_COLUMNS = ("file_name", "filename", "file", "path", "filepath", "file_path", "image_path", "image", "img")
LABEL_COLUMNS = ("label", "labels", "class", "class_name", "class_id", "fine_label", "target", "category")
PART_COLUMNS = ("split", "set", "part", "subset")
METADATA = "metadata"  # Hugging Face's name for the table that comes with a folder of images
BYTES = 1 << 30  # of a table


@dataclass(frozen=True)
class Table:
    """The rows of a table: image files as it names them, labels as text, and the split that each row names (or "")."""

    file: Path
    names: tuple[str, ...]
    labels: tuple[str, ...]
    parts: tuple[str, ...]


def read_table(file: Path) -> Table:
    """The images and labels that a table names.

    Raises:
        DataError: no text or no table, no column of files or of labels, an empty cell, a file named twice.
    """
    with readable(file), open_regular(file, links=True, most=BYTES) as opened:
        data = opened.read()
    try:
        text = data.decode("utf-8-sig")
        if file.suffix.lower() == ".jsonl":
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if file.suffix == ".tsv" else ","))
    except (UnicodeDecodeError, ValueError, csv.Error, RecursionError) as error:
        raise DataError(
            f"cannot be read as a table: {error}", where=str(file), allowed="csv or JSON lines in UTF-8",
            hint="get or write the file again",
        ) from error  # fmt: skip
    first = rows[0] if rows and isinstance(rows[0], dict) else {}
    columns = {str(name).strip().lower(): name for name in first}
    image, label, part = (next((columns[n] for n in known if n in columns), None)
                          for known in (FILE_COLUMNS, LABEL_COLUMNS, PART_COLUMNS))  # fmt: skip
    if image is None or label is None:
        raise DataError(
            f"columns {', '.join(map(str, first)) or 'none'}",
            where=str(file),
            allowed=f"one of files ({', '.join(FILE_COLUMNS)}) and one of labels ({', '.join(LABEL_COLUMNS)})",
            hint="rename the columns",
        )
    names, labels, parts = [], [], []
    for number, row in enumerate(rows, 1):
        values = [row.get(column) if isinstance(row, dict) else None for column in (image, label)]
        if not all(isinstance(v, (str, int)) and not isinstance(v, bool) and str(v).strip() for v in values):
            raise DataError(f"row {number}: {image} {values[0]!r}, {label} {values[1]!r}", where=str(file),
                            allowed="a file and one class in every row")  # fmt: skip
        names.append(str(values[0]).strip())
        labels.append(str(values[1]).strip())
        parts.append(str(row.get(part) or "").strip().lower() if part else "")
        if file.stem == METADATA and not is_plain_path(names[-1]):
            raise DataError(
                f"row {number}: {names[-1]!r} leads out of the folder",
                where=str(file),
                allowed=f"plain relative paths in a {METADATA} file, which comes with its dataset",
                hint="if you trust it, rename it (images.csv): your own tables may name any path",
            )
        if is_odd(names[-1]) or is_odd(labels[-1]):
            raise DataError(f"row {number}: {ascii(names[-1])}, {ascii(labels[-1])}", where=str(file),
                            allowed="printable names")  # fmt: skip
    twice = len(names) - len(set(names))
    if twice:
        seen: set[str] = set()
        again = next(name for name in names if name in seen or seen.add(name))
        raise DataError(f"{twice} file(s) named more than once, e.g. {again!r}", where=str(file))
    return Table(file, tuple(names), tuple(labels), tuple(parts))


def class_order(labels: set[str]) -> list[str]:
    """The classes that labels name, in label order: numbers by value, names sorted."""
    if all(label.isdecimal() for label in labels):
        return sorted(labels, key=int)
    return sorted(labels)


@dataclass(frozen=True)
class Rows:
    """The images that the tables of a dataset name.

    Attributes:
        root: the folder that the names are relative to.
        tables: the tables' names; the first one's path is ``where`` for messages.
        names, labels: of each image.
        parts: the split that its row, else its table's name or folder, says; "" where none does.
    """

    root: Path
    where: str
    tables: tuple[str, ...]
    names: tuple[str, ...]
    labels: tuple[str, ...]
    parts: tuple[str, ...]


def tables_in(base: Path) -> list[Path]:
    """The tables that name a dataset's images.

    They are ``base`` itself; ``metadata.*`` in the folders of its splits (Hugging Face's imagefolder); ``train.csv``
    and ``test.csv``, or the only one, beside its images. Class folders go first: a table beside them describes
    something else, or is named itself.
    """
    if base.is_file() and base.suffix.lower() in SUFFIXES:
        return [base]
    if not base.is_dir():
        return []
    folders = class_folders(base)
    if any(class_folders(base / folder) for folder in folders):
        return []
    inner = [f for folder in folders for f in _tables(base / folder) if f.stem == METADATA]
    if inner:
        return inner
    if sum(not _part(folder) for folder in folders) > 1:
        return []
    found = _tables(base)
    named = [f for f in found if _part(f.stem)]
    chosen = [f for f in found if f.stem == METADATA] or (named if len(named) > 1 else found)
    return chosen if len(chosen) == 1 or chosen == named else []


def _tables(folder: Path) -> list[Path]:
    found = (f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and f.name[0] != ".")
    return sorted(f for f in found if f.is_file())


def _part(text: str) -> str:
    """The split that a name means: the word in it that is one."""
    words = text.lower().replace("-", "_").split("_")
    return next((w for w in words if w in ("train", "training", "val", "valid", "validation", "test", "testing")), "")


def read_rows(tables: Sequence[Path]) -> Rows:
    """The rows of several tables, with names from the first one's folder on (its parent for ``train/metadata.*``).

    Raises:
        DataError: as `read_table`.
    """
    inside = len(tables) > 1 and len({f.parent for f in tables}) > 1
    root = tables[0].parent.parent if inside else tables[0].parent
    names, labels, parts = [], [], []
    for file in tables:
        table = read_table(file)
        prefix = f"{file.parent.name}/" if inside else ""
        names += [name if os.path.isabs(name) else prefix + name for name in table.names]
        labels += table.labels
        told = _part(file.parent.name if inside else file.stem)
        parts += [part or told for part in table.parts]
    shown = tuple(str(file.relative_to(root)) for file in tables)
    return Rows(root, str(tables[0]), shown, tuple(names), tuple(labels), tuple(parts))


def parts_of(
    rows: Rows, train_names: Sequence[str], test_names: Sequence[str]
) -> tuple[list[int], list[int], list[int]] | None:
    """(training rows, test rows, rows of other parts); None where nothing says which images are for testing.

    Raises:
        DataError: some rows say it, others do not; a part of another name.
    """
    folders = [name.replace("\\", "/").partition("/")[0] for name in rows.names]
    known = {*train_names, *test_names}
    parts = [part or (folder if folder in known else "") for part, folder in zip(rows.parts, folders)]
    kinds = sorted(set(parts))
    train = [kind for kind in kinds if kind in train_names]
    test = [name for name in test_names if name in kinds]
    strange = [kind for kind in kinds if kind and kind not in known]
    if strange or ("" in kinds and len(kinds) > 1):
        raise DataError(
            f"parts {some([kind or '(none)' for kind in kinds])}",
            where=rows.where,
            allowed=f"{', '.join(train_names)} and {', '.join(test_names)}, in every row or in none",
        )
    if not train or not test:
        return None
    where = {part: [i for i, p in enumerate(parts) if p == part] for part in kinds}
    rest = [i for part in kinds if part not in (*train, test[0]) for i in where[part]]
    return [i for part in train for i in where[part]], where[test[0]], rest


def index_of(rows: Rows, labels: np.ndarray, chosen: Iterable[int]) -> Index:
    """The index of some of the rows, by class, then by file name, as of class folders.

    Raises:
        DataError: a file is not there; names it and the table.
    """
    rank = [(int(labels[i]), os.path.basename(rows.names[i]), i) for i in chosen]
    order = [i for *_, i in sorted(rank)]
    split = [os.path.split(rows.names[i]) for i in order]
    folders = sorted({folder for folder, _ in split})
    position = {folder: n for n, folder in enumerate(folders)}

    def stat(i: int) -> tuple[int, int] | None:
        try:
            found = os.stat(os.path.join(rows.root, rows.names[i]))
        except OSError:
            return None
        return found.st_size, found.st_mtime_ns

    with ThreadPoolExecutor(THREADS) as pool:
        stats = list(pool.map(stat, order))
    gone = [rows.names[i] for i, found in zip(order, stats) if found is None]
    if gone:
        raise DataError(
            f"{len(gone)} of {len(order)} files are not there: {some(gone, 3)}",
            where=rows.where,
            allowed=f"paths from {rows.root} on, with the file's extension",
            hint="correct the paths, or move the table to where its paths begin",
        )
    sizes, mtimes = (np.array([found[k] for found in stats], np.int64) for k in (0, 1))
    of = np.array([position[folder] for folder, _ in split], np.int32)
    return Index(rows.root, tuple(folders), of, labels[order], Names.of([n for _, n in split]), sizes, mtimes)
