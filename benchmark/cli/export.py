"""``export``: a distilled set as a Hugging Face imagefolder."""

from __future__ import annotations

from pathlib import Path

import click

from benchmark.cli.options import NamedPath, good_records


@click.command(
    epilog="""\b
Examples:
  ddbench distill --method d3hr --dataset digits --ipc 10 --seeds 1 --out my-set
  ddbench export my-set --out hub/d3hr-digits-ipc10 --license cc-by-4.0
  ddbench evaluate hub/d3hr-digits-ipc10
"""
)
@click.argument("folder", type=NamedPath(file_okay=False))
@click.option("--out", required=True, type=NamedPath(), help="Folder to write; new or empty.")
@click.option("--name", default="", help="Title of the dataset card.")
@click.option("--license", "licence", default="", help="Identifier for the card, e.g. cc-by-4.0. Default: other.")
@click.option(
    "--results", type=NamedPath(file_okay=False), default="results", show_default=True,
    help="Results folder whose scores of this set go into the card, if there is one.",
)  # fmt: skip
def export(folder: Path, out: Path, name: str, licence: str, results: Path) -> int:
    """Copy a distilled set with a dataset card, checksums, its licence and how it was made; `evaluate` reads it."""
    from benchmark.results.boards import rows
    from benchmark.sets.card import CHECKSUMS
    from benchmark.sets.card import export as write

    write(folder, out, name=name, licence=licence, rows=rows(good_records(results)))
    click.echo(f"exported to {out}: {sum(1 for _ in out.glob('*/*.png'))} images, README.md, {CHECKSUMS}")
    return 0
