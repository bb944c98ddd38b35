"""``results``: verify a folder of records, take over somebody's."""

from __future__ import annotations

from pathlib import Path

import click

FOLDER = click.Path(path_type=Path, file_okay=False)


@click.group(
    epilog="\b\nExamples:\n  ddbench results verify\n  ddbench results verify theirs/\n  ddbench results add theirs/"
)
def results() -> None:
    """Verify records, or add somebody's records to a results folder and rebuild its board."""


@results.command()
@click.argument("folder", type=FOLDER, default="results")
@click.option("--strict", is_flag=True, help="Doubts count as errors.")
def verify(folder: Path, strict: bool) -> int:
    """Check every record of FOLDER: schema, id, digest, duplicates, gates; and that leaderboard.csv is up to date.

    Exit code 1 where something is wrong.
    """
    from benchmark.results.boards import csv_text, rows
    from benchmark.results.records import iter_records
    from benchmark.results.records.remake import commands
    from benchmark.results.records.submissions import results_folder, summary
    from benchmark.results.records.submissions import verify as check

    folder = results_folder(folder)
    verdict = check(folder)
    click.echo(f"{verdict.records} good records, {verdict.ok} of them with scores, in {folder / 'records'}")
    if verdict.faults:
        click.echo(f"{len(verdict.faults)} bad:\n{summary(verdict.faults)}", err=True)
    if verdict.doubts:
        click.echo(f"{len(verdict.doubts)} doubts:\n{summary(verdict.doubts)}", err=True)
    if verdict.dirty:
        clean = f"{folder.resolve().name}-clean"
        lines = [*commands(verdict.dirty, clean), f"ddbench results add {clean} --results {folder}"]
        text = "\n".join(f"  {line}" for line in lines)
        click.echo(f"clean ones: commit, then (with the same --backbone and --teacher, if any)\n{text}", err=True)
    stale = False
    board = folder / "leaderboard.csv"
    if board.is_file() and not verdict.faults:
        stale = board.read_text(encoding="utf-8") != csv_text(rows(iter_records(folder)))
        click.echo(f"{board}: " + ("not what the records give; run ddbench leaderboard" if stale else "up to date"))
    return 1 if verdict.faults or stale or (strict and verdict.doubts) else 0


@results.command()
@click.argument("folder", type=FOLDER)
@click.option("--results", "target", type=FOLDER, default="results", show_default=True, help="Folder to add to.")
@click.option("--replace", is_flag=True, help="Where both have a record and the scores differ, take the new one.")
def add(folder: Path, target: Path, replace: bool) -> int:
    """Check the records of FOLDER and take over all of them or none; then rebuild leaderboard.csv."""
    from benchmark.results.boards import write_csv
    from benchmark.results.records import iter_records
    from benchmark.results.records.submissions import add as take
    from benchmark.results.records.submissions import doubts, results_folder

    folder = results_folder(folder)
    added = take(folder, target, replace=replace)
    board = write_csv(iter_records(target), target / "leaderboard.csv")
    clean = f", {len(added.cleaned)} made clean" if added.cleaned else ""
    click.echo(
        f"{len(added.new)} new, {len(added.replaced)} replaced{clean}, {added.same} already there; {board} rebuilt"
    )
    open_questions = sum(bool(list(doubts(record))) for record in iter_records(folder))
    if open_questions:
        click.echo(f"{open_questions} of the records raise doubts: ddbench results verify {folder}", err=True)
    return 0
