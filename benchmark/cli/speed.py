"""``ddbench speed``: fill the throughput table that `plan` predicts from."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

import click

from benchmark.cli.options import COUNT, NamedPath, shared, table_format
from benchmark.core.errors import UsageError


@click.command(
    epilog="""\b
Examples:
  ddbench speed --backbone facebook/DiT-XL-2-256 --precision bf16
  ddbench speed --backbone small --dataset cifar10 --data-root ~/data
  ddbench speed --student resnet18 --image-size 224 --precision bf16 --add throughput.csv
  ddbench speed                                                     prints what `plan` knows
"""
)
@click.option("--backbone", default="", help="A folder, a hub id, or a preset (with --dataset). Weights are random.")
@click.option("--dataset", default="", help="With a preset: whose geometry it takes.")
@shared("data-root")
@click.option("--student", default="", help="An architecture: its training step.")
@click.option(
    "--image-size", type=int, default=None, help="Side in pixels: of the student's images, else of the dataset."
)
@click.option("--classes", type=COUNT, default=1000, show_default=True, help="Classes of the student.")
@click.option("--channels", type=COUNT, default=3, show_default=True, help="Channels of the student's images.")
@click.option(
    "--batch",
    type=COUNT,
    default=64,
    show_default=True,
    help="Latents a step of the DiT; images a step of the student.",
)
@click.option("--precision", default="fp32", show_default=True, help="fp32, tf32, bf16, fp16; bf16+compile …")
@shared("device")
@click.option("--add", type=NamedPath(), help="Also write the rows into this table.")
@table_format(columns=True)
def speed(backbone: str, student: str, precision: str, device: str, batch: int, add: Path | None, **given) -> None:
    """Measure images a second and peak memory: of a backbone's stages, or of a student's training step.

    A backbone of the named shape with random weights is timed, so nothing needs to be downloaded. CPU rows are of one
    thread, as jobs have. The rows are kept in the store, where `ddbench plan` finds them.
    """
    from benchmark.core.compute import Precision, resolve_device
    from benchmark.core.outputs import room_for
    from benchmark.core.sheet import choose, render, simple
    from benchmark.pipeline.cost import table

    if given["dataset"] and not backbone:
        raise UsageError("--dataset says what a preset's shape is", where="--backbone", hint="give --backbone PRESET")
    if batch < 1:
        raise UsageError(f"a batch of {batch} images", where="--batch", allowed="1 or more")
    if add is not None:
        room_for(add, "--add")  # before minutes of measuring
    form, wanted = given.pop("form"), given.pop("columns")
    policy = Precision.named(precision)
    rows = table.known()
    if backbone or student:
        from benchmark.pipeline.cost.measure import measure, measure_student, with_random_weights

        device, rows, command = resolve_device(device), [], _command()
        if backbone:
            shape = _shape(backbone, given | ({"image_size": None} if student else {}))
            rows += measure(with_random_weights(shape, device, policy), shape, precision, batch, command)
        if student:
            size = given["classes"], given["channels"], given["image_size"] or 224
            rows.append(measure_student(student, *size, device, precision, batch, command))
    columns = ("device", "backbone", "precision", "stage", "guidance", "steps", "batch", "threads")
    heads = [*columns, "images/s", "peak GB", "measured"]
    lines = [
        [getattr(r, c) for c in columns] + [f"{r.images_per_second:.4g}", f"{r.memory / 1e9:.4g}", r.measured]
        for r in rows
    ]
    sheet = simple("", heads, lines, "llllrrrrrrl", documents=[dataclasses.asdict(r) for r in rows])
    choose([sheet], wanted)
    empty = not lines and form == "table"
    click.echo("the throughput table is empty\n" if empty else render([sheet], form, "ddbench speed"), nl=False)
    if backbone or student:
        click.echo(f"kept in {table.keep(rows)}: `ddbench plan` with this store uses them", err=form != "table")
    if add is not None and (backbone or student):
        table.add(add, rows)
        click.echo(f"written to {add}", err=form != "table")


def _shape(backbone: str, given: dict):
    from benchmark.backbones.settings import settings
    from benchmark.backbones.shape import shape_by_name, shape_of_settings
    from benchmark.core.errors import MissingError
    from benchmark.plugins import registry

    if backbone in registry().names("backbone"):
        if not given["dataset"]:
            raise UsageError(f"the shape of {backbone} depends on the images", where="--backbone", hint="add --dataset")
        from benchmark.data import load_dataset

        data = load_dataset(given["dataset"], given["data_root"], image_size=given["image_size"])
        return shape_of_settings(settings(data, backbone), len(data.classes), data.channels)
    shape = shape_by_name(backbone)
    if shape is None:
        raise MissingError(f"no backbone {backbone} here", where="--backbone", hint="ddbench list backbones")
    return shape


def _command() -> str:
    """The command line as a user types it, without where the rows are written."""
    import sys

    words = sys.argv[1:]
    if "--add" in words:
        del words[(at := words.index("--add")) : at + 2]
    return shlex.join(["ddbench", *(w for w in words if not w.startswith("--add="))])
