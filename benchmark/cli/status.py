"""``status``: how far the runs in the store are, who works on them, how to go on, and what can be forgotten."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import click

from benchmark.cli.options import table_format
from benchmark.core.errors import MissingError, UsageError
from benchmark.core.sheet import Sheet, render, simple


@click.command(
    epilog="\b\nExamples:\n  ddbench status\n  ddbench status --watch\n  ddbench status --clean"
    "\n  ddbench status --clean 20261123-101500-1a2b3c4d"
)
@click.argument("name", metavar="[RUN]", default="")
@click.option("--watch", is_flag=True, help="Repeat until nobody works any more.")
@click.option("--seconds", default=2.0, show_default=True, help="Pause between looks.")
@click.option("--clean", is_flag=True, help="Forget RUN, or all runs that have ended (results stay).")
@table_format()
def status(name: str, watch: bool, seconds: float, clean: bool, form: str) -> None:
    """Runs in the store: jobs done by kind, what every worker is doing, failures, logs, and how to go on.

    A run that ends well leaves no trace here, and repeating a command clears what its earlier attempts left.
    """
    from benchmark.core.store import Store
    from benchmark.pipeline.runs import Run

    store = Store()

    def chosen() -> list[Run]:
        return [run for run in Run.all(store) if name in ("", run.folder.name)]

    if name and not chosen():
        raise MissingError(f"no run {name!r}", where=str(store.root / "runs"), hint="ddbench status")
    if clean:
        _clean(chosen(), bool(name))
        return
    if form != "table":
        click.echo(render([_sheet(chosen())], form, "ddbench status"), nl=False)
        return
    while True:
        runs = chosen()
        if not runs:
            click.echo(f"no unfinished runs in {store.root}")
        working = [_print(run) for run in runs]
        if not (watch and any(working)):
            return
        time.sleep(seconds)
        click.echo()


def state_of(run, workers: list[dict], done: int, total: int, failed: int) -> str:
    """What has become of a run, in a word or two; no file but the run's own is looked at."""
    if workers:
        return "running"
    if total and done >= total:
        return "finished"
    if failed and done + failed >= total:
        return "ended with failures"
    if run.about.get("emitted"):
        return "waiting for workers" if not done and not failed else "begun; waiting for workers"
    return "stopped"


def _sheet(runs: list) -> Sheet:
    """A line a run; its workers and failures in the documents."""
    rows, documents = [], []
    for run in runs:
        about, done, failures, workers = run.about, run.done(), run.failures(), run.workers()
        totals = about.get("totals", {})
        state = state_of(run, workers, sum(done.values()), sum(totals.values()), len(failures))
        jobs = {kind: {"done": done[kind], "total": total} for kind, total in totals.items()}
        text = ", ".join(f"{kind} {n['done']}/{n['total']}" for kind, n in jobs.items())
        rows.append((run.folder.name, state, text, len(failures), len(workers), about.get("command", "")))
        documents.append(
            {"run": run.folder.name, "state": state, "jobs": jobs, "failures": failures, "workers": workers}
            | {"logs": str(run.folder / "logs"), "command": about.get("command", ""), "folder": about.get("cwd", "")}
        )
    heads = ["run", "state", "jobs", "failed", "workers", "command"]
    return simple("", heads, rows, "lllrrl", documents=documents)


def _print(run) -> bool:
    """Print one run; whether somebody works on it."""
    about, done, failures, workers = run.about, run.done(), run.failures(), run.workers()
    totals = about.get("totals", {})
    state = state_of(run, workers, sum(done.values()), sum(totals.values()), len(failures))
    counts = "  ".join(f"{kind} {done[kind]}/{total}" for kind, total in totals.items())
    lost = f"  failed {len(failures)}" if failures else ""
    click.echo(f"{run.folder.name}  {state}:  {counts}{lost}")
    for worker in workers:
        if "job" in worker:
            seconds = max(0.0, time.time() - worker.get("since", 0))
            what = worker.get("progress") or worker["label"]
            where = f"{worker.get('node', worker['host'])} {worker['pid']} on {worker['device']}"
            click.echo(f"  {where}, {seconds:.0f} s:  {what}")
    for key, reason in list(failures.items())[:3]:
        click.echo(f"  failed {key[:12]}: {reason.splitlines()[0]}")
    if len(failures) > 3:
        click.echo(f"  … {len(failures) - 3} more")
    click.echo(f"  logs    {run.folder / 'logs'}/")
    if state in ("stopped", "ended with failures") and about.get("command"):
        inside = "" if about["cwd"] == os.getcwd() else f"cd {about['cwd']} && "
        click.echo(f"  resume  {inside}{about['command']}")
    elif state not in ("finished", "ended with failures"):
        click.echo(f"  {'help' if workers else 'resume':7} ddbench worker {run.folder}")
    if state in ("finished", "ended with failures"):
        click.echo(f"  forget  ddbench status --clean {run.folder.name}")
    return bool(workers)


def _clean(runs: list, named: bool) -> None:
    """Remove runs that nobody works on; of emitted plans only finished ones, unless named."""
    for run in runs:
        workers, totals = run.workers(), run.about.get("totals", {})
        ended = sum(run.done().values()) + len(run.failures()) >= sum(totals.values())
        if workers and named:
            raise UsageError(f"{len(workers)} processes work on {run.folder.name}", where="--clean", hint="stop them")
        if workers or (run.about.get("emitted") and not ended and not named):
            click.echo(f"kept {run.folder.name}: {'at work' if workers else 'its workers are still to come'}")
            continue
        shutil.rmtree(Path(run.folder))
        click.echo(f"forgotten {run.folder.name}")
