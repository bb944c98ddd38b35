"""Equal tuning for every method: the same number of trials, on the same held-out part of the training split.

A method's parameters say which values are worth trying (``param(..., tune=(...))``). The first trial is the method's
defaults for the dataset, the others are drawn without repetition from the product of those values. Every trial is an
ordinary run on ``DATASET@val`` with ordinary records; the best mean top-1 wins, ties go to the earlier trial.
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
    axes = {
        f.name: f.metadata["tune"]
        for f in dataclasses.fields(cls.Params)
        if f.metadata.get("tune") and f.name not in (given or {})
    }
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
        for number, changed in enumerate(found):
            params = {f"{method}.{k}": v for k, v in (fixed | changed).items()}
            axes = {"method": method, "ipc": n, "trial": number}
            out.append(GridCell({**base, "method": method, "ipc": n, **params}, axes))
    return out


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
    return {"params": entry["params"], "note": note | {"top1": entry["top1"], "params": entry["params"]}}
