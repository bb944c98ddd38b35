"""``status``: how far the runs in the store are."""

from __future__ import annotations

import time

import click


@click.command(epilog="\b\nExamples:\n  ddbench status\n  ddbench status --watch")
@click.option("--watch", is_flag=True, help="Repeat until the runs are done.")
@click.option("--seconds", default=2.0, show_default=True, help="Pause between looks.")
def status(watch: bool, seconds: float) -> None:
    """Progress of the unfinished runs in the store: jobs done by kind, failures, and the command that resumes."""
    while _print() and watch:
        time.sleep(seconds)


def _print() -> bool:
    """Print every run; whether one is unfinished."""
    from pathlib import Path

    from benchmark.pipeline.engine import Run
    from benchmark.pipeline.jobs import Context, is_done
    from benchmark.store import Store

    store = Store()
    folders = sorted((store.root / "runs").glob("*/plan.json"))
    if not folders:
        click.echo(f"no unfinished runs in {store.root}")
        return False
    unfinished = False
    for file in folders:
        run = Run(file.parent)
        plan = run.plan
        context = Context(store, Path(plan.results), plan.device)
        failures = run.failures()
        parts = []
        for kind in dict.fromkeys(job.kind for job in plan.jobs):
            jobs = plan.of_kind(kind)
            done = sum(is_done(job, context) for job in jobs)
            parts.append(f"{kind} {done}/{len(jobs)}")
            unfinished |= done < len(jobs) - sum(j.key in failures for j in jobs)
        click.echo(f"{file.parent.name}  " + "  ".join(parts) + (f"  failed {len(failures)}" if failures else ""))
    click.echo("resume by repeating the command, or: ddbench worker " + str(folders[-1].parent))
    return unfinished
