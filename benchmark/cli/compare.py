"""``compare``: two methods, paired by seed and cell."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from benchmark.cli.leaderboard import FILTERS, filters


@click.command(
    epilog="""\b
Examples:
  ddbench compare d3hr random
  ddbench compare d3hr d4m --dataset fashionmnist --protocol hard --plot d3hr-d4m.svg
  ddbench compare d3hr:invert_guidance=1.0 d3hr:invert_guidance=4.0 --format csv
"""
)
@click.argument("first")
@click.argument("second")
@filters
@click.option("--score", default="top1_last", show_default=True, help="Any score of the records, e.g. top1_best.")
@click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True)
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw the differences: .svg, .png, .pdf.")
def compare(first: str, second: str, **options: Any) -> int:
    """FIRST minus SECOND: the difference with its 95 % interval in every cell that both have, then wins over cells.

    A method with several variants in the records is chosen by its parameters, METHOD:KEY=VALUE,KEY=VALUE, or by
    backbone, backbone_key, inputs, precision, method_version, set (keys and inputs by their beginning).
    """
    import csv
    import io
    import json

    from tabulate import tabulate

    from benchmark.leaderboard import compare as engine
    from benchmark.leaderboard.boards import select_cells
    from benchmark.leaderboard.cells import collect
    from benchmark.leaderboard.terminal import interval
    from benchmark.records import iter_records

    wanted = {n: options[n] for n in (*FILTERS, "ipc") if options[n] and n != "method"}
    cells = select_cells(collect(iter_records(options["results"])), wanted)
    pairs = engine.compare(cells, first, second, options["score"])
    if options["plot"]:
        engine.plot(pairs, first, second, options["plot"])
    if options["form"] == "json":
        document = {"pairs": [asdict(p) for p in pairs], "summary": [asdict(s) for s in engine.summarise(pairs)]}
        click.echo(json.dumps(document, indent=1, ensure_ascii=False))
        return 0
    if options["form"] == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, list(asdict(pairs[0])), lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(p) for p in pairs)
        click.echo(text.getvalue(), nl=False)
        return 0
    teachers = engine.teachers(pairs)
    lines = [
        [p.dataset, p.protocol, *([teacher] if any(teachers) else []), p.student, p.ipc, f"{p.a:.1f}", f"{p.b:.1f}"]
        + [interval(p.difference, p.half, signed=True), p.seeds, p.verdict, p.note]
        for p, teacher in zip(pairs, teachers)
    ]
    headers = ["dataset", "protocol", *(["teacher"] if any(teachers) else []), "student", "IPC", first, second]
    headers += ["difference", "seeds", "", ""]
    click.echo(tabulate(lines, headers, tablefmt="simple", disable_numparse=True))
    click.echo("difference: paired by seed, ± 95 % t interval; better or worse where it leaves out 0\n")
    for s in engine.summarise(pairs):
        click.echo(
            f"{s.dataset}, {s.protocol}: {first} wins {s.wins}, ties {s.ties}, loses {s.losses} of {s.cells} cells; "
            f"above in {s.positive} (sign test p = {s.p:.2g}); mean difference {s.mean_difference:+.1f}"
        )
    if options["plot"]:
        click.echo(f"plot {options['plot']}")
    return 0
