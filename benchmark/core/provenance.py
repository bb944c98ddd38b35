"""Where a record comes from: versions, commit and hardware."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmark import __version__


def provenance() -> dict[str, Any]:
    """Versions, commit, hardware and the time."""
    return {**_environment(), "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}


@lru_cache(maxsize=1)
def _environment() -> dict[str, Any]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"ddbench": __version__, "python": platform.python_version(), "commit": _commit()}
    for name in ("torch", "torchvision", "diffusers", "timm", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = ""
    found["hardware"] = {"machine": platform.machine(), "cpus": os.cpu_count(), "cpu": cpu_name(), "gpu": gpu_name()}
    return found


def _commit() -> str:
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        if not (here.parents[1] / ".git").exists():
            return ""
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


def gpu_name() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""
