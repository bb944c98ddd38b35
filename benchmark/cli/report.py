"""``report``: one self-contained HTML page."""

from __future__ import annotations

from pathlib import Path

import click

from benchmark.core.errors import MissingError


@click.command(
    epilog="\b\nExamples:\n  ddbench report\n  ddbench report --results results --out page.html --title Study"
)
@click.option(
    "--results", type=click.Path(path_type=Path, file_okay=False), default="results", show_default=True,
    help="Results folder.",
)  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Default: RESULTS/report.html.")
@click.option("--title", default="ddbench results", show_default=True)
@click.option("--ignore-bad", is_flag=True, help="Leave bad records out, with a warning, instead of stopping.")
def report(results: Path, out: Path | None, title: str, ignore_bad: bool) -> int:
    """Everything on one page: boards, sortable results, plots, images, protocols, provenance. Needs no network."""
    from benchmark.core.outputs import write_text
    from benchmark.results.records import iter_records
    from benchmark.results.report import build

    faults: list = []
    page = build(iter_records(results, faults if ignore_bad else None), results, title)
    for fault in faults:
        click.echo(f"warning: left out: {fault}", err=True)
    if '"rows":[]' in page:
        raise MissingError(f"no records in {results / 'records'}", hint="ddbench run … writes some; or give --results")
    path = write_text(page, out, "--out") if out else write_text(page, results / "report.html", within=results)
    click.echo(f"report {path} ({len(page.encode('utf-8', 'replace')) / 1e6:.1f} MB)")
    return 0
