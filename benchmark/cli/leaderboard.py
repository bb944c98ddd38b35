"""``leaderboard``: rebuild the CSV from records, print tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from benchmark.cli.options import FILTERS, NamedPath, filters, good_records, no_records, table_format
from benchmark.core.errors import DDBenchError, UsageError


def read_rows(results: Path, wanted: dict[str, Sequence[str]]) -> tuple[list[dict], list]:
    """The rows of a results folder that match, and the bad files, which are named and left out."""
    from benchmark.results import boards as leaderboard
    from benchmark.results.boards.boards import select

    faults: list = []
    rows = leaderboard.rows(good_records(results, faults))
    if not rows:
        raise no_records(results, faults)
    return select(rows, wanted), faults


@click.command(
    epilog="""\b
Examples:
  ddbench leaderboard                                   rebuild results/leaderboard.csv, print the boards
  ddbench leaderboard --format markdown --dataset digits --protocol hard
  ddbench leaderboard --format latex --ipc 1,10 --out board.tex
  ddbench leaderboard --format latex --columns 'method,IPC*' --student convnet3_bn
  ddbench leaderboard --update README.md                refresh the tables between its markers
"""
)
@filters
@table_format(columns=True)
@click.option("--out", type=NamedPath(dir_okay=False), help="Write there instead of printing.")
@click.option("--reported/--no-reported", default=True, show_default=True, help="Published numbers beside measured.")
@click.option("--min-seeds", type=click.IntRange(0), default=0, help="Leave out results of fewer seeds.")
@click.option("--ignore-bad", is_flag=True, help="Exit code 0 though bad records were left out (else 1).")
@click.option("--update", type=NamedPath(exists=True, dir_okay=False), help="Markdown file to refresh.")
def leaderboard(**options: Any) -> int:
    """Rebuild leaderboard.csv from the records and print the boards: methods down, IPC × student across.

    Rows of different protocols, datasets, teachers or precisions are never averaged; each board names what it holds.
    """
    from benchmark.core.outputs import write_text

    results, out, update = options["results"], options["out"], options["update"]
    if update is not None:
        return _update(update, results, options["ignore_bad"])
    text, rows, faults = _text(options)
    if out is not None:
        write_text(text, out, "--out")
        click.echo(f"{len(rows)} rows written to {out}")
    else:
        click.echo(text, nl=False)
    if not _wanted(options):
        from benchmark.results.boards import csv_text

        write_text(csv_text(rows), results / "leaderboard.csv", within=results)
    groups = {(r["dataset_digest"], r["protocol_digest"]) for r in rows}
    if len(groups) > 1 and options["form"] not in ("csv", "json"):
        click.echo(
            f"{len(groups)} pairs of dataset and protocol, a table each: nothing is averaged over them", err=True
        )
    return 1 if faults and not options["ignore_bad"] else 0


def _wanted(options: dict[str, Any]) -> dict[str, Sequence[str]]:
    return {name: options[name] for name in (*FILTERS, "ipc") if options[name]}


def _text(options: dict[str, Any]) -> tuple[str, list[dict], list]:
    from benchmark.results.boards.formats import render
    from benchmark.results.boards.reported import read_reported

    rows, faults = read_rows(options["results"], _wanted(options))
    shown = [row for row in rows if row["seeds"] >= options["min_seeds"]]
    left = f"Results of fewer than {options['min_seeds']} seeds are left out: {len(rows) - len(shown)}."
    notes = [left] if len(shown) < len(rows) else []
    published = read_reported() if options["reported"] else ()
    return render(shown, options["form"], published, notes, options["columns"]), rows, faults


def block(command: str, arguments: list[str], page: Path, results: Path) -> str:
    """What the command prints as Markdown with these arguments: the body of a block in the file ``page``.

    Args:
        results: the results folder, where the arguments name none (relative to ``page``).
    """
    from benchmark.cli.compare import compare, found
    from benchmark.results.boards.differences import render as differences

    if command == "reproduction":
        from benchmark.results.boards.reproduction import markdown as table

        return table(_reproduction(page))
    if command == "methods":
        from benchmark.results.report.methods import markdown as about

        return about(read_rows(results, {})[0], page.parent / page.stem)
    program = {"leaderboard": leaderboard, "compare": compare}[command]
    try:
        options = program.make_context(command, ["--format", "markdown", "--results", str(results), *arguments]).params
    except click.ClickException as error:
        raise UsageError(error.format_message(), where=str(page), hint=f"ddbench {command} --help") from error
    if options["results"] != results:
        options["results"] = page.parent / options["results"]
    return (
        _text(options)[0] if command == "leaderboard" else differences(found(**options), "markdown", options["columns"])
    )


def _reproduction(page: Path) -> list[dict]:
    """The lines of the page's table of reproductions, described in the file of its name that ends in .yaml."""
    from functools import cache

    from benchmark.results.boards.reproduction import table

    return table(page.with_suffix(".yaml"), cache(lambda folder: read_rows(folder.resolve(), {})[0]))


def _document(file: Path) -> str:
    from benchmark.core.foreign import read_bytes

    try:
        return read_bytes(file, links=True).decode("utf-8")
    except UnicodeDecodeError as error:
        allowed, hint = "a Markdown file in UTF-8", f"iconv -t UTF-8 {file}"
        raise UsageError(f"{file} is not UTF-8: {error}", where="--update", allowed=allowed, hint=hint) from error


def _update(file: Path, results: Path, ignore_bad: bool) -> int:
    from benchmark.core.outputs import write_text
    from benchmark.results.boards import csv_text
    from benchmark.results.boards.readme import blocks, refresh

    text = _document(file)
    try:
        found = blocks(text)
    except DDBenchError as error:
        error.where = f"{file}, {error.where}"
        raise
    if not found:
        raise UsageError(
            f"{file} holds no table to refresh",
            where="--update",
            allowed="a line <!-- ddbench leaderboard OPTIONS --> (or compare), then later a line <!-- /ddbench -->",
        )
    rows, faults = read_rows(results, {})
    write_text(csv_text(rows), results / "leaderboard.csv", within=results)
    if any(command == "methods" for command, *_ in found):
        from benchmark.results.report.methods import draw

        draw(results / "sets", file.parent / file.stem)
    write_text(refresh(text, lambda command, arguments: block(command, arguments, file, results)), file, "--update")
    if any(command == "reproduction" for command, *_ in found):
        from benchmark.results.boards.reproduction import csv_text as data

        write_text(data(_reproduction(file)), file.with_suffix(".csv"), within=file.parent)
    click.echo(f"{len(found)} table(s) refreshed in {file}, leaderboard.csv rebuilt in {results}")
    return 1 if faults and not ignore_bad else 0
