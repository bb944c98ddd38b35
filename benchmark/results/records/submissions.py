"""Somebody else's records: checked in full, then taken over."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmark.core.errors import DataError, MissingError
from benchmark.core.foreign import inside, opened_image, read_bytes
from benchmark.core.outputs import writable_folder
from benchmark.results.records.adding import adding
from benchmark.results.records.files import FOLDER, Fault, find_record, iter_records, record_path, write_record
from benchmark.results.records.remake import is_dirty

BESIDE = ("contact_sheet",)  # artifacts that travel with a record
PICTURE_BYTES = 50_000_000


@dataclass
class Verdict:
    """What a results folder holds: ``faults`` make a record unusable, ``doubts`` a person should look at."""

    records: int = 0
    ok: int = 0
    faults: list[Fault] = field(default_factory=list)
    doubts: list[Fault] = field(default_factory=list)
    dirty: list[dict] = field(default_factory=list)  # records made from code that was in no commit


def results_folder(path: Path) -> Path:
    """The results folder that a user means: the folder itself, or the parent of its ``records``.

    Raises:
        MissingError: there are no records.
    """
    path = Path(path)
    if path.name == FOLDER and not (path / FOLDER).is_dir():
        path = path.parent
    if not any((path / FOLDER).glob("*.json")):
        raise MissingError(f"no records in {path / FOLDER}", allowed=f"a results folder: {FOLDER}/*.json inside")
    return path


def verify(results: Path) -> Verdict:
    """Check every record: schema, id, digest, duplicates, file name; and raise doubts about gates and provenance."""
    verdict = Verdict()
    sets: dict[str, tuple[str, str]] = {}
    for record in iter_records(results, verdict.faults):
        verdict.records += 1
        verdict.ok += record["outcome"]["status"] == "ok"
        path = record_path(results, record["identity"])
        if not path.is_file():
            verdict.doubts.append(Fault(path, "the file should have this name; another file holds the record"))
        verdict.doubts += [Fault(path, text) for text in doubts(record)]
        if is_dirty(record):
            verdict.dirty.append({name: record[name] for name in ("identity", "provenance")})
        identity = record["identity"]
        if identity["set"]:
            owner = (identity["method"]["name"], identity["dataset"]["digest"])
            if sets.setdefault(identity["set"], owner) != owner:
                verdict.doubts.append(Fault(path, f"its set is also said to be of {sets[identity['set']][0]}"))
    return verdict


def doubts(record: dict) -> Iterable[str]:
    """What schema and digests cannot show: gates that were not passed, numbers that cannot belong together."""
    if record["outcome"]["status"] != "ok":
        return
    gates, scores = record["gates"], record["scores"]
    teacher, found = gates.get("teacher") or {}, gates.get("set") or {}
    if teacher.get("status") != "ok":
        yield f"the teacher's gate is {teacher.get('status', 'not recorded')}"
    if not found:
        yield "the gate of the distilled set is not recorded"
    elif found.get("status") == "ok" and not (found.get("recognised") or 0) > (found.get("chance") or 0):
        yield f"the set's gate says ok at {found.get('recognised')} % recognised, chance {found.get('chance')} %"
    if scores["top1_best"] < scores["top1_last"] - 1e-6:
        yield f"top1_best {scores['top1_best']} is below top1_last {scores['top1_last']}"
    curve = scores.get("curve") or []
    if curve and abs(curve[-1][1] - scores["top1_last"]) > 1e-6:
        yield f"the curve ends at {curve[-1][1]}, top1_last is {scores['top1_last']}"
    if curve and abs(max(point[1] for point in curve) - scores["top1_best"]) > 1e-6:
        yield f"the curve's best is {max(point[1] for point in curve)}, top1_best is {scores['top1_best']}"
    if not record["provenance"].get("ddbench"):
        yield "provenance does not say which version of ddbench made it"
    if is_dirty(record):
        yield f"made with changes that are in no commit ({record['provenance']['commit']})"


@dataclass
class Added:
    """What `add` did."""

    new: list[Path] = field(default_factory=list)
    same: int = 0  # what was there stays: equal, or scores where the new one has none
    cleaned: list[Path] = field(default_factory=list)  # equal scores, now made from a commit
    replaced: list[Path] = field(default_factory=list)


def add(source: Path, target: Path, *, replace: bool = False) -> Added:
    """Take over all records of ``source`` (and their contact sheets), or none, also where the process is killed.

    A record that is there already must have equal scores, unless ``replace``; it stays, unless it was made from
    uncommitted code and the new one was not. Scores take the place of a failure or a skip, never the reverse.

    Raises:
        DataError: a bad record, or one that contradicts an existing record.
    """
    verdict = verify(source)
    if verdict.faults:
        raise DataError(
            f"{len(verdict.faults)} of {len(verdict.faults) + verdict.records} records are bad; nothing was added",
            where=f"{verdict.faults[0].path}: {verdict.faults[0].reason}",
            allowed="records as ddbench wrote them",
            hint=f"ddbench results verify {source}",
        )
    added, conflicts, incoming = Added(), [], []
    for record in iter_records(source):
        path, old = record_path(target, record["identity"]), find_record(target, record["identity"])
        if old is not None and _stays(old, record):
            added.same += 1
            continue
        if old is None:
            added.new.append(path)
        elif _result(old) == _result(record):
            added.cleaned.append(path)
        else:
            added.replaced.append(path)
            conflicts += [path] * (_succeeded(old) == _succeeded(record))
        incoming.append(record)
    if conflicts and not replace:
        raise DataError(
            f"{len(conflicts)} records contradict records with the same identity; nothing was added",
            where=str(conflicts[0]),
            allowed="equal scores: the same identity gives the same result on the same kind of hardware",
            hint="look at both; --replace takes the new ones",
        )
    writable_folder(target, "--results")
    with adding(target) as stage:
        for record in incoming:
            _copy_beside(record, source, target, stage)
            write_record(stage, record, durable=False)
    return added


def _stays(old: dict, new: dict) -> bool:
    """Whether the record that is there is as good as the new one or better, and does not contradict it."""
    if _result(old) == _result(new):
        return not is_dirty(old) or is_dirty(new)
    return _succeeded(old) and not _succeeded(new)


def _result(record: dict) -> tuple[dict, dict]:
    return record["outcome"], record["scores"]


def _succeeded(record: dict) -> bool:
    return record["outcome"]["status"] == "ok"


def _copy_beside(record: dict, source: Path, target: Path, stage: Path) -> None:
    """Stage the pictures that a record names, where they are pictures inside ``source`` and ``target`` has none."""
    for name in BESIDE:
        relative = record["artifacts"].get(name)
        if not relative or os.path.lexists(inside(target, relative)):
            continue
        with contextlib.suppress(DataError, OSError):  # a record without its picture is a record all the same
            with opened_image(inside(source, relative)):
                pass
            content = read_bytes(inside(source, relative), most=PICTURE_BYTES)
            goal = inside(stage, relative)
            goal.parent.mkdir(parents=True, exist_ok=True)
            goal.write_bytes(content)


def summary(faults: Sequence[Fault], most: int = 20) -> str:
    """The first faults, a line each; equal ones share a line that names the first file."""
    files: dict[str, list[str]] = defaultdict(list)
    for fault in faults:
        files[fault.reason].append(fault.path.name)
    lines = [
        f"  {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "") + f": {reason}"
        for reason, names in list(files.items())[:most]
    ]
    return "\n".join(lines + ([f"  … and {len(files) - most} more"] if len(files) > most else []))
