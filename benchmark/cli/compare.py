"""``compare``: methods, paired by seed and cell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from benchmark.cli.options import FILTERS, NamedPath, filters, good_records, no_records, table_format


@click.command(
    epilog="""\b
Examples:
  ddbench compare d3hr random
  ddbench compare d3hr d4m minimax sre2l dit --dataset fashionmnist --plot d3hr.svg
  ddbench compare d3hr:invert_guidance=1.0 d3hr:invert_guidance=4.0 --format csv
  ddbench compare d3hr d4m minimax --dataset fashionmnist --format latex > differences.tex
  ddbench compare '*:protocol=soft' '*:protocol=hard'       how much the protocol moves each method
"""
)
@click.argument("first")
@click.argument("second", nargs=-1, required=True)
@filters
@click.option("--score", default="top1_last", show_default=True, help="Any score of the records, e.g. top1_best.")
@table_format(columns=True)
@click.option("--plot", type=NamedPath(dir_okay=False), help="Draw the differences: .svg, .png, .pdf.")
def compare(first: str, second: tuple[str, ...], **options: Any) -> int:
    """FIRST minus each SECOND: the difference with its 95 % interval in every cell that both have, then one number over
    cells. Better and worse are said as on the board of the column: with Holm's correction for all methods there.

    A method with several variants in the records is chosen by its parameters, METHOD:KEY=VALUE,KEY=VALUE, or by
    backbone, backbone_key, inputs, precision, method_version, set, tuned (keys, inputs and tuned by their beginning;
    `tuned=` means untuned). Where both sides name a protocol= or a student= (wildcards allowed), that may differ; *
    for the method on both sides pairs each method with itself.
    """
    from benchmark.results.boards.differences import plot, render

    pairs = found(first=first, second=second, **options)
    if options["plot"]:
        plot(pairs, options["plot"])
    click.echo(render(pairs, options["form"], options["columns"]), nl=False)
    if options["plot"] and options["form"] == "table":
        click.echo(f"plot {options['plot']}")
    return 0


def found(*, first: str, second: tuple[str, ...], results: Path, score: str, **wanted: Any) -> list:
    """The command's comparisons."""
    from benchmark.results.boards.boards import select_cells
    from benchmark.results.boards.cells import collect
    from benchmark.results.boards.compare import comparisons

    faults: list = []
    cells = collect(good_records(results, faults))
    if not cells:
        raise no_records(results, faults)
    chosen = {name: wanted[name] for name in (*FILTERS, "ipc") if wanted[name]}
    return comparisons(select_cells(cells, chosen), first, second, score, beside=cells)
