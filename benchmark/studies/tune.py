"""Equal tuning for every method: the same number of trials, on the same held-out part of the training split.

A method's parameters say which values are worth trying (``param(..., tune=(...))``); guidance, which methods share, has
one grid for all of them. The first trial is the method's defaults for the dataset, the others are drawn without
repetition from the product of those values. Every trial is an ordinary run on ``DATASET@val`` with ordinary records,
on the same seeds; the best mean top-1 wins, ties go to the earlier trial. A trial that was refused or failed is
replaced by the next one; a winner on the edge of an axis has the axis widened by one value; and the winner is run again
on fresh seeds, since the best of several trials on the seeds that chose it is too good.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmark.backbones import guidance
from benchmark.core.compute import derive_seed
from benchmark.core.errors import DataError, MissingError, UsageError
from benchmark.core.foreign import read_yaml
from benchmark.methods import make_params
from benchmark.plugins import registry
from benchmark.studies.expand import GridCell

SCHEMA = 1


def trials(
    method: str,
    dataset: str,
    count: int,
    given: dict[str, Any] | None = None,
    image_size: int | None = None,
    backbone: str = "",
) -> list[dict[str, Any]]:
    """``count`` settings to try (fewer where the method has no more), the defaults (``{}``) first.

    No two act alike on the dataset's images (:meth:`benchmark.methods.Method.resolved`).

    Args:
        given: parameters that the user fixed; they are not tuned.
        image_size: side of the images in pixels; None: what the dataset is registered with.
    """
    import random

    name = dataset.removesuffix("@val")
    cls = registry().get("method", method, where="--method").load()
    chosen = guidance.chosen(name, backbone)
    default = make_params(cls, method, name, given or {}, chosen)
    axes = axes_of(cls.Params, given or {})
    others = []
    for values in itertools.product(*axes.values()):
        changed = {k: v for k, v in zip(axes, values) if v != getattr(default, k)}
        if changed:
            others.append(changed)
    random.Random(derive_seed("tune", method, *sorted(axes))).shuffle(others)
    size = image_size or registry().get("dataset", name).image_size or 0
    found, acting = [], []
    for changed in ({}, *others):
        settings = cls(make_params(cls, method, name, {**(given or {}), **changed}, chosen)).resolved(size)
        if settings not in acting:  # not the published value in place of its sentinel: that trial is made already
            found.append(changed)
            acting.append(settings)
    return found[:count]


def axes_of(params: type, given: dict[str, Any]) -> dict[str, tuple]:
    """The values that are tried of each parameter: its own, or for the backbone's guidance the grid that all share."""
    return {
        f.name: guidance.VALUES if f.metadata.get("backbone") == "guidance" else f.metadata["tune"]
        for f in dataclasses.fields(params)
        if f.metadata.get("tune") and f.name not in given
    }


def widened(
    method: str,
    dataset: str,
    tried: Sequence[dict[str, Any]],
    best: dict[str, Any],
    given: dict[str, Any],
    image_size: int | None = None,
    backbone: str = "",
) -> dict[str, Any] | None:
    """The best setting with one value further out on an axis at whose edge it lies; None where it lies on none.

    The next value keeps the ratio of the last two (their difference where one is not above 0), has to be one that the
    method allows, and must not have been tried. An axis is widened once in each direction.

    Args:
        tried: changes from the defaults, one a trial, as ``best`` is; ``given``: what the user fixed.
    """
    name = dataset.removesuffix("@val")
    cls = registry().get("method", method).load()
    choice = guidance.chosen(name, backbone)

    def make(changed: dict[str, Any]) -> Any:
        return make_params(cls, method, name, {**given, **changed}, choice)

    def acts(changed: dict[str, Any]) -> Any:
        return cls(make(changed)).resolved(size)

    size = image_size or registry().get("dataset", name).image_size or 0
    known = [acts(changed) for changed in tried]
    for axis, values in axes_of(cls.Params, given).items():
        numbers = sorted({v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)})
        value = acts(best).get(axis, getattr(make(best), axis))
        if len(numbers) < 2 or len(numbers) < len(set(values)) or value not in (numbers[0], numbers[-1]):
            continue
        edge, inner = (numbers[0], numbers[1]) if value == numbers[0] else (numbers[-1], numbers[-2])
        out = edge * edge / inner if edge > 0 and inner > 0 else 2 * edge - inner
        out = round(out) if isinstance(edge, int) else round(out, 6)
        if axes_of(cls.Params, given)[axis] is guidance.VALUES and out < 1:
            continue  # below 1 the guidance is away from the class
        try:
            settings = acts({**best, axis: out})
        except UsageError:
            continue
        if settings not in known:
            return {**best, axis: out}
    return None


def cells(
    methods: Sequence[str],
    ipc: Sequence[int],
    count: int,
    base: dict[str, Any],
    given: dict[str, dict[str, Any]] | None = None,
    image_size: int | None = None,
) -> list[GridCell]:
    """A grid cell a trial; ``base`` holds dataset (``NAME@val``), student and protocol, ``given`` fixed parameters;
    ``image_size`` as in `trials`."""
    out = []
    for method, n in itertools.product(methods, ipc):
        fixed = (given or {}).get(method, {})
        found = trials(method, base["dataset"], count, fixed, image_size, base.get("backbone", ""))
        out += [cell(method, n, number, fixed | changed, base) for number, changed in enumerate(found)]
    return out


def cell(method: str, ipc: int, number: int, params: dict[str, Any], base: dict[str, Any]) -> GridCell:
    """The grid cell of one trial."""
    settings = {f"{method}.{k}": v for k, v in params.items()}
    return GridCell({**base, "method": method, "ipc": ipc, **settings}, {"method": method, "ipc": ipc, "trial": number})


def further(
    found: dict[str, dict[int, dict]],
    count: int,
    base: dict[str, Any],
    given: dict[str, dict[str, Any]],
    image_size: int | None = None,
) -> list[GridCell]:
    """Trials to make after those of ``found``: one for each that failed, then one beyond an edge where the best lies.

    None where every method has ``count`` good trials (or no more settings) and its best lies inside its axes.
    """
    out = []
    for method, by_ipc in found.items():
        fixed = given.get(method, {})
        every = trials(method, base["dataset"], 10**6, fixed, image_size, base.get("backbone", ""))
        for n, entry in by_ipc.items():
            tried = [_changed(trial["params"], fixed) for trial in entry["trials"]]
            good = sum("top1" in trial for trial in entry["trials"])
            more = [changed for changed in every if changed not in tried][: max(count - good, 0)]
            if not more and "params" in entry:
                best = _changed(entry["params"], fixed)
                out_of = widened(method, base["dataset"], tried, best, fixed, image_size, base.get("backbone", ""))
                more = [out_of] if out_of else []
            out += [cell(method, n, len(tried) + i, fixed | changed, base) for i, changed in enumerate(more)]
    return out


def _changed(params: dict[str, Any], fixed: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in params.items() if k not in fixed}


def winners(found: dict[str, dict[int, dict]], base: dict[str, Any]) -> list[GridCell]:
    """The cell of each method's best settings, to be run on fresh seeds."""
    return [
        cell(method, n, 0, entry["params"], base)
        for method, by_ipc in found.items()
        for n, entry in by_ipc.items()
        if "params" in entry
    ]


def add_fresh(found: dict[str, dict[int, dict]], cells: Sequence[GridCell], rows: Sequence[dict[str, Any]]) -> None:
    """Put the winners' scores on fresh seeds, ``fresh`` and ``fresh_half``, into their entries."""
    for one, row in zip(cells, rows, strict=True):
        entry = found[one.settings["method"]][one.settings["ipc"]]
        entry |= {"fresh": _rounded(row.get("top1_last")), "fresh_half": _rounded(row.get("top1_last_half"))}


def chosen(planned: Sequence[GridCell], rows: Sequence[dict[str, Any]], seeds: int) -> dict[str, dict[int, dict]]:
    """For every method and IPC its trials and the best: ``{method: {ipc: {"params", "top1", "half", "trials"}}}``.

    A trial that failed in any seed cannot win; where none is whole there is no ``params``.
    """
    found: dict[str, dict[int, dict]] = {}
    for cell, row in zip(planned, rows, strict=True):
        method, n = cell.settings["method"], cell.settings["ipc"]
        head = f"{method}."
        params = {k.removeprefix(head): v for k, v in cell.settings.items() if k.startswith(head)}
        trial: dict[str, Any] = {"params": params}
        if row["seeds"] == seeds:
            trial |= {"top1": round(row["top1_last"], 4), "half": _rounded(row.get("top1_last_half"))}
        else:
            trial["reason"] = row["reason"]
        found.setdefault(method, {}).setdefault(n, {"trials": []})["trials"].append(trial)
    for by_ipc in found.values():
        for entry in by_ipc.values():
            whole = [t for t in entry["trials"] if "top1" in t]
            if whole:
                best = max(whole, key=lambda t: t["top1"])  # the first of equals
                entry |= {"params": dict(best["params"]), "top1": best["top1"], "half": best["half"]}
    return found


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def write(file: Path, about: dict[str, Any], found: dict[str, dict[int, dict]]) -> Path:
    """Write the choice, beside a file's other methods where these were tuned alike; the path that was written.

    Where ``file`` is about something else it stays, and the choice goes to ``NAME-2.yaml``, ``NAME-3.yaml`` …

    Args:
        about: what must be equal for two methods to be tuned alike: dataset, student, protocol, backbone, seeds …
    """
    from benchmark.core.outputs import write_text

    target, numbers = file, itertools.count(2)
    while target.is_file() and differing(read(target), about):
        target = file.with_name(f"{file.stem}-{next(numbers)}{file.suffix}")
    document = {"schema": SCHEMA, **about, "methods": read(target)["methods"] if target.is_file() else {}}
    for method, by_ipc in found.items():
        document["methods"].setdefault(method, {}).update(by_ipc)
    write_text(yaml.safe_dump(document, sort_keys=False), target)
    return target


def differing(document: dict[str, Any], about: dict[str, Any]) -> list[str]:
    """In what a tuning file's document differs from ``about``."""
    return [name for name, value in about.items() if document.get(name) != value]


def read(file: Path) -> dict[str, Any]:
    """The document of a file that `ddbench tune` wrote.

    Raises:
        MissingError: there is none; DataError: it is something else.
    """
    if not file.is_file():
        raise MissingError(f"no tuning file {file}", where="--tuned", hint="ddbench tune --help")
    try:
        document = read_yaml(file, "--tuned")
        assert document["schema"] == SCHEMA and isinstance(document["methods"], dict)
    except (KeyError, TypeError, AssertionError, UsageError) as error:
        raise DataError(
            f"{file} is not what `ddbench tune` writes", where="--tuned", hint="make it with ddbench tune"
        ) from error
    return document


def settings(document: dict[str, Any], dataset: str, method: str, ipc: int) -> dict[str, Any]:
    """The tuned ``{"params", "note"}`` of a method at an IPC, or an empty dict where it was not tuned.

    Raises:
        UsageError: the file is about another dataset.
    """
    if document["dataset"] != f"{dataset.removesuffix('@val')}@val":
        raise UsageError(
            f"the tuning file is about {document['dataset']}, not {dataset}@val",
            where="--tuned",
            hint=f"ddbench tune --dataset {dataset} --method {method}",
        )
    entry = document["methods"].get(method, {}).get(ipc, {})
    if "params" not in entry:
        return {}
    changes = ",".join(f"{k.removeprefix('protocol.')}={v}" for k, v in sorted(document["protocol_changes"].items()))
    protocol = "+".join(filter(None, (document["protocol"], changes)))
    note = {"on": document["dataset"], "digest": document["digest"], "protocol": protocol}
    note |= {"student": document["student"], "trials": len(entry["trials"]), "seeds": document["seeds"]}
    if document.get("seen"):
        note["seen"] = document["seen"]
    if "fresh" in entry:
        note["fresh"] = entry["fresh"]
    return {"params": entry["params"], "note": note | {"top1": entry["top1"], "params": entry["params"]}}
