"""A grid's YAML file, read and checked: every name and every value is tried before anything runs.

::

    name: d3hr-depth              # default: the file's name
    summary: one line
    mode: product                 # or one-at-a-time: the base cell, then each axis alone
    each: {protocol: [hard, soft]}  # one-at-a-time only: all of it in each combination of these, a column of the tables
    base: {dataset: digits, method: d3hr, ipc: 10, seeds: 3}
    axes:
      d3hr.depth: [10, 20, 30]    # METHOD.KEY, method.KEY (whichever method the cell has), protocol.KEY, dataset.KEY
      d3hr.start_step: [null, 18] # null is the default
      ipc: {range: [10, 50, 20]}  # first, last, step; the last is included
    include: [{d3hr.depth: 31}]   # further cells: what is not named is the base's
    exclude: [{ipc: 50, d3hr.depth: 10}]
    beside: [random]              # methods run once in every cell's column, for the gain
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from benchmark.core.errors import MissingError, UsageError, unknown_name
from benchmark.core.foreign import LARGEST, parse_yaml, read_yaml

PLAIN = ("method", "dataset", "ipc", "student", "protocol", "teacher", "backbone", "precision", "seed")
NAMED = {"method": "method", "student": "student", "protocol": "protocol"}  # axes whose values are registered names
DATASET_OPTIONS = ("image_size", "on_corrupt", "split", "classes")
MOST_VALUES = 10_000  # of an axis, and seeds
MODES = ("product", "one-at-a-time")
SHAPES = (
    ("base", dict, "{NAME: value}"),
    ("each", dict, "{NAME: [values]}"),
    ("axes", dict, "{NAME: [values]}"),
    ("beside", list, "[METHOD, …]"),
)
KEYS = ("name", "summary", "mode", "base", "each", "axes", "include", "exclude", "beside")


@dataclass(frozen=True)
class Grid:
    """A checked grid. ``axes`` and ``each`` map names to values; ``base`` holds one value a name; seeds apart."""

    name: str
    summary: str = ""
    mode: str = "product"
    base: dict[str, Any] = field(default_factory=dict)
    axes: dict[str, tuple] = field(default_factory=dict)
    include: tuple[dict[str, Any], ...] = ()
    exclude: tuple[dict[str, Any], ...] = ()
    beside: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    each: dict[str, tuple] = field(default_factory=dict)


def shipped() -> dict[str, str]:
    """Grids that come with ddbench: name to summary."""
    found = {}
    for file in sorted(files("benchmark.studies").iterdir(), key=lambda f: f.name):
        if file.name.endswith(".yaml"):
            document = parse_yaml(file.read_text(encoding="utf-8"), file.name) or {}
            found[file.name.removesuffix(".yaml")] = document.get("summary", "")
    return found


def text_of(name: str) -> str:
    """The YAML of a grid that comes with ddbench."""
    return files("benchmark.studies").joinpath(f"{name}.yaml").read_text(encoding="utf-8")


def read_grid(name: str, changes: dict[str, Any] | None = None) -> Grid:
    """A grid by file or by shipped name; ``changes`` replace values of its base (and axes of the same name).

    Raises:
        MissingError: no such file.
        UsageError: not YAML, unknown key, axis, method, student or parameter (nearest named), value out of range.
    """
    if name in shipped():
        where = f"grid {name}"
        document = parse_yaml(text_of(name), where)
    elif name.endswith((".yaml", ".yml")) or "/" in name:
        if not Path(name).is_file():
            raise MissingError(f"no grid file {name}", hint="ddbench grid --list shows the grids that are shipped")
        where = name
        document = read_yaml(name, name)
    else:
        error = unknown_name("grid", name, shipped())
        raise UsageError(error.what, allowed=error.allowed, hint="ddbench grid --list, or name a FILE.yaml")
    if not isinstance(document, dict):
        raise UsageError("a grid is a mapping", where=where, allowed=", ".join(KEYS))
    document.setdefault("name", Path(name).stem)
    return parse(document, where, changes or {})


def parse(document: dict[str, Any], where: str, changes: dict[str, Any] | None = None) -> Grid:
    """A grid from its YAML document; see `read_grid`."""
    for key in document:
        if key not in KEYS:
            raise _unknown("key", key, KEYS, where)
    for key, kind, example in SHAPES:
        if document.get(key) is not None and not isinstance(document[key], kind):
            raise UsageError(f"{key} cannot be {document[key]!r}", where=where, allowed=f"{key}: {example}")
    name = document["name"]
    if not isinstance(name, str) or not re.fullmatch(r"[\w+-][\w.+-]*", name):
        raise UsageError(f"{name!r} is no name for a grid", where=where, allowed="letters, digits and . _ + -")
    base = {"method": "d3hr", "dataset": "digits", **(document.get("base") or {}), **(changes or {})}
    axes, each = (
        {n: _values(n, v, where) for n, v in (document.get(key) or {}).items() if n not in (changes or {})}
        for key in ("axes", "each")
    )
    if not axes:
        raise UsageError("a grid needs at least one axis", where=where, allowed="axes: {NAME: [values]}")
    mode = document.get("mode", "product")
    if mode not in MODES:
        raise _unknown("mode", mode, MODES, where)
    if document.get("each") and mode != "one-at-a-time":
        raise UsageError(
            "each needs mode: one-at-a-time", where=where, hint="a product crosses all axes: name it there"
        )
    for taken in ("seed", *axes):
        if taken in each:
            raise UsageError(f"{taken} cannot stand in each", where=where, allowed="any axis but seed, once")
    seeds = axes.pop("seed", None) or base.pop("seeds", base.pop("seed", 3))
    base.pop("seeds", None)
    if isinstance(seeds, int) and not isinstance(seeds, bool) and 0 < seeds <= MOST_VALUES:
        seeds = tuple(range(seeds))
    if (
        not isinstance(seeds, (list, tuple))
        or not seeds
        or any(isinstance(s, bool) or not isinstance(s, int) or s < 0 for s in seeds)
    ):
        raise UsageError(f"seeds must be a number or a list of whole numbers, not {seeds!r}", where=where)
    extra = {key: _cells(document.get(key), f"{where}: {key}") for key in ("include", "exclude")}
    grid = Grid(
        name,
        document.get("summary", ""),
        mode,
        base,
        axes,
        extra["include"],
        extra["exclude"],
        tuple(document.get("beside") or ()),
        tuple(seeds),
        each,
    )
    _check(grid, where)
    return grid


def _values(name: str, given: Any, where: str) -> tuple:
    if isinstance(given, dict) and set(given) == {"range"}:
        numbers = given["range"]
        fine = isinstance(numbers, list) and len(numbers) in (2, 3) and all(map(_is_number, numbers))
        if not fine or (len(numbers) == 3 and numbers[2] <= 0):
            raise UsageError(f"{name}: range takes [first, last] or [first, last, step > 0]", where=where)
        first, last, step = (*numbers, 1)[:3]
        count = int((last - first) / step + 1e-9) + 1
        if count > MOST_VALUES:
            raise UsageError(f"{name}: {count:,} values", where=where, allowed=f"at most {MOST_VALUES:,} on an axis")
        given = [round(first + i * step, 10) if isinstance(first + step, float) else first + i * step
                 for i in range(max(0, count))]  # fmt: skip
    if not isinstance(given, list) or not given:
        raise UsageError(f"axis {name} needs a list of values", where=where, allowed="[a, b] or {range: [a, b, step]}")
    unique: list = []
    for value in given:
        if value not in unique:
            unique.append(value)
    return tuple(unique)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST


def _cells(given: Any, where: str) -> tuple[dict[str, Any], ...]:
    given = given or []
    if not isinstance(given, list) or not all(isinstance(cell, dict) and cell for cell in given):
        raise UsageError("a list of {AXIS: value} is needed", where=where)
    return tuple(given)


def _unknown(kind: str, name: Any, known: Iterable[str], where: str) -> UsageError:
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return UsageError(f"unknown {kind} {name!r}{hint}", where=where, allowed=", ".join(known))


# -- checks: each value of each axis, not each cell ------------------------------------------------------------------


def _check(grid: Grid, where: str) -> None:
    from benchmark.plugins import registry

    methods = _all(grid, "method")
    for kind in NAMED:
        for value in _all(grid, kind):
            registry().get(kind, str(value), where=f"{where}: {kind}")
    for method in grid.beside:
        registry().get("method", method, where=f"{where}: beside")
    for value in _all(grid, "dataset"):
        registry().get("dataset", str(value).removesuffix("@val"), where=f"{where}: dataset")
    for value in _all(grid, "ipc"):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(f"IPC {value!r} is not possible", where=where, allowed="whole numbers from 1")
    for name in (*grid.base, *grid.each, *grid.axes, *(n for cell in (*grid.include, *grid.exclude) for n in cell)):
        if not isinstance(name, str):
            raise UsageError(f"{name!r} is no name of an axis", where=where)
    for name in {*grid.base, *grid.each, *grid.axes, *(n for cell in (*grid.include, *grid.exclude) for n in cell)}:
        _check_axis(name, _all(grid, name), methods, _all(grid, "protocol"), where)


def _all(grid: Grid, name: str) -> list:
    """Every value that a name takes anywhere in the grid."""
    places = [grid.base, *grid.include, *grid.exclude]
    return [*grid.axes.get(name, ()), *grid.each.get(name, ()), *(place[name] for place in places if name in place)]


def _check_axis(name: str, values: list, methods: list, protocols: list, where: str) -> None:
    if name in PLAIN:
        return
    values = [v for v in values if v is not None]  # null: the default
    head, dot, key = name.partition(".")
    if not dot:
        raise _unknown("axis", name, [*PLAIN, *_parameters(methods), "protocol.KEY"], where)
    if head == "protocol":
        from benchmark.evaluation.protocols import load_protocol

        names = protocols or ["hard"]
        for protocol, value in ((p, v) for p in names for v in values):
            load_protocol(protocol, {key: value})
        return
    if head == "dataset":
        if key not in DATASET_OPTIONS:
            raise _unknown("dataset option", name, [f"dataset.{o}" for o in DATASET_OPTIONS], where)
        return
    if head != "method" and head not in methods:
        raise _unknown("method in the axis", name, _parameters(methods), where)
    having = [m for m in (methods if head == "method" else [head]) if key in fields_of(m)]
    if not having:
        known = [p.replace(p.partition(".")[0], head, 1) for p in _parameters(methods if head == "method" else [head])]
        raise _unknown("parameter", name, dict.fromkeys(known), where)
    from benchmark.methods import convert

    for method in having:
        for value in values:
            convert(value, fields_of(method)[key], f"{where}: {name}: {value}")


def fields_of(method: str) -> dict[str, dataclasses.Field]:
    """A method's parameters by name."""
    from benchmark.plugins import registry

    return {f.name: f for f in dataclasses.fields(registry().get("method", method).load().Params)}


def _parameters(methods: Iterable[str]) -> list[str]:
    return [f"{m}.{key}" for m in methods for key in fields_of(m)]
