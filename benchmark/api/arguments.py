"""Checks what a notebook hands to the public functions, before any work: what does not fit is an error that says so."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Collection, Mapping
from numbers import Integral
from typing import Any, TypeVar

from benchmark.core.errors import UsageError
from benchmark.core.foreign import LARGEST

Function = TypeVar("Function", bound=Callable[..., Any])
MOST_SEEDS = 10_000


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and abs(int(value)) <= LARGEST


def _is_list(value: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, Collection) and not isinstance(value, (str, bytes, Mapping)) and all(map(fits, value))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_path(value: Any) -> bool:
    text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else b""
    return isinstance(text, str) and bool(text.strip()) and "\x00" not in text


def _is_sets(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_is_text, value))


def _is_count_or_text(value: Any) -> bool:
    return _is_whole(value) or _is_text(value)


def _is_wholes(value: Any) -> bool:
    return _is_whole(value) or (_is_list(value, _is_whole) and len(value) > 0)


def _is_names(value: Any) -> bool:
    return _is_text(value) or _is_list(value, _is_text)


def _is_set(value: Any) -> bool:
    from benchmark.results.records import Record

    return _is_path(value) or isinstance(value, Record)


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor) and value.layout is torch.strided


# by annotation: whether a value fits, and what fits; a test keeps every annotation of the public functions in here
FITS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "str": (_is_text, "text"),
    "bool": (lambda value: isinstance(value, bool), "True or False"),
    "int": (_is_whole, "a whole number"),
    "int | Sequence[int]": (_is_wholes, "a whole number, or a list of at least one"),
    "Names": (_is_names, "a name, or a list of names"),
    "Mapping[str, Any]": (_is_sets, 'a dict of names to values: {"m": 1000}'),
    "str | int": (_is_count_or_text, "a count, or labels and names with commas"),
    "str | os.PathLike[str]": (_is_path, "a path"),
    "str | os.PathLike[str] | Record": (_is_set, "a folder, or the record of a student"),
    "torch.Tensor": (_is_tensor, "a dense torch tensor"),
}


def checked(function: Function) -> Function:
    """Refuse arguments that do not fit the function's annotations.

    Raises (when it is called):
        UsageError: names the argument and what fits.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def called(*positional: Any, **named: Any) -> Any:
        for name, value in signature.bind(*positional, **named).arguments.items():
            check(function.__name__, name, value, signature.parameters[name].annotation)
        return function(*positional, **named)

    return called  # type: ignore[return-value]


def check(function: str, name: str, value: Any, annotation: str) -> None:
    """One argument of `checked`."""
    wanted = annotation.removesuffix(" | None")
    if value is None and wanted != annotation:
        return
    fits, text = FITS[wanted]
    if not fits(value):
        shown = repr(value) if isinstance(value, (str, int, float, list, tuple, dict, type(None))) else type(value)
        raise UsageError(
            f"{name} must be {text}, not {str(shown)[:80]}", where=f"{function}({name}=…)", allowed=annotation
        )


def whole_numbers(function: str, name: str, given: Any, low: int, high: int) -> tuple[int, ...]:
    """One or several whole numbers as a tuple.

    Raises:
        UsageError: one is out of range.
    """
    numbers = tuple(int(v) for v in given) if isinstance(given, Collection) else (int(given),)
    for number in numbers:
        if not low <= number <= high:
            raise UsageError(
                f"{name} = {number} is out of range", where=f"{function}({name}=…)", allowed=f"{low:,} to {high:,}"
            )
    return numbers
