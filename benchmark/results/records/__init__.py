"""Records: one JSON document a trained student, the only thing that boards are computed from."""

from benchmark.results.records.files import (
    Fault,
    find_record,
    iter_records,
    read_records,
    record_path,
    sealed,
    write_record,
)
from benchmark.results.records.record import DatasetId, Identity, Keyed, MethodId, Outcome, ProtocolId, Record
from benchmark.results.records.schema import FIELDS, SCHEMA, record_id, verify_record

__all__ = [
    "FIELDS",
    "SCHEMA",
    "DatasetId",
    "Fault",
    "Identity",
    "Keyed",
    "MethodId",
    "Outcome",
    "ProtocolId",
    "Record",
    "find_record",
    "iter_records",
    "read_records",
    "record_id",
    "record_path",
    "sealed",
    "verify_record",
    "write_record",
]
