"""What the page needs of each record beyond its cell, gathered while records stream past."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from benchmark.results.boards.cells import Cell, Key, key_of

CURVE_POINTS = 40  # a training curve is thinned to that many
Protocols = dict[tuple[str, str, str], dict[str, Any]]  # name, version and digest to the document, where recorded
Resolved = dict[tuple[str, str, str, int], dict[str, Any]]  # dataset, protocol, student, IPC to the values in force


class Facts:
    """Curves, contact sheets, protocols, gates and provenance of all records."""

    def __init__(self) -> None:
        self.count = 0
        self.curves: dict[tuple[Key, int, str], list[list]] = {}
        self.provenance: Counter = Counter()
        self.created: list[str] = []
        self.sheets: dict[tuple[Key, int, str], str] = {}
        self.gates: Counter = Counter()
        self.protocols: Protocols = {}
        self.resolved: Resolved = {}

    def watch(self, records: Iterable[dict]) -> Iterable[dict]:
        """Pass the records on."""
        for record in records:
            self.count += 1
            identity, artifacts = record["identity"], record["artifacts"]
            place = key_of(identity), identity["seed"], identity["set"]
            if record["scores"].get("curve"):
                self.curves[place] = record["scores"]["curve"]
            if artifacts.get("contact_sheet"):
                self.sheets[place] = artifacts["contact_sheet"]
            known = record["provenance"]
            names = ("ddbench", "python", "torch", "torchvision", "diffusers", "commit")
            self.provenance[(*(str(known.get(n) or "–") for n in names), _machine(known.get("hardware")))] += 1
            self.created.append(str(known.get("created", "")))
            protocol = identity["protocol"]
            key = (protocol["name"], str(protocol["version"]), protocol["digest"])
            self.protocols[key] = artifacts.get("protocol") or self.protocols.get(key, {})
            if isinstance(artifacts.get("resolved"), dict):
                named = f"{protocol['name']} v{protocol['version']}"
                row = (identity["dataset"]["name"], named, identity["student"], identity["ipc"])
                self.resolved[row] = artifacts["resolved"]
            gate = (record["gates"].get("set") or {}).get("status", "not recorded")
            self.gates[gate] += 1
            yield record

    @staticmethod
    def places(cell: Cell) -> list[tuple[Key, int, str]]:
        """Where the facts of a cell's records lie, by seed."""
        return [(cell.key._replace(set=""), sample.seed, sample.set) for sample in cell.samples]

    def sheet(self, cell: Cell) -> tuple[int, str] | None:
        """Seed and path of the cell's first contact sheet."""
        return next(((place[1], self.sheets[place]) for place in self.places(cell) if place in self.sheets), None)

    def curve(self, cell: Cell) -> list[list[float]]:
        """Mean top-1 over seeds at the epochs that all seeds have, thinned."""
        members = [self.curves[place] for place in self.places(cell) if place in self.curves]
        if not members:
            return []
        common = set.intersection(*({point[0] for point in curve} for curve in members))
        totals: dict[Any, list[float]] = {epoch: [] for epoch in sorted(common)}
        for curve in members:
            for point in curve:
                if point[0] in totals:
                    totals[point[0]].append(point[1])
        points = [[epoch, round(sum(v) / len(v), 2)] for epoch, v in totals.items()]
        step = -(-len(points) // CURVE_POINTS) if points else 1
        return points[::-1][::step][::-1]  # the last epoch stays


def _machine(hardware: Any) -> str:
    """``AMD EPYC, 2 CPUs, x86_64``."""
    if not isinstance(hardware, dict):
        return str(hardware or "–")
    parts = [f"{value} CPUs" if name == "cpus" else str(value) for name, value in sorted(hardware.items()) if value]
    return ", ".join(parts) or "–"
