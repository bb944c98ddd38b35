"""How a plan is carried out: where its records go, on what device, by how many workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.core import distributed
from benchmark.core.errors import UsageError
from benchmark.core.store import Store
from benchmark.pipeline.plan import Plan, make_plan, parts_for
from benchmark.pipeline.request import Request
from benchmark.plugins import registry


@dataclass(frozen=True)
class Execution:
    """How a plan is carried out: where its records go, and who works.

    Attributes:
        workers: None: as many as the executor takes by default.
        address: of a running cluster, for an executor that works elsewhere.
        time_limit: seconds a job may take.
        ddp: under torchrun all ranks train together what is large.
    """

    results: Path
    device: str = "cpu"
    executor: str = "local"
    workers: int | None = None
    address: str = ""
    time_limit: float | None = None
    ddp: bool = False

    def count(self) -> int:
        """The number of workers.

        Raises:
            UsageError: fewer than one, or an unknown executor.
        """
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"--jobs must be at least 1, got {self.workers}", where="--jobs", allowed="1 or more")
        info = registry().get("executor", self.executor, where="--executor")
        return self.workers or (info.load(info.slots)(self.address, self.device) if info.slots else 1)

    def plan(self, requests: Sequence[Request], store: Store) -> Plan:
        """The plan of the requests, cut into parts for the workers."""
        parts = parts_for(requests, self.count() * distributed.world())
        return make_plan(requests, store, self.results, device=self.device, parts=parts)
