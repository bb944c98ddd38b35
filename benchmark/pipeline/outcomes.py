"""Writes the record of a finished, failed or skipped cell, and copies its contact sheet beside the records."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.core.document import Document
from benchmark.core.outputs import replacing
from benchmark.core.store.store import disk_errors
from benchmark.results.records import Identity, Outcome, Record, find_record, write_record

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Tested(Document):
    """What training and testing a student gave: the file ``outcome.json`` of its artifact."""

    scores: dict[str, Any]
    cost: dict[str, Any]
    gates: dict[str, Any]
    flags: tuple[str, ...]
    resolved: dict[str, Any]  # the protocol's values where they depend on dataset and IPC


@dataclass(frozen=True)
class Skipped(Document):
    """A cell that cannot run, and why; ``failed`` where that is a fault: of a plug-in that could not be asked."""

    identity: Identity
    reason: str
    failed: bool = False


def write_outcome(record: Record, results: Path) -> None:
    """Write a record, unless an equal one (identity, outcome, scores) is already there."""
    old, new = find_record(results, record.identity.to_json()), record.outcome
    if old is not None:
        there = Outcome.from_json(old["outcome"])
        if there.status == new.status == "ok" and old["scores"]["top1_last"] == record.scores["top1_last"]:
            record = replace(record, scores=old["scores"] | record.scores)  # keeps metrics that were asked for earlier
        if there == new and old["scores"] == record.to_json()["scores"]:
            return
        if new.status != "ok" and there.status == "ok":
            return
    with disk_errors(results):
        write_record(results, record.to_json())


def write_student(
    identity: Identity,
    tested: Tested,
    results: Path,
    *,
    folder: Path,
    made: dict[str, Any],
    notes: dict[str, Any],
    more: dict[str, Any],
) -> None:
    """Write the record of a trained student of the set in ``folder``.

    Args:
        made: the cost of making the set, from its manifest.
        notes: of the dataset, about files that were read or skipped.
        more: artifacts of the record besides those that this function knows.
    """
    from benchmark.sets.released import image_files
    from benchmark.sets.shards import parquet_files
    from benchmark.sets.tensors import tensor_file

    stored = parquet_files(folder) or image_files(folder) if folder.is_dir() else [tensor_file(folder)]
    cost = tested.cost | {
        "distill_seconds": made.get("seconds"),
        "distill_shared_seconds": made.get("shared_seconds"),
        "distill_peak_memory_bytes": made.get("peak_memory_bytes"),
        "image_bytes": sum(f.stat().st_size for f in stored if f.name != "contact_sheet.png"),
    }
    artifacts = more | {
        "set": identity.set,
        "resolved": tested.resolved,
        "data": {k: v for k, v in notes.items() if k in ("format", "layout", "skipped files", "not read")},
    }
    flags = tested.flags + ((f"skipped {notes['skipped']}",) if "skipped" in notes else ())
    outcome = Outcome("ok", "", flags)
    write_outcome(Record(identity, outcome, tested.scores, cost, tested.gates, artifacts), results)


def write_skipped(cells: Iterable[Skipped], results: Path) -> None:
    """A cell that cannot run is a row too."""
    for cell in cells:
        write_outcome(Record(cell.identity, Outcome("failed" if cell.failed else "skipped", cell.reason)), results)
        print(f"{'FAILED' if cell.failed else 'skipped'} {cell.identity.method.name}: {cell.reason}", file=sys.stderr)


def write_failure(identity: Identity, reason: str, results: Path) -> None:
    """A failed evaluation is a row too."""
    write_outcome(Record(identity, Outcome("failed", reason)), results)


def sheet_name(identity: Identity) -> str:
    """The file name of a set's contact sheet: what a person can read, no longer than a file system takes."""
    words = (identity.dataset.name, identity.method.name)
    dataset, method = (re.sub(r"[^A-Za-z0-9._+@ -]", "_", word)[:48] for word in words)
    return f"{dataset}-{method}-ipc{identity.ipc}-s{identity.seed}-{identity.set[:8]}.png"


def keep_sheet(folder: Path, identity: Identity, results: Path, draw: Callable[[], Image.Image]) -> str:
    """Copy the contact sheet beside the records; of a set that comes without one, what ``draw`` makes."""
    source = folder / "contact_sheet.png"
    name = sheet_name(identity)
    target = results / "sets" / name
    if not target.is_file():
        with disk_errors(results), replacing(target) as temporary:
            if source.is_file():
                shutil.copyfile(source, temporary)
            else:
                draw().save(temporary)
    return f"sets/{name}"
