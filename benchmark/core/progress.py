"""Progress of long work: a bar with rate and time left on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

PLAIN_SECONDS = 10.0  # one line per this many seconds where the output is not a terminal
TOLD_SECONDS = 2.0  # between what watchers are told
LEVEL = "DDBENCH_VERBOSITY"  # what -v and -q set, for worker processes too
QUIET, VERBOSE = "quiet", "verbose"
watchers: list[Callable[[str], None]] = []  # called with the line of whatever moves on (the engine keeps it for status)


def is_quiet() -> bool:
    """Whether results and errors alone are to be printed."""
    return os.environ.get(LEVEL) == QUIET


def is_verbose() -> bool:
    """Whether what jobs log is printed as well."""
    return os.environ.get(LEVEL) == VERBOSE


class Progress:
    """Counts work done out of ``total``; use as a context manager and call :meth:`update`.

    ``DDBENCH_PROGRESS=0`` silences it (tests, workers); ``note`` adds a short text after the numbers.
    """

    def __init__(self, total: int, label: str, unit: str = "it", initial: int = 0) -> None:
        self.total, self.label, self.unit, self.done, self.initial = total, label, unit, initial, initial
        self.start = self.last = self.told = time.monotonic()
        self.text = ""
        self.bar = None
        self.quiet = os.environ.get("DDBENCH_PROGRESS", "1") == "0" or is_quiet()
        if not self.quiet and sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=total, desc=label, unit=unit, initial=initial, dynamic_ncols=True, leave=False)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc) -> None:
        if self.bar is not None:
            self.bar.close()
        elif not self.quiet and exc[0] is None and time.monotonic() - self.start > PLAIN_SECONDS:
            self._line()

    def update(self, n: int = 1, note: str = "") -> None:
        self.done += n
        self.text = note or self.text
        if watchers and time.monotonic() - self.told > TOLD_SECONDS:
            self.told = time.monotonic()
            for watcher in watchers:
                watcher(self.line())
        if self.bar is not None:
            if note:
                self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(n)
        elif not self.quiet and time.monotonic() - self.last > PLAIN_SECONDS:
            self._line()

    def line(self) -> str:
        """``label: 30/100 step (2.5 step/s, 28 s left)``."""
        rate = (self.done - self.initial) / max(time.monotonic() - self.start, 1e-9)
        left = (self.total - self.done) / rate if rate else float("inf")
        note = f", {self.text}" if self.text else ""
        return f"{self.label}: {self.done}/{self.total} {self.unit} ({rate:.3g} {self.unit}/s, {left:.0f} s left{note})"

    def _line(self) -> None:
        self.last = time.monotonic()
        print(self.line(), file=sys.stderr, flush=True)
