"""From a grid to its cells, and from a cell to the request that the pipeline runs."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

from benchmark.core.errors import UsageError
from benchmark.core.store.keys import canonical_json
from benchmark.pipeline.request import Request
from benchmark.studies.spec import Grid, fields_of

MANY = 10_000  # cells above which the user must say --yes


@dataclass(frozen=True)
class GridCell:
    """One cell: ``settings`` is complete, ``axes`` the part that a table shows, ``group`` the axis that it varies
    (``one-at-a-time``) or empty, ``column`` its combination of ``each``; ``beside`` marks a method run beside."""

    settings: dict[str, Any]
    axes: dict[str, Any]
    group: str = ""
    beside: bool = False
    column: str = ""

    @property
    def label(self) -> str:
        """``ipc=10, d3hr.depth=30``; of a cell that varies one axis that and its column; a method beside is named."""
        if self.group in self.axes:
            text = f"{self.group}={self.axes[self.group]}" + (f", {self.column}" if self.column else "")
        else:
            text = _listed(self.axes) or "base"
        return f"{self.settings['method']} beside {text}" if self.beside else text


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def shown(value: Any) -> Any:
    """A value as tables name it: null stands for the default."""
    return "default" if value is None else value


def count_cells(grid: Grid) -> int:
    """How many cells the grid has at most, without making them."""
    if grid.mode == "product":
        total = math.prod(map(len, grid.axes.values()))
    else:
        total = math.prod(map(len, grid.each.values())) * (1 + sum(map(len, grid.axes.values())))
    return total + len(grid.include)


def expand(grid: Grid, *, yes: bool = False) -> list[GridCell]:
    """Every distinct cell, in axis order; parameters of another method than the cell's are dropped from it.

    Raises:
        UsageError: more than 10,000 cells without ``yes``; nothing is left after ``exclude``.
    """
    total = count_cells(grid)
    if total > MANY and not yes:
        sizes = " x ".join(f"{len(v)} ({n})" for n, v in grid.axes.items())
        raise UsageError(
            f"{total:,} cells",
            where=sizes,
            allowed=f"{MANY:,} without asking",
            hint="repeat with --yes, or exclude some",
        )
    cells: dict[str, GridCell] = {}
    for settings, group in _settings(grid):
        settings = _applicable(settings)
        if any(_matches(settings, rule) for rule in grid.exclude):
            continue
        names = [*grid.each, *grid.axes, *(n for extra in grid.include for n in extra if n not in grid.axes)]
        axes = {name: shown(settings[name]) for name in dict.fromkeys(names) if name in settings}
        column = _listed({name: axes[name] for name in grid.each if name in axes})
        cells.setdefault(canonical_json(settings), GridCell(settings, axes, group, column=column))
    if not cells:
        raise UsageError("the grid has no cells", where="exclude", hint="exclude fewer")
    for cell in list(cells.values()):
        for method in grid.beside:
            settings = _without_methods(cell.settings) | {"method": method}
            axes = {name: shown(settings[name]) for name in cell.axes if name in settings}
            cells.setdefault(canonical_json(settings), GridCell(settings, axes, "", True, cell.column))
    return list(cells.values())


def _settings(grid: Grid):
    """(settings, varied axis) of every cell, before duplicates and excluded ones are taken out."""
    if grid.mode == "product":
        for values in itertools.product(*grid.axes.values()):
            yield {**grid.base, **dict(zip(grid.axes, values))}, ""
    else:
        first = {name: values[0] for name, values in grid.axes.items()}
        for values in itertools.product(*grid.each.values()):
            centre = {**first, **grid.base, **dict(zip(grid.each, values))}
            yield centre, ""
            for name in grid.axes:
                for value in grid.axes[name]:
                    if value != centre[name]:
                        yield {**centre, name: value}, name
    for extra in grid.include:
        first = {n: v[0] for n, v in (*grid.each.items(), *grid.axes.items()) if n not in grid.base}
        yield {**first, **grid.base, **extra}, ""


def _applicable(settings: dict[str, Any]) -> dict[str, Any]:
    """Without parameters that belong to other methods, or that the cell's method does not have."""
    method = settings["method"]

    def fits(name: str) -> bool:
        head, dot, key = name.partition(".")
        if not dot or head in ("protocol", "dataset"):
            return True
        return key in fields_of(method) if head == "method" else head == method

    return {name: value for name, value in settings.items() if fits(name)}


def _without_methods(settings: dict[str, Any]) -> dict[str, Any]:
    return {n: v for n, v in settings.items() if "." not in n or n.partition(".")[0] in ("protocol", "dataset")}


def _matches(settings: dict[str, Any], rule: dict[str, Any]) -> bool:
    return all(settings.get(name) == value for name, value in rule.items())


def request_of(cell: GridCell, grid: Grid, **options: Any) -> Request:
    """The request of one cell; ``options`` such as ``data_root`` are added."""
    s = cell.settings
    method = s["method"]
    sets = {}
    for name, value in s.items():
        head, dot, key = name.partition(".")
        if dot and head != "dataset" and value is not None:  # null: the default
            sets[f"{method}.{key}" if head == "method" else name] = value
    dataset_options = {n.partition(".")[2]: v for n, v in s.items() if n.startswith("dataset.") and v is not None}
    return Request(
        dataset=s["dataset"],
        methods=(method,),
        ipc=(s.get("ipc", 1),),
        students=(s["student"],) if s.get("student") else (),
        protocols=(s["protocol"],) if s.get("protocol") else (),
        seeds=grid.seeds,
        sets=sets,
        teacher=s.get("teacher") or "",
        backbone=s.get("backbone") or "",
        precision=s.get("precision") or "fp32",
        dataset_options=dataset_options,
        **options,
    )
