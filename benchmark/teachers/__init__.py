"""Teachers: trained here on the full real set and cached, or given. Light: the modules import torch, this one not."""

from __future__ import annotations

from typing import Any

from benchmark.teachers.recipes import RECIPES, Recipe, recipe_for, recipe_of

_WHERE = {
    "Ensemble": "teacher",
    "Teacher": "teacher",
    "check_fits": "external",
    "get_teacher": "get",
    "is_external": "get",
    "teacher_key": "get",
    "teacher_stage": "get",
}

__all__ = ["RECIPES", "Recipe", "recipe_for", "recipe_of", *sorted(_WHERE)]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
