"""Tables that name images and their labels: csv, tsv, and JSON lines as Hugging Face writes them."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path

from benchmark.core.errors import DataError
from benchmark.core.foreign import is_odd, open_regular
from benchmark.data.files import readable

SUFFIXES = (".csv", ".tsv", ".jsonl")
FILE_COLUMNS = ("file_name", "filename", "file", "path", "filepath", "file_path", "image_path", "image", "img")
LABEL_COLUMNS = ("label", "labels", "class", "class_name", "class_id", "fine_label", "target", "category")
PART_COLUMNS = ("split", "set", "part", "subset", "fold")
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
