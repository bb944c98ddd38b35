"""What every job is: a piece of work that a worker claims whole, with all that is needed to do it."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from benchmark.core import compute
from benchmark.core.document import Document
from benchmark.core.errors import JobError
from benchmark.core.provenance import cpu_name, gpu_name
from benchmark.core.store import Stage, Store

if TYPE_CHECKING:
    from benchmark.data import Dataset


@dataclass
class Context:
    """Where a worker reads and writes, and on what device it computes."""

    store: Store
    results: Path
    device: str = "cpu"

    @property
    def device_name(self) -> str:
        """The name that a record gives the device."""
        return gpu_name() if self.device.startswith("cuda") else cpu_name() or "cpu"


@dataclass(frozen=True)
class Source(Document):
    """The dataset of a job: its name, where its files lie, and the content that the keys were made of."""

    name: str
    digest: str
    data_root: str | None = None
    options: tuple[tuple[str, Any], ...] = ()  # of `benchmark.data.load_dataset`

    def load(self) -> Dataset:
        """The dataset, loaded once a process.

        Raises:
            JobError: its content is not what it was when the run was planned.
        """
        from benchmark.data import load_dataset

        dataset = load_dataset(self.name, root=self.data_root, **dict(self.options))
        if dataset.digest != self.digest:
            raise JobError(
                f"the data changed since the run was planned: {dataset.name} was {self.digest[:12]} "
                f"and is {dataset.digest[:12]}",
                where=f"data root {self.data_root or 'not set'}",
                allowed="the same labels, class order and images wherever jobs of a run are done",
                hint="bring the data back, or repeat the command (a job of a cluster: `ddbench plan --emit` again)",
            )
        return dataset


@dataclass(frozen=True, kw_only=True)
class Job(Document, abc.ABC):
    """Fields that every kind of job has; the kinds add their own.

    Attributes:
        key: names the result in the store.
        label: what people read.
        source: the dataset.
        precision: as on the command line.
        needs: keys of the jobs that must be done before.
    """

    kind: ClassVar[str]
    phase: ClassVar[str]  # of `benchmark.core.compute.prepare`: threads and numerics

    key: str
    label: str
    source: Source
    precision: str = "fp32"
    needs: tuple[str, ...] = ()

    @property
    @abc.abstractmethod
    def stage(self) -> Stage | None:
        """The stage whose artifact is the result; None for something that exists already outside the store."""

    @abc.abstractmethod
    def is_done(self, context: Context) -> bool:
        """Whether the result is there."""

    def run(self, context: Context) -> None:
        """Do the job; raises whatever goes wrong, with nothing half-written."""
        compute.prepare(self.phase, compute.Precision.named(self.precision))
        self.work(context)

    @abc.abstractmethod
    def work(self, context: Context) -> None:
        """What :meth:`run` does once threads and numerics are set."""

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, **super().to_json()}


class LostInput(JobError):
    """What an earlier job made is gone or was found damaged (and set aside); that job, ``key``, must be done again."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the distilled set {key[:12]} is not whole any more", hint="repeat the command")
        self.key = key
