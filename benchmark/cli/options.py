"""Options that several commands share, each declared once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmark.core.errors import DataError, DDBenchError, MissingError

if TYPE_CHECKING:
    from benchmark.pipeline.request import Request

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


# Options that mean the same in every command, by name.
SHARED = {
    "set": click.option(
        "--set", "sets", multiple=True, metavar="KEY=VALUE", help="A parameter: KEY, METHOD.KEY or protocol.KEY."
    ),
    "backbone": click.option("--backbone", default="", help="A preset, a folder or a hub id. Default: the dataset's."),
    "teacher": click.option(
        "--teacher",
        default="",
        help="A student name, torchvision:NAME, timm:NAME or ARCHITECTURE@FILE. FILE's name with .json may hold "
        "mean, std, size (default: the dataset's), accuracy, student.",
    ),
    "precision": click.option(
        "--precision",
        default="auto",
        show_default=True,
        help="fp32, tf32, bf16, fp16; bf16+compile …; auto: bf16 where a method needs a large pretrained backbone and "
        "runs on a GPU, else fp32.",
    ),
    "data-root": click.option("--data-root", default=None, help="Where the data lies. Default: $DDBENCH_DATA."),
    "download": click.option("--download", is_flag=True, help="Fetch the dataset if it is missing."),
    "on-corrupt": click.option(
        "--on-corrupt", default="error", show_default=True, help="error or skip (counted in the record)."
    ),
    "image-size": click.option("--image-size", type=PIXELS, default=None, help="Side in pixels, for NAME=PATH."),
    "classes": click.option(
        "--classes",
        default=None,
        help="Some classes only: a count (spread evenly), labels (0,5,7 or 0-9) or names. What is computed class by "
        "class is shared with the whole dataset.",
    ),
    "split": click.option(
        "--split",
        type=Number(min=0, max=1, min_open=True, max_open=True),
        default=None,
        help="Share of each class that is the test split, for NAME=PATH without one.",
    ),
    "device": click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."),
    "executor": click.option(
        "--executor", default="local", show_default=True, help="Engine: see `ddbench list executors`."
    ),
    "address": click.option("--address", default="", help="For --executor ray: a running cluster, e.g. auto."),
    "ddp": click.option(
        "--ddp", is_flag=True, help="Under torchrun: train backbones, teachers, large students together."
    ),
    "time-limit": click.option(
        "--time-limit", type=Number(max=10**8), default=None, help="Seconds a job may take before it has failed."
    ),
    "jobs": click.option(
        "--jobs",
        type=JOBS,
        default=None,
        help="Workers. Default: one a GPU, or one a core (at most 4); of a Ray cluster one a GPU, or one a CPU.",
    ),
}
DATA = ("data-root", "download", "on-corrupt", "image-size", "split", "classes", "device")
WORKERS = ("executor", "address", "ddp", "time-limit", "jobs")


def shared(*names: str):
    """The options of `SHARED` with these names, in this order."""

    def add(function):
        for name in reversed(names):
            function = SHARED[name](function)
        return function

    return add


def dataset_options(options: dict[str, Any]) -> dict[str, Any]:
    """What of the parsed `DATA` options `benchmark.data.load_dataset` takes, where it is not the default."""
    found = {name: options.get(name) for name in ("download", "on_corrupt", "image_size", "split", "classes")}
    return {name: value for name, value in found.items() if value not in (None, False, "error")}


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
        text += " A variant: d3hr:decode_guidance=3." if name == "method" else ""
        function = click.option(f"--{name}", name, multiple=True, help=text)(function)
    function = click.option("--ipc", multiple=True, help="Only these IPC values; commas allowed; repeatable.")(function)
    return click.option(
        "--results", type=NamedPath(file_okay=False), default="results", show_default=True, help="Results folder."
    )(function)


def table_format(columns: bool = False):
    """``--format``, as every command that prints a table has it; ``columns``: and ``--columns``, which choose."""
    from benchmark.core.sheet import FORMATS

    def add(function):
        if columns:
            text = "Only these columns of a table, by their heads, in this order; wildcards and commas allowed."
            function = click.option("--columns", multiple=True, metavar="HEADS", help=text)(function)
        return click.option(
            "--format", "form", type=click.Choice(FORMATS), default="table", show_default=True, help="How to print."
        )(function)

    return add


def settled(request: Request, device: str) -> Request:
    """The request with a named precision in place of ``auto``."""
    from benchmark.pipeline.requirements import default_precision

    if request.precision != "auto":
        return request
    return dataclasses.replace(request, precision=default_precision(request, device))
