"""What a piece of work costs: seconds and peak memory."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

PROCESS = 900 << 20  # bytes of a process with torch and diffusers loaded (measured: 0.8 to 0.9 GB)


class Meter:
    """Seconds and peak resident memory (bytes) of a block; CUDA's peak where CUDA is used."""

    seconds = 0.0
    peak = 0

    def __enter__(self) -> Meter:
        import torch

        self._start = time.perf_counter()
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # resets the peak counter of this process
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        return self

    def __exit__(self, *exc) -> None:
        import torch

        self.seconds = time.perf_counter() - self._start
        self.peak = peak_memory()
        if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
            self.peak = torch.cuda.max_memory_allocated()


def peak_memory() -> int:
    """Peak resident bytes of this process since the counter was last reset."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
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
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())  # "max" where there is none
        free = min(free, limit - int((group / "memory.current").read_text()))
    return free
