"""``backbone guidance``: choose a backbone's guidance by plain sampling on a held-out part of the training split."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import click

from benchmark.cli.options import settled, shared
from benchmark.core.errors import JobError, UsageError

METHOD = "dit"  # plain sampling


@click.command(
    epilog="""\b
Examples:
  ddbench backbone guidance --dataset digits
  ddbench backbone guidance --dataset cifar10 --backbone ./small-cifar10 --seeds 5 --precision bf16
"""
)
@click.option("--dataset", required=True, help="Chosen on DATASET@val: a part of its training split is held out.")
@click.option("--backbone", default="", help="A preset, a folder or a hub id. Default: the dataset's.")
@click.option("--values", default="1,1.5,2,3,4,7", show_default=True, help="Guidances to try.")
@click.option("--ipc", default="1,10", show_default=True, help="Images per class; the mean over them decides.")
@click.option("--seeds", default=3, show_default=True, help="Seeds a guidance and IPC, the same for all.")
@click.option("--student", default="", help="Default: the protocol's.")
@click.option("--protocol", default="hard", show_default=True)
@click.option("--set", "sets", multiple=True, metavar="protocol.KEY=VALUE", help="Change the protocol.")
@shared("teacher", "precision", "data-root")
@click.option("--results", default="results", show_default=True, help="Trials go to RESULTS/guidance/records.")
@shared("executor", "address", "time-limit", "jobs", "device")
def guidance(**options: Any) -> int:
    """Choose the guidance that every diffusion method uses on a backbone, unless its user says otherwise.

    Plain sampling makes sets at each guidance, students are trained on them and tested on images that are held out of
    the training split. The best mean goes into the backbone's folder (guidance.json); for a preset the lines for
    benchmark/backbones/datasets.yaml are printed.
    """
    from benchmark.cli.run import check_first, ipc_values
    from benchmark.pipeline.request import Request
    from benchmark.plugins import registry

    values, ipc = _numbers(options["values"]), ipc_values(options["ipc"])
    if options["seeds"] < 1:
        raise UsageError("no trial can be made", where="--seeds", allowed="1 or more")
    name = options["dataset"].removesuffix("@val")
    registry().get("dataset", name, where="--dataset")
    registry().get("protocol", options["protocol"], where="--protocol")
    wanted = Request(
        options["dataset"],
        (METHOD,),
        ipc,
        protocols=(options["protocol"],),
        teacher=options["teacher"],
        backbone=options["backbone"],
        precision=options["precision"],
        data_root=options["data_root"],
    )
    wanted = settled(wanted, options["device"])
    options["precision"] = wanted.precision
    check_first(wanted, (METHOD,), options["device"])
    scores, failures = _scores(name, values, ipc, options)
    _finish(name, scores, options)
    return 1 if failures else 0


def _numbers(text: str) -> list[float]:
    try:
        return sorted({float(part) for part in text.split(",") if part.strip()})
    except ValueError:
        raise UsageError(f"{text!r} is no list of numbers", where="--values", allowed="e.g. 1,1.5,2,4") from None


def _scores(name: str, values: list[float], ipc: tuple[int, ...], options: dict[str, Any]):
    """(mean top-1 in percent by guidance and IPC, number of failed jobs)."""
    from benchmark.cli.run import execution_of
    from benchmark.core.store import Store
    from benchmark.pipeline.jobs import Context
    from benchmark.pipeline.request import parse_sets
    from benchmark.pipeline.run import carry_out
    from benchmark.studies import run as grids
    from benchmark.studies.expand import GridCell
    from benchmark.studies.spec import Grid

    base = {"dataset": f"{name}@val", "method": METHOD}
    base |= {key: options[key] for key in ("protocol", "student", "backbone", "teacher", "precision")}
    base |= parse_sets(options["sets"])
    pairs = list(itertools.product(values, ipc))
    cells = [
        GridCell({**base, "ipc": n, f"{METHOD}.guidance": value}, {"guidance": value, "ipc": n}) for value, n in pairs
    ]
    grid = Grid("guidance", base=base, axes={"guidance": values}, seeds=tuple(range(options["seeds"])))
    store, results = Store(), Path(options["results"]) / "guidance"
    how = execution_of({**options, "results": results}, planning=False)
    planned = grids.plan_grid(grid, cells, store, results, how.device, data_root=options["data_root"])
    click.echo(f"guidance of {name}: " + grids.describe(planned, Context(store, results, how.device)))
    if any(planned.faults):
        raise UsageError(next(filter(None, planned.faults)), where="ddbench backbone guidance")
    failures, _ = carry_out(planned.plan, how)
    found: dict[float, dict[int, float]] = {}
    for (value, n), row in zip(pairs, grids.gather(planned, results, grid.seeds), strict=True):
        if row["seeds"] != len(grid.seeds):  # a value that failed somewhere cannot be compared
            click.echo(f"guidance {value:g} at IPC {n} is left out: {row['reason']}", err=True)
            continue
        found.setdefault(value, {})[n] = row["top1_last"]
    return {value: by_ipc for value, by_ipc in found.items() if len(by_ipc) == len(ipc)}, failures


def _finish(name: str, scores: dict[float, dict[int, float]], options: dict[str, Any]) -> None:
    from benchmark.backbones import guidance as rule
    from benchmark.backbones.settings import default_preset
    from benchmark.core.sheet import plain, simple

    if not scores:
        raise JobError("no guidance has a score in every cell", where="ddbench backbone guidance")
    value = rule.best(scores)
    numbers = list(next(iter(scores.values())))
    rows = [
        [f"{g:g}", *(f"{top1:.1f}" for top1 in (*(by_ipc[n] for n in numbers), sum(by_ipc.values()) / len(by_ipc)))]
        + ["chosen" if g == value else ""]
        for g, by_ipc in sorted(scores.items())
    ]
    heads = ["guidance", *(f"IPC {n}" for n in numbers), "mean", ""]
    click.echo("\n" + plain([simple("", heads, rows, "r" * (len(heads) - 1) + "l")]), nl=False)
    if value in (min(scores), max(scores)) and len(scores) > 1:
        click.echo(f"{value:g} is the edge of what was tried: repeat with further --values", err=True)
    changes = "".join(f", {text}" for text in options["sets"])
    entry = {"guidance": value, "on": f"{name}@val", "protocol": options["protocol"] + changes}
    entry |= {"seeds": options["seeds"], "top1": {f"{g:g}": by_ipc for g, by_ipc in sorted(scores.items())}}
    folder = Path(options["backbone"]).expanduser()
    if options["backbone"] and folder.is_dir():
        click.echo(f"\nwritten to   {rule.write(folder, name, entry)}")
    else:
        preset = options["backbone"] or default_preset(name)
        click.echo(f"\nfor benchmark/backbones/datasets.yaml, under {name}:\n  guidance: {{{preset}: {value:g}}}")
