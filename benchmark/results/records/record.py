"""A record as an object: what was done (identity), what came of it (outcome, scores), and what it cost.

The fields are explained in `benchmark.results.records.schema.FIELDS`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from benchmark.core.document import Document, optional
from benchmark.core.provenance import provenance
from benchmark.results.records.schema import record_id


@dataclass(frozen=True)
class Keyed(Document):
    """Something with a name and the key of what is behind the name: a teacher, a backbone."""

    name: str
    key: str


@dataclass(frozen=True)
class DatasetId(Document):
    """A dataset by name and content."""

    name: str
    digest: str


@dataclass(frozen=True)
class MethodId(Document):
    """A method with all its parameters; ``inputs`` is what else a set was made from, by key."""

    name: str
    version: int | str
    params: dict[str, Any]
    inputs: dict[str, Any] = optional({})


@dataclass(frozen=True)
class ProtocolId(Document):
    """A protocol by name (with changes: ``hard+epochs=5``) and content."""

    name: str
    version: int | str
    digest: str


@dataclass(frozen=True)
class Identity(Document):
    """Everything that determines a student's result; hashed into the record's id."""

    dataset: DatasetId
    ipc: int
    method: MethodId
    seed: int
    student: str
    protocol: ProtocolId
    teacher: Keyed | None
    backbone: Keyed | None
    precision: dict[str, Any]
    set: str  # stage key or content digest of the distilled set; "" where there is none
    student_version: int | None = optional()

    @property
    def id(self) -> str:
        """The id of the record."""
        return record_id(self.to_json())


@dataclass(frozen=True)
class Outcome(Document):
    """``ok``, ``failed`` or ``skipped``, why, and short remarks."""

    status: str
    reason: str = ""
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Record(Document):
    """One trained student, or why there is none."""

    identity: Identity
    outcome: Outcome
    scores: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)
    gates: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=provenance)
    schema: int | None = optional()  # these three are filled in when the record is written
    id: str = optional("")
    digest: str = optional("")
