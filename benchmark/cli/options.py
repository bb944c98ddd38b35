"""Options that several commands share, each declared once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from benchmark.core.errors import MissingError

FILTERS = ("dataset", "protocol", "student", "method", "teacher", "backbone", "precision")


def no_records(results: Path) -> MissingError:
    """The error for a results folder that holds nothing."""
    return MissingError(f"no records in {results / 'records'}", hint="ddbench run … writes some; or give --results")


def filters(function, names: Sequence[str] = FILTERS):
    """Options that choose rows by ``names`` and IPC, and the folder they come from."""
    for name in reversed(names):
        text = f"Only these {name}s; wildcards and commas allowed; repeatable."
        function = click.option(f"--{name}", name, multiple=True, help=text)(function)
    function = click.option("--ipc", multiple=True, help="Only these IPC values; commas allowed; repeatable.")(function)
    folder = click.Path(path_type=Path, file_okay=False)
    return click.option("--results", type=folder, default="results", show_default=True, help="Results folder.")(
        function
    )
