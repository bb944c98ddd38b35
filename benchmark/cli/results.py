"""``results``: verify a folder of records, take over somebody's."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from benchmark.cli.options import NamedPath, good_records, shared
from benchmark.core.errors import DDBenchError

FOLDER = NamedPath(file_okay=False)


@click.group(
    epilog="\b\nExamples:\n  ddbench results verify\n  ddbench results verify theirs/\n  ddbench results add theirs/"
)
def results() -> None:
    """Verify records, or add somebody's records to a results folder and rebuild its board."""


@results.command()
@click.argument("folder", type=FOLDER, default="results")
@click.option("--strict", is_flag=True, help="Doubts count as errors.")
@click.option("--data", is_flag=True, help="Also hash the records' datasets anew, where they are here, and compare.")
@shared("data-root")
def verify(folder: Path, strict: bool, data: bool, data_root: str | None) -> int:
    """Check every record of FOLDER: schema, id, digest, duplicates, gates; and that leaderboard.csv is up to date.

    Exit code 1 where something is wrong. Records are always read and hashed in full; what is remembered by sizes and
    time stamps is the content of datasets, which --data works out anew.
    """
    from benchmark.core.foreign import read_bytes
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
        with contextlib.suppress(DDBenchError):
            stale = True
            stale = read_bytes(board) != csv_text(rows(iter_records(folder, []))).encode()
        click.echo(f"{board}: " + ("not what the records give; run ddbench leaderboard" if stale else "up to date"))
    other = _other_data(folder, data_root) if data else 0
    return 1 if verdict.faults or stale or other or (strict and verdict.doubts) else 0


def _other_data(folder: Path, root: str | None) -> int:
    """Say for each dataset whether its content is the one that the records name; how many are another."""
    from benchmark.core.store.keys import hashing_anew
    from benchmark.data import load_dataset
    from benchmark.results.records import iter_records

    named: dict[str, set[str]] = {}
    for record in iter_records(folder, []):
        dataset = record["identity"]["dataset"]
        named.setdefault(dataset["name"], set()).add(dataset["digest"])
    other = 0
    for name, digests in sorted(named.items()):
        try:
            with hashing_anew():
                found = load_dataset(name, root).digest
        except DDBenchError as error:
            click.echo(f"{name}: not compared: {error.what}", err=True)
            continue
        other += digests != {found}
        told = "as in the records" if digests == {found} else f"another content than in the records: {found[:12]}"
        click.echo(f"{name}: {told}")
    return other


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
    board = write_csv(good_records(target), target / "leaderboard.csv")
    clean = f", {len(added.cleaned)} made clean" if added.cleaned else ""
    click.echo(
        f"{len(added.new)} new, {len(added.replaced)} replaced{clean}, {added.same} already there; {board} rebuilt"
    )
    open_questions = sum(bool(list(doubts(record))) for record in iter_records(folder, []))
    if open_questions:
        click.echo(f"{open_questions} of the records raise doubts: ddbench results verify {folder}", err=True)
    return 0
