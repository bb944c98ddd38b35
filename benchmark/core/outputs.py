"""Files and folders that a user asked for by an option: written whole or not at all, one message where that fails.

A path that cannot be written is the option's fault: a `UsageError` (exit code 2). A full disk is not: a `JobError`.
Missing parent folders are made.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from benchmark.core.errors import JobError, UsageError

FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def writing(path: Path | str, option: str) -> Iterator[None]:
    """Turn an `OSError` inside into what is wrong, with which option, what is allowed and what to do.

    Raises:
        UsageError: the path cannot be written (no permission, read-only, a pseudo file system, a file on the way).
        JobError: the disk is full.
    """
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        if error.errno in FULL:
            raise JobError(
                f"cannot write {path}: {reason}", where=option, hint="free space there and repeat the command"
            ) from error
        raise UsageError(
            f"cannot write {path}: {reason}",
            where=f"{option} {path}" + (f" ({error.filename})" if _differs(error.filename, path) else ""),
            allowed="a path whose folder this user can write, or can make",
            hint=f"name another path with {option}",
        ) from error


def _differs(name: object, path: Path | str) -> bool:
    """Whether an error names a file that helps: one on the way to ``path``, not a temporary beside it."""
    return isinstance(name, str) and Path(name) in Path(os.path.abspath(path)).parents


@contextlib.contextmanager
def whole_file(path: Path | str, option: str) -> Iterator[Path]:
    """A temporary path of the same suffix to write to; it becomes ``path`` where nothing was raised.

    Raises:
        UsageError: ``path`` is a folder, or cannot be written.
    """
    path = Path(os.path.abspath(path))
    if path.is_dir():
        raise UsageError(f"{path} is a folder, not a file", where=option, hint=f"name a file with {option}")
    temporary = path.with_name(f".{path.stem}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp{path.suffix}")
    with writing(path, option):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


def write_text(text: str, path: Path | str, option: str = "--results") -> Path:
    """Write a text file whole or not at all, with ``\\n`` line ends."""
    with whole_file(path, option) as temporary:
        temporary.write_bytes(text.encode())
    return Path(path)


def writable_folder(path: Path | str, option: str) -> Path:
    """The folder, made where it is missing; to be called before long work whose results go there.

    Raises:
        UsageError: it is a file, or nothing can be written in it.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is a file, not a folder", where=option, hint=f"name a folder with {option}")
    with writing(path, option):
        _try(path)
    return path


def _try(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".ddbench-{uuid.uuid4().hex[:8]}"
    probe.touch()
    probe.unlink()


def room_for(path: Path | str, option: str) -> Path:
    """The absolute path, of which the folder is there and can be written: to be called before long work.

    Raises:
        UsageError: nothing can be written there.
    """
    path = Path(os.path.abspath(path))
    with writing(path, option):
        _try(path.parent)
    return path


def new_folder(path: Path | str, option: str) -> Path:
    """`room_for` a folder that is new, or empty until now.

    Raises:
        UsageError: it is a file, holds something, or cannot be made.
    """
    path = Path(os.path.abspath(path))
    with writing(path, option):
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} is a file, not a folder", where=option, hint=f"name a folder with {option}")
        if path.is_dir() and any(path.iterdir()):
            raise UsageError(f"{path} is not empty", where=option, hint="name a new folder, or empty that one")
    return room_for(path, option)


@contextlib.contextmanager
def whole_folder(path: Path | str, option: str) -> Iterator[Path]:
    """A temporary folder to fill; it becomes ``path`` (new, or empty until now) where nothing was raised.

    Raises:
        UsageError: ``path`` is a file, holds something, or cannot be written.
    """
    path = new_folder(path, option)
    with writing(path, option):
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        temporary.mkdir()
        try:
            yield temporary
            os.replace(temporary, path)  # over an empty folder too
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
