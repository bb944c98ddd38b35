"""Locks that end with their holder: `flock`, and a heartbeat for file systems that keep a dead host's locks.

The kernel frees a `flock` when its process ends; on NFS (where Linux makes it a lock of the server) also when the
server's lease on a dead client runs out. Where it does not, because a host vanished from an NFSv3 server, the heartbeat
does: a holder touches its lock every `BEAT_SECONDS`, and who sees the same time stamp for `LEASE_SECONDS` *of its own
monotonic clock* takes the lock over. Clocks of two hosts are never compared. On the holder's own host, and in its
namespace of process ids (containers may share a host's name), only the kernel decides. A take-over from a holder that
was merely frozen repeats work and harms nothing: results are published whole.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import platform
import signal
import threading
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO

from benchmark.core.errors import JobError

BEAT_SECONDS = 20.0
LEASE_SECONDS = 300.0

_beaten: dict[str, Path] = {}  # what the beating thread touches
_beater: threading.Thread | None = None
_guard = threading.Lock()
_seen: dict[str, tuple[int, float]] = {}  # busy locks of others: (time stamp, when it was first seen)


@lru_cache(maxsize=1)
def host() -> str:
    """Where a process id means this process: the host's name, and the namespace of process ids where there is one.

    Two containers may have one name and see only their own processes.
    """
    try:
        namespace = os.readlink("/proc/self/ns/pid")  # pid:[4026531836]
    except OSError:
        return platform.node()
    return f"{platform.node()}.{namespace.strip('pid:[]')}"


def try_lock(path: Path) -> IO | None:
    """The open lock file, held until :func:`release` or the end of this process; None where another holds it.

    Raises:
        JobError: the file system has no locks.
    """
    while True:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - open while the lock is held
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            if not _take_over(path):
                return None
        except OSError as error:
            file.close()
            if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise JobError(
                    f"this file system has no locks: {error.strerror}",
                    where=str(path.parent),
                    hint="mount it with flock (Lustre) or with locks (NFS), or set DDBENCH_CACHE to a local disk",
                ) from error
            raise
        else:
            if _is_at(file, path):
                with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
                    os.ftruncate(file.fileno(), 0)
                    os.write(file.fileno(), f"{host()} {os.getpid()}".encode())
                keep_fresh(path)
                _seen.pop(str(path), None)
                return file
            file.close()  # its last holder removed it between our open and our lock


def release(file: IO, path: Path) -> None:
    """Free the lock and remove its file."""
    forget(path)
    if _is_at(file, path):
        with contextlib.suppress(OSError):
            path.unlink()
    file.close()


def _is_at(file: IO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _take_over(path: Path) -> bool:
    """Remove a lock whose holder, on another host, has been silent for the lease; whether it is gone."""
    try:
        stamp, holder = path.stat().st_mtime_ns, path.read_text(encoding="utf-8").split()
    except FileNotFoundError:
        return True
    known, since = _seen.get(str(path), (None, 0.0))
    if known != stamp or holder[:1] == [host()]:
        _seen[str(path)] = stamp, time.monotonic()
        return False
    if time.monotonic() - since < LEASE_SECONDS:
        return False
    with open(path.with_name("takeover"), "a", encoding="utf-8") as turn:  # one at a time: nobody removes a fresh one
        try:
            fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.stat().st_mtime_ns == stamp:
                path.unlink()
        except (BlockingIOError, FileNotFoundError):
            return False
    return True


# -- heartbeats --------------------------------------------------------------------------------------------------------


def keep_fresh(path: Path) -> None:
    """Touch ``path`` every `BEAT_SECONDS` from now on."""
    global _beater
    with _guard:
        _beaten[str(path)] = path
        if _beater is None or not _beater.is_alive():
            _beater = threading.Thread(target=_beat, daemon=True)
            _beater.start()


def forget(path: Path) -> None:
    """End :func:`keep_fresh`."""
    with _guard:
        _beaten.pop(str(path), None)


def _beat() -> None:
    while True:
        time.sleep(BEAT_SECONDS)
        with _guard:
            for path in _beaten.values():
                with contextlib.suppress(OSError):
                    os.utime(path)  # without a time: the file server's own


def is_fresh(path: Path, of: str, pid: int, seconds: float = 3 * BEAT_SECONDS) -> bool:
    """Whether the process that keeps ``path`` fresh lives: asked of the kernel where it sees the process (``of`` is
    this :func:`host`), else of the file, which must have been touched in the last ``seconds``."""
    if of == host():
        return Path(f"/proc/{pid}").exists() if Path("/proc/self").exists() else _signals(pid)
    probe = path.with_name(f".now-{host()}-{os.getpid()}")
    try:
        probe.touch()
        now = probe.stat().st_mtime  # by the file server's clock, like the time stamp that it is compared with
        probe.unlink()
        return now - path.stat().st_mtime < seconds
    except OSError:
        return path.exists()


def _signals(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@contextlib.contextmanager
def finish_writing() -> Iterator[None]:
    """Put a first Ctrl-C (or SIGTERM, where it unwinds) off until the block is through; a second one stops at once."""
    kinds = [k for k in (signal.SIGINT, signal.SIGTERM) if callable(signal.getsignal(k))]
    if threading.current_thread() is not threading.main_thread() or not kinds:
        yield
        return
    before = {kind: signal.getsignal(kind) for kind in kinds}
    asked: list[int] = []

    def later(number: int, frame) -> None:
        if asked:
            before[number](number, frame)
        asked.append(number)

    for kind in kinds:
        signal.signal(kind, later)
    try:
        yield
    finally:
        for kind in kinds:
            signal.signal(kind, before[kind])
    if asked:
        raise KeyboardInterrupt
