"""Records on disk: ``<results>/records/*.json``, one a trained student, written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmark.core.errors import DataError, JobError, UsageError
from benchmark.core.foreign import read_json
from benchmark.core.outputs import replacing
from benchmark.core.store.store import disk_errors
from benchmark.results.records.adding import finish
from benchmark.results.records.schema import ID_LENGTH, SCHEMA, record_id, seal, verify_record

FOLDER = "records"
SHORT_ID = 12
RECORD_BYTES = 16 << 20  # a record of a long curve has some 100 kB


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


def write_record(results_dir: Path | str, record: dict, *, durable: bool = True) -> Path:
    """Seal, validate and write a record atomically; one with the same identity is replaced.

    Args:
        record: ``identity outcome scores cost provenance gates artifacts`` (see `schema.FIELDS`); ``schema``, ``id``
            and ``digest`` are filled in.
        durable: it is on the disk when this returns (a power loss takes nothing).

    Raises:
        JobError: the record is not valid, or the disk is full.
        UsageError: the folder cannot be written.
    """
    record = sealed(record)
    path = record_path(results_dir, record["identity"])
    text = json.dumps(record, indent=1, sort_keys=True, allow_nan=False) + "\n"
    with disk_errors(path), replacing(path, durable=durable) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def find_record(results_dir: Path | str, identity: dict) -> dict | None:
    """The good record with this identity, or None (a damaged one counts as missing: it will be written again)."""
    path = record_path(results_dir, identity)
    try:
        record = read_json(path, most=RECORD_BYTES)
    except (OSError, DataError):
        return None
    return None if verify_record(record, plain=True) else record


def iter_records(results_dir: Path | str, faults: list[Fault] | None = None) -> Iterator[dict]:
    """Every record below ``<results_dir>/records``, verified, in file-name order, one at a time in memory.

    Args:
        faults: bad files (unreadable, unknown schema, edited, the same record twice) are appended here and left
            out; without it the first one raises.

    Raises:
        DataError: a bad file, when ``faults`` is None.
    """
    seen: dict[str, str] = {}
    with contextlib.suppress(UsageError):  # a folder that cannot be written can be read
        finish(Path(results_dir))
    folder = Path(results_dir) / FOLDER
    try:
        names = sorted(entry for entry in os.listdir(folder) if entry.endswith(".json") and entry[0] != ".")
    except FileNotFoundError:
        return
    except OSError as error:
        raise DataError(f"the records cannot be listed: {error.strerror}", where=str(folder)) from error
    for name in names:
        path = os.path.join(folder, name)
        try:
            record = read_json(path, most=RECORD_BYTES)
        except (OSError, DataError) as error:
            _report(
                faults, Fault(Path(path), error.what if isinstance(error, DataError) else f"cannot be read: {error}")
            )
            continue
        wrong = verify_record(record, plain=True)
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
