"""Training: what backbones, teachers and students share: the loop, augmentation, checkpoints, accuracy.

Light: the modules import torch, this one does not.
"""

from __future__ import annotations

from typing import Any

_WHERE = {
    "accuracy": "testing",
    "calibration_error": "testing",
    "predict": "testing",
    "test_set": "testing",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
