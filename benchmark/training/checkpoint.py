"""Checkpoints of our own runs: written whole or not at all, read without unpickling anything but tensors."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path
from typing import Any

import torch


def save(state: dict[str, Any], path: Path) -> None:
    """Write ``state`` (tensors, numbers, text, lists and dicts of them) to a sibling and rename it."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        torch.save(state, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path) -> dict[str, Any] | None:
    """The state in ``path``, or None where there is none; a damaged one is reported, removed and begun again."""
    if not path.is_file():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
        print(f"{path}: damaged checkpoint ({type(error).__name__}); starting again", file=sys.stderr, flush=True)
        path.unlink(missing_ok=True)
        return None
