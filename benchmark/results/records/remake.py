"""Records that were made from uncommitted code, and the commands that make them again from a commit."""

from __future__ import annotations

import contextlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

DIRTY = "-dirty"  # how `git describe` ends for a tree with changes


class _Group(NamedTuple):
    """What one command can cover besides methods and seeds."""

    dataset: str
    protocol: str
    precision: str
    sets: tuple[str, ...]
    ipc: tuple[int, ...]
    students: tuple[str, ...]
    seeds: int


def is_dirty(record: dict) -> bool:
    """Whether the record's code was in no commit."""
    return str(record["provenance"].get("commit", "")).endswith(DIRTY)


def commands(records: Iterable[dict], results: str) -> list[str]:
    """``ddbench run`` lines that make the cells of these records anew in the folder ``results``, few as possible.

    Parameters that are not the method's defaults are given with ``--set``; a method that is not registered here gets
    all of its own.
    """
    from benchmark.results.boards.cells import precision_name

    cells: dict[tuple, list[dict]] = defaultdict(list)
    for record in records:
        i = record["identity"]
        sets = (*_changed(i["method"], i["dataset"]["name"]), *_overrides(i["protocol"]["name"]))
        protocol = i["protocol"]["name"].partition("+")[0]
        cells[i["method"]["name"], i["dataset"]["name"], protocol, precision_name(i["precision"]), sets].append(i)
    groups: dict[_Group, list[str]] = defaultdict(list)
    for (method, *known), members in cells.items():
        ipc, students = ({i[name] for i in members} for name in ("ipc", "student"))
        group = _Group(*known, tuple(sorted(ipc)), tuple(sorted(students)), 1 + max(i["seed"] for i in members))
        groups[group].append(method)
    return [_command(group, methods, results) for group, methods in sorted(groups.items())]


def _command(g: _Group, methods: Sequence[str], results: str) -> str:
    import shlex

    words = ["ddbench", "run", "--method", ",".join(sorted(methods)), "--dataset", g.dataset]
    words += ["--ipc", ",".join(map(str, g.ipc)), "--student", ",".join(g.students), "--protocol", g.protocol]
    words += ["--seeds", str(g.seeds)] + ([] if g.precision == "fp32" else ["--precision", g.precision])
    for text in g.sets:
        words += ["--set", text]
    return shlex.join([*words, "--no-floor", "--results", results])


def _changed(method: dict[str, Any], dataset: str) -> tuple[str, ...]:
    from benchmark.backbones import guidance
    from benchmark.core.errors import DDBenchError
    from benchmark.methods import make_params
    from benchmark.plugins import registry

    name, defaults = method["name"], {}
    with contextlib.suppress(DDBenchError):  # another's plug-in
        cls = registry().get("method", name).load()
        defaults = vars(make_params(cls, name, dataset, {}, guidance.chosen(dataset)))
    return tuple(
        f"{name}.{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in sorted(method["params"].items())
        if key not in defaults or json.dumps(defaults[key]) != json.dumps(value)
    )


def split_commas(text: str) -> list[str]:
    """``"a=1,b=[2,3]"`` in its parts: a comma inside brackets belongs to a value."""
    parts, depth = [""], 0
    for char in text:
        depth += (char in "[{(") - (char in ")}]")
        if char == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += char
    return [part for part in parts if part.strip()]


def _overrides(protocol: str) -> tuple[str, ...]:
    return tuple(f"protocol.{part}" for part in split_commas(protocol.partition("+")[2]))
