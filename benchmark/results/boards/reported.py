"""Numbers that papers report. They stand beside measured ones, are never averaged and never fill a measured cell."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from benchmark.core.errors import DataError

FIELDS = (
    "method",
    "dataset",
    "ipc",
    "student",
    "label_type",
    "protocol",
    "value",
    "deviation",
    "source",
    "grade",
    "note",
)
GRADES = ("primary", "secondary")


@dataclass(frozen=True)
class Reported:
    """One published number: ``value`` ± ``deviation`` (as the paper defines it; None if not given), percent.

    ``grade`` is ``primary`` where the authors' paper or repository was seen, ``secondary`` where a summary was.
    """

    method: str
    dataset: str
    ipc: int
    student: str
    label_type: str
    protocol: str
    value: float
    deviation: float | None
    source: str
    grade: str
    note: str

    @property
    def text(self) -> str:
        """``44.3 ± 0.3``, with a question mark where the source is secondary."""
        text = f"{self.value:.1f}" if self.deviation is None else f"{self.value:.1f} ± {self.deviation:.1f}"
        return text + (" ?" if self.grade == "secondary" else "")


def read_reported(path: Path | str | None = None) -> list[Reported]:
    """The table of reported numbers; by default the one that is shipped (equal to ``results/reported.csv``).

    Raises:
        DataError: a row without a source, of unknown grade, or that is no number; names the line.
    """
    file = Path(path) if path else files("benchmark.results.boards") / "reported.csv"
    out = []
    for line, row in enumerate(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"))), start=2):
        try:
            deviation = float(row["deviation"]) if row["deviation"] else None
            item = Reported(**{**row, "ipc": int(row["ipc"]), "value": float(row["value"]), "deviation": deviation})
            wrong = "" if item.source.strip() else "has no source"
            wrong = wrong or ("" if item.grade in GRADES else f"has the unknown grade {item.grade!r}")
        except (KeyError, TypeError, ValueError) as error:
            wrong = f"cannot be read ({error})"
        if wrong:
            raise DataError(f"a reported number {wrong}", where=f"{file}:{line}", allowed=", ".join(FIELDS))
        out.append(item)
    return out


def by_cell(reported: list[Reported]) -> dict[tuple[str, str, str, int], list[Reported]]:
    """Grouped by (dataset, method, student, ipc)."""
    groups = defaultdict(list)
    for item in reported:
        groups[item.dataset, item.method, item.student, item.ipc].append(item)
    return groups
