"""Holds plug-in code to what it may do to the process that it runs in; the rest is a failure of its job, with a reason.

What Python can see is handled here: `sys.exit`, closed or redirected output, a thread left behind, changed labels. What
ends the process at once (``os._exit``, a segfault) is seen by whoever started it: see
`benchmark.pipeline.executors.local`, which runs third-party plug-ins in processes of their own.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator

from benchmark.core.errors import JobError
from benchmark.data import Dataset

THREAD_SECONDS = 2.0  # how long a thread that was started may take to end by itself


@contextlib.contextmanager
def guarded(what: str, dataset: Dataset | None = None, *, threads: bool = True) -> Iterator[None]:
    """Run plug-in code; its exceptions pass.

    Args:
        what: for messages, e.g. ``"the method evil"``.
        dataset: whose labels must be the same afterwards.
        threads: whether a thread that goes on is a fault (libraries below the harness may keep some).

    Raises:
        JobError: it ended the program, closed the output, left a thread running or changed the labels.
    """
    before = set(threading.enumerate())
    streams = _Streams()
    try:
        yield
    except (Exception, KeyboardInterrupt):
        streams.restore()
        raise
    except BaseException as error:  # SystemExit, and whatever else is meant for the whole program
        streams.restore()
        code = f"({error.code!r})" if isinstance(error, SystemExit) else ""
        called = "sys.exit" if isinstance(error, SystemExit) else type(error).__name__
        raise JobError(f"{what} ended the program: {called}{code}", hint=_TELL) from error
    fault = streams.restore()
    left = _left_running(before) if threads else []
    if left:
        fault = f"left a thread running: {', '.join(left)}"
    changed = dataset.changed() if dataset is not None else ""
    if changed:
        fault = f"changed {changed} of the dataset"
    if fault:
        raise JobError(f"{what} {fault}", hint=_TELL)


_TELL = "a fault of the plug-in: tell its authors; other jobs go on"


def _left_running(before: set[threading.Thread]) -> list[str]:
    """Names of new threads that would keep the process from ending (idle ones of a pool do not)."""
    end = time.monotonic() + THREAD_SECONDS
    new = [t for t in threading.enumerate() if t not in before and not t.daemon and not is_pooled(t)]
    for thread in new:
        thread.join(max(0.0, end - time.monotonic()))
    return [t.name for t in new if t.is_alive()]


def is_pooled(thread: threading.Thread) -> bool:
    """Whether the interpreter ends this thread by itself: a worker of `concurrent.futures`."""
    return getattr(getattr(thread, "_target", None), "__module__", "") == "concurrent.futures.thread"


class _Streams:
    """Standard output and error as they are now, to be brought back."""

    def __init__(self) -> None:
        self.streams = sys.stdout, sys.stderr
        self.copies: dict[int, int] = {}
        for number in (1, 2):
            with contextlib.suppress(OSError):
                self.copies[number] = os.dup(number)

    def restore(self) -> str:
        """What had been done to them, or an empty string."""
        fault = ""
        for number, copy in self.copies.items():
            try:
                same = os.path.sameopenfile(number, copy)
            except OSError:
                same = False
            if not same:
                os.dup2(copy, number)
                fault = "closed or redirected the output"
            os.close(copy)
        self.copies = {}
        names = ("stdout", "stderr")
        for number, (name, stream) in enumerate(zip(names, self.streams), start=1):
            if stream is None:
                continue
            if stream.closed:
                fault = "closed the output"
                stream = open(number, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
        return fault
