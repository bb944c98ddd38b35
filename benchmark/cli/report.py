"""``report``: one self-contained HTML page."""

from __future__ import annotations

from pathlib import Path

import click

from benchmark.cli.options import NamedPath, good_records, no_records


@click.command(
    epilog="\b\nExamples:\n  ddbench report\n  ddbench report --results results --out page.html --title Study"
)
@click.option(
    "--results", type=NamedPath(file_okay=False), default="results", show_default=True,
    help="Results folder.",
)  # fmt: skip
@click.option("--out", type=NamedPath(dir_okay=False), help="Default: RESULTS/report.html.")
@click.option("--title", default="ddbench results", show_default=True)
@click.option("--ignore-bad", is_flag=True, help="Exit code 0 though bad records were left out (else 1).")
def report(results: Path, out: Path | None, title: str, ignore_bad: bool) -> int:
    """Everything on one page: boards, sortable results, plots, images, protocols, provenance. Needs no network."""
    from benchmark.core.outputs import write_text
    from benchmark.results.report import build

    faults: list = []
    page = build(good_records(results, faults), results, title)
    if '"rows":[]' in page:
        raise no_records(results, faults)
    path = write_text(page, out, "--out") if out else write_text(page, results / "report.html", within=results)
    click.echo(f"report {path} ({len(page.encode('utf-8', 'replace')) / 1e6:.1f} MB)")
    return 1 if faults and not ignore_bad else 0
