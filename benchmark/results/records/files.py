"""Records on disk: ``<results>/records/*.json``, one a trained student, written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmark.core.errors import DataError, JobError
from benchmark.core.store.store import disk_errors
from benchmark.results.records.schema import ID_LENGTH, SCHEMA, record_id, seal, verify_record

FOLDER = "records"
SHORT_ID = 12


@dataclass(frozen=True)
class Fault:
    """A file that is no good record, and why."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def record_path(results_dir: Path | str, identity: dict) -> Path:
    """Where the record with this identity lies, or will lie."""
    words = (
        identity["dataset"]["name"],
        identity["method"]["name"],
        f"ipc{identity['ipc']}",
        identity["student"],
        identity["protocol"]["name"],
        f"s{identity['seed']}",
        record_id(identity)[:SHORT_ID],
    )
    name = "-".join(re.sub(r"[^A-Za-z0-9._+]+", "_", str(word)).strip("_.")[:48] or "_" for word in words)
    return Path(results_dir) / FOLDER / f"{name}.json"


def sealed(record: dict) -> dict:
    """The record with ``schema``, ``id`` and ``digest`` filled in.

    Raises:
        JobError: the record is not valid (NaN accuracy, a missing field): the code that made it is wrong.
    """
    record = {**record, "schema": SCHEMA, "id": "", "digest": ""}
    with contextlib.suppress(KeyError, ValueError, TypeError):  # NaN, or a part that is missing: named below
        record |= {"id": record_id(record["identity"]), "digest": seal(record)}
    faults = verify_record(record)
    if faults:
        raise JobError("a record is not valid: " + "; ".join(faults), where="benchmark.results.records.write_record")
    return record


def write_record(results_dir: Path | str, record: dict) -> Path:
    """Seal, validate and write a record atomically; one with the same identity is replaced.

    Args:
        record: ``identity outcome scores cost provenance gates artifacts`` (see `schema.FIELDS`); ``schema``, ``id``
            and ``digest`` are filled in.

    Raises:
        JobError: the record is not valid, or the disk is full.
        UsageError: the folder cannot be written.
    """
    record = sealed(record)
    path = record_path(results_dir, record["identity"])
    text = json.dumps(record, indent=1, sort_keys=True, allow_nan=False) + "\n"
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(text)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    return path


def find_record(results_dir: Path | str, identity: dict) -> dict | None:
    """The good record with this identity, or None (a damaged one counts as missing: it will be written again)."""
    path = record_path(results_dir, identity)
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return None if verify_record(record) else record


def iter_records(results_dir: Path | str, faults: list[Fault] | None = None) -> Iterator[dict]:
    """Every record below ``<results_dir>/records``, verified, in file-name order, one at a time in memory.

    Args:
        faults: bad files (unreadable, unknown schema, edited, the same record twice) are appended here and left
            out; without it the first one raises.

    Raises:
        DataError: a bad file, when ``faults`` is None.
    """
    seen: dict[str, str] = {}
    folder = Path(results_dir) / FOLDER
    try:
        names = sorted(entry for entry in os.listdir(folder) if entry.endswith(".json") and entry[0] != ".")
    except FileNotFoundError:
        return
    for name in names:
        path = os.path.join(folder, name)
        try:
            with open(path, "rb") as file:
                record = json.loads(file.read())
        except (OSError, ValueError) as error:
            _report(faults, Fault(Path(path), f"cannot be read as JSON ({error})"))
            continue
        wrong = verify_record(record)
        if not wrong and record["id"] in seen:
            wrong = [f"the same record (id {record['id'][:SHORT_ID]}) as {seen[record['id']]}"]
        if wrong:
            _report(faults, Fault(Path(path), "; ".join(wrong)))
            continue
        seen[record["id"]] = name
        yield record


def read_records(results_dir: Path | str, faults: list[Fault] | None = None) -> list[dict]:
    """`iter_records` as a list."""
    return list(iter_records(results_dir, faults))


def _report(faults: list[Fault] | None, fault: Fault) -> None:
    if faults is None:
        raise DataError(
            f"not a good record: {fault.reason}",
            where=str(fault.path),
            allowed=f"files written by ddbench, one a record (schema {SCHEMA}, id of {ID_LENGTH} hex digits)",
            hint="move the file away (`ddbench results verify` lists all such files), or run that cell again",
        )
    faults.append(fault)
