"""Compressed files from elsewhere: what they hold is bounded before it is unpacked.

A few bytes may unpack to terabytes, and a header may declare any size. `check_zip` adds up what a zip declares
(Python's and PyTorch's readers give no more than that), `read_npz` also compares each array's header with it,
`gunzip` and `read_member` stop at the size that is expected.
"""

from __future__ import annotations

import gzip
import math
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from benchmark.core.cost import available_memory
from benchmark.core.errors import DataError
from benchmark.core.foreign import open_regular


def check_memory(need: int, what: str, where: Path | str) -> None:
    """Refuse what does not fit into the main memory that is free.

    Args:
        need: bytes.
        what: for the message: ``the arrays``.

    Raises:
        DataError: says both.
    """
    free = available_memory()
    if need > free:
        raise DataError(
            f"{what} take {need / 1e9:,.1f} GB, {free / 1e9:.1f} GB are free",
            where=str(where),
            allowed="what fits into memory",
        )


def check_zip(file: IO[bytes], where: Path | str) -> None:
    """Refuse a zip (``.npz``, ``.pt``) whose members are larger in all than the free memory; other files pass.

    Raises:
        DataError: too large. zipfile.BadZipFile: damaged.
    """
    start = file.read(4)
    file.seek(0)
    if start == b"PK\x03\x04":
        with zipfile.ZipFile(file) as archive:
            check_memory(sum(member.file_size for member in archive.infolist()), "its members", where)
        file.seek(0)


def read_npz(path: Path, names: Sequence[Sequence[str]] = ()) -> dict[str, np.ndarray]:
    """The arrays of an npz file: those of the first of ``names`` that is there, or all.

    Raises:
        DataError: damaged, objects in the place of numbers, none of ``names``, or larger than the memory that is free.
        OSError: not there, no permission.
    """
    try:
        with open_regular(path, links=True) as opened:
            check_zip(opened, path)
            with zipfile.ZipFile(opened) as archive, np.load(opened, allow_pickle=False) as data:
                chosen = next((n for n in names if set(n) <= set(data.files)), None if names else data.files)
                if chosen is None:
                    raise DataError(f"arrays {', '.join(data.files[:8])}", where=str(path))
                sizes = {member.filename: member.file_size for member in archive.infolist()}
                for name in chosen:
                    _check_header(archive, f"{name}.npy" if f"{name}.npy" in sizes else name, sizes)
                return {name: data[name] for name in chosen}
    except (DataError, OSError):
        raise
    except Exception as error:  # noqa: BLE001 - a damaged zip raises a dozen kinds: zlib's, struct's, MemoryError …
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise DataError(f"cannot be read as npz: {reason}", where=str(path), hint="get the file again") from error


def _check_header(archive: zipfile.ZipFile, name: str, sizes: dict[str, int]) -> None:
    """Compare the shape in an array's header with the bytes that follow it: numpy makes the array before it reads them.

    Raises:
        ValueError: they differ, or it is no array of numbers.
    """
    with archive.open(name) as member:
        version = np.lib.format.read_magic(member)
        reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        if reader is None:
            raise ValueError(f"{name}: version {version} of numpy's format")
        shape, _, dtype = reader(member)
        if dtype.hasobject:
            raise ValueError(f"{name}: objects, not numbers")
        need, held = math.prod(shape) * dtype.itemsize, sizes[name] - member.tell()
    if need != held:
        raise ValueError(f"{name}: its header says {list(shape)} {dtype}, {need:,} bytes, and {held:,} follow")


def gunzip(path: Path, most: int) -> bytes:
    """The content of a gzip file of at most ``most`` bytes unpacked.

    Raises:
        DataError: damaged, or more.
    """
    try:
        with open_regular(path, links=True) as opened, gzip.open(opened) as file:
            content = file.read(most + 1)
    except (OSError, EOFError, zlib.error, MemoryError) as error:
        raise DataError(f"cannot be read as gzip: {error}", where=str(path), hint="get the file again") from error
    if len(content) > most:
        raise DataError(
            "holds more than it should", where=str(path), allowed=f"{most:,} bytes", hint="get the file again"
        )
    return content


def read_member(tar: tarfile.TarFile, name: str, most: int) -> bytes:
    """A file in a tar, of at most ``most`` bytes.

    Raises:
        tarfile.ReadError: it is not there, no plain file, or larger.
    """
    try:
        member: Any = tar.getmember(name)
    except KeyError:
        raise tarfile.ReadError(f"no {name} in it") from None
    file = tar.extractfile(member) if member.isreg() else None
    if file is None or member.size > most:
        raise tarfile.ReadError(f"{name}: {member.size:,} bytes, or no plain file; at most {most:,} were expected")
    return file.read(most)
