"""Options that several commands share, each declared once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from benchmark.core.errors import DataError, DDBenchError, MissingError

SEEDS = click.IntRange(max=10_000)
JOBS = click.IntRange(max=4096)
PIXELS = click.IntRange(max=16_384)
COUNT = click.IntRange(max=10**9)  # of steps, images, trials
SEED = click.IntRange(0, 2**62)


class Number(click.FloatRange):
    """A number in a range; NaN and infinities are in none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number", param, ctx)
        return number


class NamedPath(click.Path):
    """A path that has a name: the empty one would silently mean the working folder."""

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and not value.strip():
            self.fail("the name is empty; the working folder is .", param, ctx)
        return super().convert(value, param, ctx)


MOST_BAD = 10  # bad records that are named one by one
FILTERS = ("dataset", "protocol", "student", "method", "teacher", "backbone", "precision")


def no_records(results: Path, faults: Sequence = ()) -> DDBenchError:
    """The error for a results folder that holds nothing, or nothing but the bad files ``faults``."""
    if faults:
        allowed, hint = "records as ddbench wrote them", f"ddbench results verify {results}"
        return DataError(f"{len(faults)} records, none of them good", where=str(faults[0]), allowed=allowed, hint=hint)
    return MissingError(f"no records in {results / 'records'}", hint="ddbench run … writes some; or give --results")


def good_records(results: Path, faults: list | None = None) -> Iterator[dict]:
    """The good records of a folder, one at a time; the bad ones are named on stderr after the last.

    Args:
        faults: gets the bad files.
    """
    from benchmark.results.records import iter_records

    bad: list = [] if faults is None else faults
    yield from iter_records(results, bad)
    for fault in bad[:MOST_BAD]:
        click.echo(f"warning: left out: {fault}", err=True)
    if bad:
        more = f"{len(bad) - MOST_BAD} more bad records; " if len(bad) > MOST_BAD else ""
        click.echo(f"{more}all of them: ddbench results verify {results}", err=True)


def filters(function, names: Sequence[str] = FILTERS):
    """Options that choose rows by ``names`` and IPC, and the folder they come from."""
    for name in reversed(names):
        text = f"Only these {name}s; wildcards and commas allowed; repeatable."
        function = click.option(f"--{name}", name, multiple=True, help=text)(function)
    function = click.option("--ipc", multiple=True, help="Only these IPC values; commas allowed; repeatable.")(function)
    return click.option(
        "--results", type=NamedPath(file_okay=False), default="results", show_default=True, help="Results folder."
    )(function)
