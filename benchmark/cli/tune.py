"""``tune``: the same number of trials for every method, on a held-out part of the training split."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from benchmark.cli.options import DATA, SEEDS, WORKERS, NamedPath, dataset_options, settled, shared
from benchmark.core import distributed
from benchmark.core.errors import UsageError

LIMIT = 3  # times the wanted number of trials that are made of a method at most, where they fail


@click.command(
    epilog="""\b
Examples:
  ddbench tune --method d3hr,dit,d4m --dataset digits --ipc 1,10
  ddbench tune --method d3hr --method minimax --dataset fashionmnist --ipc 10 --trials 12 --set minimax.steps=1500
  ddbench run --method d3hr,dit,d4m --dataset digits --ipc 1,10 --tuned results/tuning/digits.yaml
"""
)
@click.option("--method", "methods", multiple=True, required=True, help="Methods, wildcards allowed; repeatable.")
@click.option("--dataset", required=True, help="Tuned on DATASET@val: a part of its training split is held out.")
@click.option("--ipc", default="1", show_default=True, help="Images per class; several with commas.")
@click.option("--trials", default=6, show_default=True, help="Settings tried for each method and IPC, defaults first.")
@click.option("--seeds", type=SEEDS, default=3, show_default=True, help="Seeds a trial.")
@click.option("--student", default="", help="Default: the protocol's.")
@click.option("--protocol", default="hard", show_default=True)
@click.option("--set", "sets", multiple=True, metavar="METHOD.KEY=VALUE", help="Fix a parameter; it is not tuned.")
@shared("backbone", "teacher", "precision", *DATA, *WORKERS)
@click.option(
    "--results", type=NamedPath(), default="results", show_default=True, help="Trials go to RESULTS/tuning/records."
)
@click.option("--plan", "plan_only", is_flag=True, help="Say what would run; run nothing.")
def tune(**options: Any) -> int:
    """Find each method's settings, every method with the same number of trials on the same validation images.

    Writes RESULTS/tuning/DATASET.yaml, which `run --tuned` takes; the records that it makes then name the trials. Where
    that file was tuned otherwise (another backbone, student, number of trials …), DATASET-2.yaml and so on.
    """
    from benchmark.cli.run import check_first, ipc_values
    from benchmark.data import load_dataset
    from benchmark.pipeline.request import Request, parse_sets, split_sets
    from benchmark.plugins import registry
    from benchmark.studies import tune as tuning
    from benchmark.studies.spec import Grid

    if options["trials"] < 1 or options["seeds"] < 1:
        raise UsageError("no trial can be made", where="--trials, --seeds", allowed="1 or more")
    reg = registry()
    methods = tuple(reg.select("method", options["methods"], where="--method"))
    reg.get("dataset", options["dataset"].removesuffix("@val"), where="--dataset")
    reg.get("protocol", options["protocol"], where="--protocol")
    given, protocol = split_sets(parse_sets(options["sets"]), methods)
    ipc = ipc_values(options["ipc"])
    chosen = {key: options[key] for key in ("backbone", "teacher", "precision")}
    sets = {f"{m}.{k}": v for m, values in given.items() for k, v in values.items()}
    wanted = Request(options["dataset"], methods, ipc, protocols=(options["protocol"],), sets=sets, **chosen)
    wanted = replace(wanted, data_root=options["data_root"], dataset_options=dataset_options(options))
    wanted = settled(wanted, options["device"])
    chosen["precision"] = options["precision"] = wanted.precision
    check_first(wanted, methods, options["device"])
    name = options["dataset"].removesuffix("@val")
    base = {"dataset": f"{name}@val", "protocol": options["protocol"], "student": options["student"]}
    base |= chosen
    base |= {f"protocol.{k}": v for k, v in protocol.items()}
    base |= {f"dataset.{k}": v for k, v in dataset_options(options).items()}
    seeds = tuple(range(options["seeds"]))
    grid = Grid("tune", base=base, axes={"method": methods}, seeds=seeds)
    size = registry().get("dataset", name).image_size  # known but for a folder of images
    size = size or load_dataset(name, root=options["data_root"], **dataset_options(options)).image_size
    cells = tuning.cells(methods, ipc, options["trials"], base, given, size)
    return _run(grid, cells, Path(options["results"]) / "tuning", name, options, given, size)


def _run(grid, cells, results: Path, name: str, options: dict[str, Any], given: dict, size: int | None) -> int:
    from benchmark.cli.run import execution_of
    from benchmark.core.store import Store
    from benchmark.data import load_dataset
    from benchmark.pipeline.jobs import Context
    from benchmark.pipeline.run import carry_out
    from benchmark.studies import run as grids
    from benchmark.studies import tune as tuning

    how, store = execution_of({**options, "results": results}, planning=options["plan_only"]), Store()
    root, device = options["data_root"], how.device

    def plan(seeds, some):
        return grids.plan_grid(replace(grid, seeds=seeds), some, store, results, device, data_root=root)

    planned = plan(grid.seeds, cells)
    if distributed.leads():
        click.echo(f"tune {name}: " + grids.describe(planned, Context(store, results, device)))
    if options["plan_only"]:
        return 0
    if all(planned.faults):
        raise UsageError(f"no trial can run: {planned.faults[0]}", where="ddbench tune")
    failures, count = 0, options["trials"]
    while True:
        failures += bool(carry_out(planned.plan, how)[0])
        found = tuning.chosen(cells, grids.gather(planned, results, grid.seeds), len(grid.seeds))
        more = [c for c in tuning.further(found, count, grid.base, given, size) if c.axes["trial"] < LIMIT * count]
        if not more:
            break
        if distributed.leads():
            click.echo(f"{len(more)} further trials: for some that failed, or beyond the edge of an axis")
        cells = [*cells, *more]
        planned = plan(grid.seeds, cells)
    rows = grids.gather(planned, results, grid.seeds)
    winners = tuning.winners(found, grid.base)
    if winners:
        fresh = tuple(len(grid.seeds) + seed for seed in grid.seeds)
        again = plan(fresh, winners)
        failures += bool(carry_out(again.plan, how)[0])
        tuning.add_fresh(found, winners, grids.gather(again, results, fresh))
    if not distributed.leads():
        return 0
    held = load_dataset(grid.base["dataset"], root=root, **dataset_options(options))
    about = {"dataset": grid.base["dataset"], "digest": held.digest, "protocol": options["protocol"]}
    about |= {"protocol_changes": {k: v for k, v in grid.base.items() if k.startswith("protocol.")}}
    about |= {"student": options["student"] or _student(rows)}
    about |= {key: options[key] for key in ("backbone", "teacher", "precision")}
    about |= {"seeds": len(grid.seeds), "budget": options["trials"]}
    if seen := _seen(options):
        about["seen"] = seen
    usual = results / f"{name.replace(':', '-').replace('/', '_')}.yaml"
    file = tuning.write(usual, about, found)
    if file != usual:
        others = ", ".join(tuning.differing(tuning.read(usual), about))
        click.echo(f"{usual} stays as it is: it was tuned otherwise ({others})", err=True)
    click.echo("\n" + _table(found) + f"\n\ntuning file  {file}\nnext         ddbench run … --tuned {file}")
    return 1 if failures else 0


def _seen(options: dict[str, Any]) -> str:
    """What was not trained here on the kept part alone, and may know the held-out images; empty where nothing."""
    from benchmark.plugins import registry

    backbone = options["backbone"] and options["backbone"] not in registry().names("backbone")
    given = [name for name, there in (("backbone", backbone), ("teacher", "@" in options["teacher"])) if there]
    return " and ".join(given)


def _student(rows: list[dict]) -> str:
    return next((r["student"] for r in rows if r.get("student")), "")


def _table(found: dict[str, dict[int, dict]]) -> str:
    from benchmark.core.sheet import plain, simple

    lines = []
    for method, by_ipc in found.items():
        for ipc, entry in by_ipc.items():
            first = entry["trials"][0].get("top1")
            changed = ", ".join(f"{k}={v}" for k, v in entry.get("params", {}).items()) or "defaults"
            scores = [_score(value) for value in (first, entry.get("top1", "failed"), entry.get("fresh"))]
            lines.append([method, ipc, len(entry["trials"]), *scores, changed])
    heads = ["method", "IPC", "trials", "defaults", "best", "best on fresh seeds", "chosen"]
    return plain([simple("", heads, lines, "lrrrrrl")]).rstrip("\n")


def _score(value: float | str | None) -> str | None:
    return f"{value:.1f}" if isinstance(value, float) else value
