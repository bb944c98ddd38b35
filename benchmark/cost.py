"""What a piece of work costs: seconds and peak memory."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path


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
