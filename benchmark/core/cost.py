"""What a piece of work costs: seconds and peak memory."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

PROCESS = 900 << 20  # bytes of a process with torch and diffusers loaded (measured: 0.8 to 0.9 GB)


class Stopwatch:
    """Seconds of a block without those of the blocks in it that are timed for themselves (see :func:`aside`)."""

    seconds = 0.0
    _running: list[Stopwatch] = []

    def __enter__(self) -> Stopwatch:
        self._start, self._aside, self._still = time.perf_counter(), 0.0, False
        Stopwatch._running.append(self)
        return self

    def __exit__(self, *exc) -> None:
        Stopwatch._running.remove(self)
        self.seconds = time.perf_counter() - self._start - self._aside


@contextlib.contextmanager
def aside() -> Iterator[None]:
    """Work that is counted elsewhere (a shared stage), or waiting for others: the running stopwatch stands still."""
    watch = Stopwatch._running[-1] if Stopwatch._running else None
    if watch is None or watch._still:
        yield
        return
    watch._still, began = True, time.perf_counter()
    try:
        yield
    finally:
        watch._still = False
        watch._aside += time.perf_counter() - began


class Meter(Stopwatch):
    """Seconds and, beside them, peak resident memory (bytes) of a block; CUDA's peak where CUDA is used."""

    peak = 0

    def __enter__(self) -> Meter:
        import torch

        super().__enter__()
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # resets the peak counter of this process
        if torch.cuda.is_initialized():  # asking a GPU that nothing uses would take half a GB of it for a context
            torch.cuda.reset_peak_memory_stats()
        return self

    def __exit__(self, *exc) -> None:
        import torch

        super().__exit__(*exc)
        self.peak = peak_memory()
        if torch.cuda.is_initialized() and torch.cuda.max_memory_allocated():
            self.peak = torch.cuda.max_memory_allocated()


def peak_memory() -> int:
    """Peak resident bytes of this process since the counter was last reset."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def available_memory() -> int:
    """Bytes of main memory that a new process can have: what is free, within the limit of its control group."""
    free = 1 << 62
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())  # "max" where there is none
        free = min(free, limit - int((group / "memory.current").read_text()))
    return free
