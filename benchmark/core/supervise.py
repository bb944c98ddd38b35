"""A command that runs foreign code cannot end unseen: another process waits for it and says how it ended.

``os._exit`` in a plug-in, or a crash of compiled code, ends a process at once: nothing in it can still speak, and its
exit code may be 0 although nothing was done. `fork` therefore goes on in a child, and the first process only waits. The
child says with `finished` that it ends as ddbench wants it to; any other end is an error.

Where the child says whose code it runs (`asking`) and that code ends it, the command begins again in a new child, in
which that code is not run again: `blamed` says how it ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import mmap
import os
import re
import signal
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from typing import IO

PARENT = "DDBENCH_PARENT"  # environment variable: process id of the driver that started a worker and watches it
CRASHES = ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE")
PASSED_ON = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
BLAMED = "DDBENCH_BLAMED"  # environment variable: JSON of whose code ended the command, and how; workers inherit it
_WHERE = 512  # bytes of the note on who ended the child, and of the note on whose code it was running
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
# shared by both processes: [0] whether the child has finished, then where it called os._exit, then whom it asked
_note: mmap.mmap | None = None


def possible() -> bool:
    """Whether this system can do it (Linux), and no other process watches this one already."""
    return sys.platform == "linux" and not os.environ.get(PARENT)


def fork(whose: str) -> None:
    """Go on in a child; this process waits for it and ends with its exit code, or with 1 and a message.

    Code that was run by `asking` and ended the child is blamed once: the next child goes on without it.

    Args:
        whose: the foreign code that may be at fault, for the message.
    """
    global _note
    signals = {getattr(signal, name) for name in (*PASSED_ON, "SIGCHLD")}
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    parent = os.getpid()
    while True:
        _note = mmap.mmap(-1, 1 + 2 * _WHERE)
        crash = os.fdopen(os.memfd_create("ddbench-crash"), "w+b")
        child = os.fork()
        if not child:
            break
        _leave(_wait(child, signals), crash, whose)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # kill -9 of the first process means both
    if os.getppid() != parent:
        os._exit(1)
    if not faulthandler.is_enabled():
        faulthandler.enable(crash, all_threads=False)
    os._exit = _noted(os._exit, os.getpid())


def finished() -> None:
    """The command has done what it does: its exit code counts."""
    if _note is not None:
        _note[0] = 1


@contextlib.contextmanager
def asking(whom: str) -> Iterator[None]:
    """Note that the code of ``whom`` (``method evil``) is running, so that it is blamed if the process ends."""
    if _note is None:
        yield
        return
    before = _note[1 + _WHERE :]
    _note[1 + _WHERE :] = _padded(whom)
    try:
        yield
    finally:
        _note[1 + _WHERE :] = before


def blamed(whom: str) -> str:
    """How the code of ``whom`` ended the command before; empty where it did not."""
    return _all_blamed().get(whom, "")


def _all_blamed() -> dict[str, str]:
    with contextlib.suppress(ValueError):  # set by somebody else
        found = json.loads(os.environ.get(BLAMED) or "{}")
        return {k: str(v) for k, v in found.items()} if isinstance(found, dict) else {}
    return {}


def _padded(text: str) -> bytes:
    return text.encode("utf-8", "replace")[:_WHERE].ljust(_WHERE, b"\0")


def _noted(leave, process: int):
    """``os._exit`` that first notes who called it."""

    def called(status: int) -> None:
        if os.getpid() == process and _note is not None and not _note[0]:  # not a process that multiprocessing forked
            frame = traceback.extract_stack(limit=2)[0]
            text = f"os._exit({status!r}) in {frame.name}, {frame.filename}:{frame.lineno}"
            _note[1 : 1 + _WHERE] = _padded(text)
        leave(status)

    return called


def _wait(child: int, signals: set[signal.Signals]) -> int:
    """The child's wait status; signals that somebody sends to this process are passed on (those of the terminal reach
    both)."""
    while True:
        found = signal.sigwaitinfo(signals)
        if found.si_signo == signal.SIGCHLD:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                return status
        elif found.si_code <= 0:  # SI_USER and its like; the terminal's are SI_KERNEL
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, found.si_signo)


def _leave(status: int, crash: IO[bytes], whose: str) -> None:
    """End as the child did, or with a message and 1 where it was ended from inside; return where the command is to
    begin again, without the code that ended it."""
    code = os.waitstatus_to_exitcode(status)
    assert _note is not None
    if _note[0] and code >= 0:
        os._exit(code)
    if code < 0 and signal.Signals(-code).name not in CRASHES:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        with contextlib.suppress(OSError):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    crash.seek(0)
    dump = crash.read().decode("utf-8", "replace")
    called, whom = (_note[at : at + _WHERE].rstrip(b"\0").decode("utf-8", "replace") for at in (1, 1 + _WHERE))
    text = f"the command was ended from inside, with exit code {code}"
    if code < 0:
        text, called = f"the command crashed in compiled code: {signal.Signals(-code).name}", _frame(dump)
    again = bool(whom) and whom not in _all_blamed()
    if again:
        how = f"{text.removeprefix('the command ')}: {called}" if code < 0 else called or text
        os.environ[BLAMED] = json.dumps(_all_blamed() | {whom: how})
        lines = [f"ddbench: warning: the {whom} ended the command; it begins again without that: {how}"]
    else:
        lines = [f"ddbench: error: {text}", f"  where:   {called}" if called else ""]
        lines += [
            f"  next:    a fault of {whose}, or of a library below it: do without it, or uninstall it; tell its authors"
        ]
    if os.environ.get("DDBENCH_DEBUG", "") not in ("", "0") or "--debug" in sys.argv:
        lines.insert(0, dump)
    with contextlib.suppress(OSError):
        os.write(2, ("\n".join(line for line in lines if line) + "\n").encode("utf-8", "backslashreplace"))
    if not again:
        os._exit(1)


def _frame(dump: str) -> str:
    """The innermost function of a crash that is not the standard library's."""
    library = sysconfig.get_path("stdlib")
    for file, line, name in re.findall(r'File "(.+)", line (\d+) in (.+)', dump):
        if not file.startswith(library) or "site-packages" in file:
            return f"{name}, {file}:{line}"
    return ""
