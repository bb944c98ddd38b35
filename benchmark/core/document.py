"""Frozen dataclasses that are written as JSON and read back."""

from __future__ import annotations

import dataclasses
import types
import typing
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from benchmark.core.errors import DataError

if TYPE_CHECKING:
    from typing_extensions import Self


def optional(default: Any = None) -> Any:
    """A field that is left out of the JSON while it has its default, so that older documents keep their digests."""
    factory = {"default_factory": lambda: default} if isinstance(default, dict) else {"default": default}
    return dataclasses.field(**factory, metadata={"optional": True})


class Document:
    """Base of such dataclasses. Fields may hold JSON values, other documents, and tuples of either."""

    def to_json(self) -> dict[str, Any]:
        """The document as dicts, lists and plain values."""
        found = {}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if not (field.metadata.get("optional") and not value):
                found[field.name] = _plain(value)
        return found

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_json`.

        Raises:
            DataError: a field is missing or unknown.
        """
        hints = _hints(cls)
        unknown = sorted(set(document) - set(hints))
        if unknown:
            raise DataError(
                f"a {cls.__name__} has no field {unknown[0]!r}",
                allowed=", ".join(sorted(hints)),
                hint="it was written by another version of ddbench",
            )
        try:
            return cls(**{name: _typed(hints[name], value) for name, value in document.items()})
        except TypeError as error:
            raise DataError(f"this is no {cls.__name__}: {error}", allowed=", ".join(sorted(hints))) from error


def _plain(value: Any) -> Any:
    if isinstance(value, Document):
        return value.to_json()
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value


def _typed(hint: Any, value: Any) -> Any:
    if value is None:
        return None
    if isinstance(hint, type) and issubclass(hint, Document):
        return hint.from_json(value)
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        (hint, *others) = [h for h in typing.get_args(hint) if h is not type(None)]
        return value if others else _typed(hint, value)
    if typing.get_origin(hint) is tuple:
        kinds = typing.get_args(hint)
        kinds = kinds[:1] * len(value) if kinds[1:] == (...,) else kinds
        return tuple(_typed(kind, v) for kind, v in zip(kinds, value, strict=True))
    return value


@lru_cache(maxsize=100)
def _hints(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}
