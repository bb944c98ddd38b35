"""Errors a user can act on: what is wrong, where, what is allowed, what to do next.

Exit codes: 0 all done, 1 some job failed, 2 usage or configuration, 3 missing data or weights, 130 interrupted.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# What `ddbench list` shows: an unknown name of such a kind is answered with that command.
LISTED = ("method", "dataset", "student", "protocol", "backbone", "executor", "metric", "grid")


class DDBenchError(Exception):
    """Base of every error that ddbench raises on purpose; the CLI prints it without a traceback."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", allowed: str = "", hint: str = "") -> None:
        self.what, self.where, self.allowed, self.hint = what, where, allowed, hint
        super().__init__(what)

    def __reduce__(self):
        return _rebuild, (type(self), self.what, self.where, self.allowed, self.hint)

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where:   {self.where}")
        if self.allowed:
            lines.append(f"  allowed: {self.allowed}")
        if self.hint:
            lines.append(f"  next:    {self.hint}")
        return "\n".join(lines)


def _rebuild(cls, what, where, allowed, hint):
    return cls(what, where=where, allowed=allowed, hint=hint)


class UsageError(DDBenchError):
    """A wrong option, name, parameter or configuration file."""

    exit_code = 2


class MissingError(DDBenchError):
    """Data, weights or an optional package that is not there."""

    exit_code = 3


class DataError(DDBenchError):
    """Data that is there but cannot be right: a corrupt image, a class without images, another class order."""

    exit_code = 3


class GateError(DDBenchError):
    """A check before training refused a teacher or a distilled set."""


class JobError(DDBenchError):
    """A job broke: a plug-in raised, returned wrong shapes or NaN, a disk was full."""


def unknown_name(kind: str, name: str, known: Iterable[str], *, where: str = "", hint: str = "") -> UsageError:
    """A `UsageError` for ``name`` that names the nearest known one.

    Args:
        hint: what to do next; default the list of such names, where there is one.
    """
    known = sorted(known)
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    return UsageError(
        f"unknown {kind} {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
        where=where,
        allowed=", ".join(known) or f"no {kind}s are registered",
        hint=hint or (f"ddbench list {kind}s" if kind in LISTED else ""),
    )
