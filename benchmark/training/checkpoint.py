"""Checkpoints of our own runs: written whole or not at all, read without unpickling anything but tensors."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import torch

from benchmark.core.store.checked import find_checked, replace_checked


def save(state: dict[str, Any], path: Path) -> None:
    """Write ``state`` (tensors, numbers, text, lists and dicts of them), whole or not at all, with its digest."""
    replace_checked(path, lambda temporary: torch.save(state, temporary))


def load(path: Path) -> dict[str, Any] | None:
    """The state in ``path``, or None where there is none; a damaged one is reported, removed and begun again."""
    file = find_checked(path)
    if file is None:
        return None
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
        print(f"{file}: damaged checkpoint ({type(error).__name__}); starting again", file=sys.stderr, flush=True)
        file.unlink(missing_ok=True)
        return None
