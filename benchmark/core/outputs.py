"""Files and folders that a user asked for by an option: written whole or not at all, one message where that fails.

Every file that a user names is written by `whole_file` (or `write_text` on it). It treats the path as ``cp`` and an
editor do: links are followed, devices and FIFOs are written to and never replaced, an existing file keeps its mode,
owner and hard links. `replacing` is the part below it, for files that ddbench names itself.

A path that cannot be written is the option's fault: a `UsageError` (exit code 2). A full disk is not: a `JobError`.
Missing parent folders are made.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from benchmark.core.errors import JobError, UsageError
from benchmark.core.foreign import inside

FULL = (errno.ENOSPC, errno.EDQUOT)
READER_SECONDS = 10.0  # how long to wait for somebody to read from a FIFO
_DESCRIPTOR = re.compile(r"/dev/(stdout|stderr)|(?:/dev|/proc/self)/fd/(\d+)")


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


def expanded(path: Path | str, option: str) -> Path:
    """The path with ``~`` and ``~user`` replaced.

    Raises:
        UsageError: there is no such user, or no home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UsageError(
            f"{path}: {str(error).lower().rstrip('.')}",
            where=option,
            allowed="a path, or ~ where HOME is set",
            hint=f"give the whole path with {option}",
        ) from error


# -- one file --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = False, like: os.stat_result | None = None) -> Iterator[Path]:
    """A temporary path beside ``path``, of the same suffix, that takes its place where nothing was raised.

    A link at ``path`` is replaced, not followed. The temporary file is removed where something was raised.

    Args:
        durable: the file is on the disk, not only in the kernel's memory, before it takes the place, and the folder's
            entry after: a power loss leaves the old file or the new one.
        like: mode and owner to give to the file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem[:100]}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp{path.suffix[:20]}")
    try:
        yield temporary
        if like is not None:
            if (like.st_uid, like.st_gid) != (os.geteuid(), os.getegid()):
                os.chown(temporary, like.st_uid, like.st_gid)
            os.chmod(temporary, stat.S_IMODE(like.st_mode))
        if durable:
            sync(temporary)
        os.replace(temporary, path)
        if durable:
            sync(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Wait until the file, or the folder's list of entries, is on the disk; nothing where the file system cannot."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in (*FULL, errno.EIO):
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def whole_file(path: Path | str, option: str, *, within: Path | None = None) -> Iterator[Path]:
    """A temporary path of the same suffix to write to; its content goes to ``path`` where nothing was raised.

    A regular file (at the end of links) is replaced in one step and keeps its mode and owner; one with several hard
    links, or in a folder that cannot be written, is overwritten in place, and restored if that fails. A device, a FIFO
    or an open descriptor (``/dev/stdout``) is written to.

    Args:
        within: a folder that the file must lie in, and that no link may lead out of: for files that the user did not
            name, in a folder that may be somebody else's.

    Raises:
        UsageError: ``path`` is a folder, a FIFO that nobody reads, or cannot be written.
        JobError: the disk is full.
    """
    path = Path(os.path.abspath(path))
    if within is not None:
        inside(within, os.path.relpath(path, os.path.abspath(within)), where=option)
    with writing(path, option):
        if path.is_dir():
            raise UsageError(f"{path} is a folder, not a file", where=option, hint=f"name a file with {option}")
        state = _state(path)
        if _DESCRIPTOR.fullmatch(str(path)) or (state is not None and not stat.S_ISREG(state.st_mode)):
            with _elsewhere(path) as temporary:
                yield temporary
                _pour(temporary, path, option)
            return
        real = Path(os.path.realpath(path))
        if state is not None and not _replaceable(real, state):
            with _elsewhere(path) as temporary:
                yield temporary
                _overwrite(temporary, real)
            return
        with replacing(real, like=state) as temporary:
            yield temporary


def _state(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _replaceable(path: Path, state: os.stat_result) -> bool:
    """Whether another file can take the place of a regular one and nobody sees a difference."""
    try:
        if path.parent.stat().st_dev != state.st_dev:
            return False  # a file that is mounted by itself, as containers do
        ours = os.geteuid() in (0, state.st_uid) and (os.geteuid() == 0 or state.st_gid in os.getgroups())
        return state.st_nlink == 1 and ours and os.access(path.parent, os.W_OK | os.X_OK, effective_ids=True)
    except OSError:
        return True  # the attempt will say what is wrong


@contextlib.contextmanager
def _elsewhere(path: Path) -> Iterator[Path]:
    """A path for a temporary file that need not lie beside ``path``."""
    with tempfile.TemporaryDirectory(prefix="ddbench-") as folder:
        yield Path(folder) / f"out{path.suffix[:20]}"


def _pour(source: Path, path: Path, option: str) -> None:
    """Write to what is there: a device, a FIFO (waiting a moment for its reader), an open descriptor of this process
    (where it stands: what was printed before comes before)."""
    own = _DESCRIPTOR.fullmatch(str(path))
    if own:
        sys.stdout.flush()
        descriptor = os.dup(int(own[2]) if own[2] else {"stdout": 1, "stderr": 2}[own[1]])
    else:
        descriptor = _open_for_writing(path, option)
    with open(descriptor, "wb") as target, open(source, "rb") as file:
        shutil.copyfileobj(file, target)


def _open_for_writing(path: Path, option: str) -> int:
    end = time.monotonic() + READER_SECONDS
    while True:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY)
            break
        except OSError as error:
            if error.errno != errno.ENXIO or not stat.S_ISFIFO(path.stat().st_mode):
                raise
            if time.monotonic() > end:
                raise UsageError(
                    f"nobody reads from the FIFO {path}",
                    where=option,
                    hint=f"start its reader first (cat {path}), or name a file",
                ) from error
            time.sleep(0.05)
    os.set_blocking(descriptor, True)
    return descriptor


def _overwrite(source: Path, path: Path) -> None:
    """Give the file another content in place; its old content comes back where that fails (a full disk)."""
    content = source.read_bytes()
    with open(path, "r+b") as target:
        old = target.read()
        try:
            if len(content) > len(old):
                _extend(target.fileno(), len(old), len(content))
            _put(target, content)
        except BaseException:
            with contextlib.suppress(OSError):
                _put(target, old)
            raise


def _extend(descriptor: int, old: int, new: int) -> None:
    """Take the room on the disk first, so that a full one changes nothing."""
    try:
        os.posix_fallocate(descriptor, old, new - old)
    except OSError as error:
        if error.errno in FULL:
            raise


def _put(target, content: bytes) -> None:
    target.seek(0)
    target.write(content)
    target.flush()
    target.truncate(len(content))
    os.fsync(target.fileno())


def write_text(text: str, path: Path | str, option: str = "--results", *, within: Path | None = None) -> Path:
    """Write a text file by `whole_file`: in UTF-8 whatever the locale, line ends as they are in ``text``."""
    content = text.encode("utf-8", "backslashreplace")  # a lone surrogate is no text: shown, not fatal
    with whole_file(path, option, within=within) as temporary:
        temporary.write_bytes(content)
    return Path(path)


# -- folders ---------------------------------------------------------------------------------------------------------


def writable_folder(path: Path | str, option: str) -> Path:
    """The folder, made where it is missing; to be called before long work whose results go there.

    Raises:
        UsageError: the name is empty, it is a file, or nothing can be written in it.
    """
    if not str(path) or (isinstance(path, str) and not path.strip()):
        raise UsageError("the name of the folder is empty", where=option, hint=f"name a folder with {option}, e.g. .")
    path = Path(path)
    with writing(path, option):
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} is a file, not a folder", where=option, hint=f"name a folder with {option}")
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

    A link to an empty folder is followed. The files at its top (manifests, checksums) are on the disk before it becomes
    ``path``; images below it are not waited for, one by one: what a power loss took of them, their digests show.

    Raises:
        UsageError: ``path`` is a file, holds something, or cannot be written.
    """
    path = Path(os.path.realpath(new_folder(path, option)))
    with writing(path, option):
        _sweep(path)
        temporary = path.with_name(f".{path.name[:100]}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
        temporary.mkdir()
        try:
            yield temporary
            for entry in temporary.iterdir():
                if entry.is_file():
                    sync(entry)
            sync(temporary)
            if path.is_dir():
                os.chmod(temporary, stat.S_IMODE(path.stat().st_mode))
            os.replace(temporary, path)  # over an empty folder too
            sync(path.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def _sweep(path: Path) -> None:
    """Remove what a killed process left of the same folder: temporary folders whose process is gone."""
    pattern = re.compile(re.escape(f".{path.name[:100]}.") + r"(\d+)-[0-9a-f]{8}\.tmp")
    for entry in os.scandir(path.parent):
        found = pattern.fullmatch(entry.name)
        if found and entry.is_dir(follow_symlinks=False) and not Path(f"/proc/{found[1]}").exists():
            shutil.rmtree(entry.path, ignore_errors=True)


def sync_tree(folder: Path) -> None:
    """`sync` every file and folder below ``folder``."""
    for root, _, names in os.walk(folder):
        for name in names:
            sync(Path(root) / name)
        sync(Path(root))
