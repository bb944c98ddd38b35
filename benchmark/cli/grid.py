"""``grid``: ablation grids over any parameter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from benchmark.cli.options import COUNT, SEEDS, WORKERS, NamedPath, shared
from benchmark.core import distributed
from benchmark.core.errors import UsageError


@click.command(
    epilog="""\b
Examples:
  ddbench grid --list
  ddbench grid d3hr-ablations --plan                  cells, shared stages, what is cached
  ddbench grid d3hr-ablations --dataset fashionmnist --seeds 5
  ddbench grid my-grid.yaml --results results
"""
)
@click.argument("name", metavar="[NAME|FILE.yaml]", required=False)
@click.option("--list", "listing", is_flag=True, help="The grids that are shipped.")
@click.option("--plan", "plan_only", is_flag=True, help="Say what would run and what is shared; run nothing.")
@click.option("--yes", is_flag=True, help="Allow more than 10,000 cells.")
@click.option("--dataset", default=None, help="Instead of the grid's.")
@click.option("--method", default=None, help="Instead of the grid's.")
@click.option("--student", default=None, help="Instead of the grid's.")
@click.option("--protocol", default=None, help="Instead of the grid's.")
@click.option("--ipc", type=COUNT, default=None, help="Instead of the grid's.")
@click.option("--seeds", type=SEEDS, default=None, help="How many seeds, instead of the grid's.")
@click.option("--set", "sets", multiple=True, metavar="NAME=VALUE", help="A base value: METHOD.KEY or protocol.KEY.")
@shared("data-root")
@click.option("--results", type=NamedPath(file_okay=False), default="results", show_default=True)
@shared(*WORKERS, "device")
@click.option("--plots/--no-plots", default=True, show_default=True, help="Draw the pivots.")
def grid(name: str | None, **options: Any) -> int:
    """Run a grid of cells: axes over any method, protocol, dataset or student setting, product or one at a time.

    Every stage that cells share is made once; the same command resumes; a cell that fails is a row and stops no other.
    Writes RESULTS/grids/NAME/: grid.csv (a line a cell), pivots.md, plots.
    """
    from benchmark.studies.spec import read_grid, shipped

    if options["listing"]:
        for label, summary in shipped().items():
            click.echo(f"{label:24} {summary}")
        return 0
    if not name:
        raise UsageError("no grid", where="ddbench grid", allowed=", ".join(shipped()), hint="ddbench grid --list")
    found = read_grid(name, _changes(options))
    return _run(found, options)


def _changes(options: dict[str, Any]) -> dict[str, Any]:
    from benchmark.core.foreign import parse_yaml
    from benchmark.pipeline.request import parse_sets

    changes = {n: options[n] for n in ("dataset", "method", "student", "protocol", "ipc", "seeds")}
    changes = {name: value for name, value in changes.items() if value is not None}
    if options["ipc"] is not None and options["ipc"] < 1:
        raise UsageError(f"IPC {options['ipc']} is not possible", where="--ipc", allowed="whole numbers from 1")
    if options["seeds"] is not None and options["seeds"] < 1:
        raise UsageError(f"{options['seeds']} seeds are not possible", where="--seeds", allowed="1 or more")
    given = parse_sets(options["sets"])
    return changes | {key: parse_yaml(value, f"--set {key}={value}") for key, value in given.items()}


def _run(found, options: dict[str, Any]) -> int:
    from benchmark.cli.run import execution_of
    from benchmark.core.outputs import writable_folder
    from benchmark.core.store import Store
    from benchmark.pipeline.jobs import Context
    from benchmark.pipeline.run import carry_out
    from benchmark.studies import run as runner
    from benchmark.studies.expand import expand

    how = execution_of(options, planning=options["plan_only"])
    cells = expand(found, yes=options["yes"])
    store = Store()
    planned = runner.plan_grid(found, cells, store, how.results, how.device, data_root=options["data_root"])
    if distributed.leads():
        click.echo(f"grid {found.name}: " + runner.describe(planned, Context(store, how.results, how.device)))
    if options["plan_only"]:
        return 0
    if all(planned.faults):
        raise UsageError(f"no cell of the grid can run: {planned.faults[0]}", where=found.name)
    writable_folder(how.results / "grids" / found.name, "--results")
    try:
        failures, _ = carry_out(planned.plan, how)
    finally:
        rows = _write(found, planned, how.results, options["plots"], runner) if distributed.leads() else []
    if not distributed.leads():
        return 0
    lost = [(cell, row) for cell, row in zip(planned.cells, rows) if row["failed"]]
    for cell, row in lost:
        click.echo(f"failed: {cell.label}: {row['reason']}", err=True)
    return 1 if failures or lost else 0


def _write(found, planned, results: Path, plots: bool, runner) -> list[dict]:
    """Write what there is, also after an interruption."""
    from benchmark.core.outputs import write_text
    from benchmark.studies.pivot import draw, markdown, pivots

    rows = runner.gather(planned, results, found.seeds)
    folder = results / "grids" / found.name
    tables = pivots(found, rows)
    write_text(runner.grid_csv(rows), folder / "grid.csv", within=results)
    write_text(markdown(tables), folder / "pivots.md", within=results)
    drawn = draw(tables, folder / "plots") if plots else []
    click.echo("\n" + markdown(tables))
    click.echo(f"long table   {folder / 'grid.csv'} ({len(rows)} cells)\npivot tables {folder / 'pivots.md'}")
    if drawn:
        click.echo(f"plots        {folder / 'plots'}/ ({len(drawn)})")
    return rows
