"""Read a protocol's YAML file, check every field, apply overrides, print it as a table."""

from __future__ import annotations

import dataclasses
import difflib
from importlib.resources import files
from typing import Any

import yaml

from benchmark.core.errors import UsageError
from benchmark.core.foreign import is_odd, parse_yaml
from benchmark.evaluation.protocols.schema import Protocol
from benchmark.plugins import registry

_FIELDS = {f.name: f for f in dataclasses.fields(Protocol)}
_NUMBERS = {"temperature", "ce_weight", "label_smoothing", "momentum", "weight_decay", "warmup", "gamma", "ema",
            "mix_alpha", "mix_probability", "test_resize", "evaluate_after"}  # fmt: skip
_WHOLE = {
    "version",
    "accumulate",
    "bn_updates",
    "evaluate_every",
    "evaluate_remainder",
    "label_seed",
    "resolution",
}
_OPTIONAL = {"ema", "evaluate_remainder", "resolution", "epochs", "steps"}
_FIXED = {"name", "version", "summary", "source", "notes", "datasets"}


def load_protocol(name: str, overrides: dict[str, Any] | None = None) -> Protocol:
    """The protocol registered under ``name``; ``overrides`` (``{field: value or text}``) make a copy that says so.

    A copy is called ``name+field=value,…``, so that it can never be averaged with the published one.

    Raises:
        UsageError: no such protocol, unknown field (the nearest one named), wrong type, value not allowed.
    """
    info = registry().get("protocol", name, where="--protocol")
    package, _, file = info.target.partition(":")
    text = files(package).joinpath(file).read_text(encoding="utf-8")
    protocol = parse(parse_yaml(text, f"{package}/{file}"), where=f"{package}/{file}")
    if protocol.name != name:
        raise UsageError(f"{package}/{file} calls itself {protocol.name!r} but is registered as {name!r}")
    return override(protocol, overrides) if overrides else protocol


def parse(document: dict[str, Any], where: str) -> Protocol:
    """A protocol from a YAML document, checked."""
    if not isinstance(document, dict):
        raise UsageError("a protocol is a YAML mapping of fields", where=where)
    values = {key: _check(key, value, f"{where}: {key}") for key, value in document.items()}
    for pattern, fields in values.get("datasets", {}).items():
        if not isinstance(fields, dict):
            raise UsageError("datasets takes {PATTERN: {FIELD: value}}", where=f"{where}: datasets: {pattern}")
        values["datasets"][pattern] = {k: _check(k, v, f"{where}: datasets: {pattern}: {k}") for k, v in fields.items()}
    protocol = Protocol(**values)
    for fields in [{}, *protocol.datasets.values()]:
        _check_whole(dataclasses.replace(protocol, **fields), where)
    return protocol


def override(protocol: Protocol, overrides: dict[str, Any]) -> Protocol:
    """A copy with other values, renamed to say so."""
    changes = {}
    for key, value in overrides.items():
        where = f"--set protocol.{key}={value}"
        if key in _FIXED:
            raise UsageError(f"{key!r} of a protocol cannot be overridden", where=where)
        if isinstance(value, str):
            value = parse_yaml(value, where)
        changes[key] = _check(key, value, where)
    label = ",".join(f"{key}={_label(changes[key])}" for key in sorted(changes))
    datasets = {p: {k: v for k, v in f.items() if k not in changes} for p, f in protocol.datasets.items()}
    changed = dataclasses.replace(protocol, **changes, datasets=datasets, name=f"{protocol.name}+{label}")
    _check_whole(changed, f"--set protocol.{label}")
    return changed


def _label(value: Any) -> str:
    """A checked value as text that reads back the same: however it was written, it has one name."""
    if isinstance(value, dict) and set(value) == {"default"}:
        value = value["default"]
    return repr(value).removesuffix(".0") if isinstance(value, float) else _show(value).replace(", ", ",")


def describe(*names: str) -> list[tuple[str, ...]]:
    """Rows ``(field, value a protocol …, explanation)``: all fields of one protocol, or those in which several differ.

    The explanation is the field's meaning, followed by the first protocol's note on its value.
    """
    protocols = [load_protocol(name) for name in names]
    rows = []
    for key, spec in _FIELDS.items():
        if key == "notes":
            continue
        values = [getattr(p, key) for p in protocols]
        if len(protocols) > 1 and all(v == values[0] for v in values[1:]):
            continue
        notes = [p.notes[key] for p in protocols if key in p.notes]
        text = ". ".join([spec.metadata["help"], *notes])
        rows.append((key, *(_show(v) for v in values), text))
    return rows


def _show(value: Any) -> str:
    if isinstance(value, str):
        return value
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6).replace("\n...", "").strip()


def _check(key: str, value: Any, where: str) -> Any:
    if key not in _FIELDS:
        near = difflib.get_close_matches(key, _FIELDS, n=1, cutoff=0.5)
        raise UsageError(
            f"a protocol has no field {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
            where=where,
            allowed=", ".join(sorted(set(_FIELDS) - _FIXED)),
            hint="ddbench show protocol NAME",
        )
    spec = _FIELDS[key]
    if value is None and key in _OPTIONAL:
        return None
    if key in _NUMBERS:
        return _number(key, value, where)
    if key in _WHOLE:
        return _whole(key, value, where)
    if key in ("epochs", "steps", "batch"):
        table = value if isinstance(value, dict) else {1: value}
        if not table or any(isinstance(v, bool) or not isinstance(v, int) or v < 1 for t in table.items() for v in t):
            raise UsageError(f"{key} must be a positive whole number or {{IPC: number}}, not {value!r}", where=where)
        for number in table.values():
            _in_range(key, number, where)
        return value
    if key == "lr":
        value = value if isinstance(value, dict) else {"default": value}
        return {str(k): _number(key, v, where) for k, v in value.items()}
    if key in ("betas", "milestones"):
        if not isinstance(value, list):
            raise UsageError(f"{key} must be a list of numbers, not {value!r}", where=where)
        if key == "betas" and len(value) != 2:
            raise UsageError(f"betas must be two numbers, not {value!r}", where=where)
        for number in value:
            (_number if key == "betas" else _whole)(key, number, where)
        return value
    if key == "batch_factor":
        if not isinstance(value, dict):
            raise UsageError(f"batch_factor must be {{classes: factor}}, not {value!r}", where=where)
        for number in (*value, *value.values()):
            _whole(key, number, where)
        return value
    if key == "teacher":
        names = value.values() if isinstance(value, dict) else [value]
        sides = value if isinstance(value, dict) else [1]
        good = bool(names) and all(isinstance(name, str) and name and not is_odd(name) for name in names)
        if not good or any(isinstance(side, bool) or not isinstance(side, int) for side in sides):
            raise UsageError(f"teacher must be a name or {{largest image side: name}}, not {value!r}", where=where)
        return value
    if key == "augment":
        from benchmark.training.augmentations import check_augment

        return check_augment(value, where)
    if key == "normalize":
        numbers = isinstance(value, dict) and set(value) == {"mean", "std"}
        if value not in ("dataset", "imagenet") and not numbers:
            raise UsageError(
                f"normalize cannot be {value!r}", where=where, allowed="dataset, imagenet, {mean: …, std: …}"
            )
        if numbers and not all(
            isinstance(row, list) and row and all(_is_finite(v) for v in row) for row in value.values()
        ):
            raise UsageError("normalize takes lists of numbers as mean and std", where=where)
        if numbers and min(value["std"]) <= 0:
            raise UsageError("normalize: std must be above 0", where=where)
        return value
    default = spec.default if spec.default is not dataclasses.MISSING else spec.default_factory()
    if not isinstance(value, type(default)):
        raise UsageError(f"{key} must be {type(default).__name__}, not {value!r}", where=where)
    choices = spec.metadata["choices"]
    if choices and value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=1)
        raise UsageError(
            f"{key} cannot be {value!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
            where=where,
            allowed=", ".join(choices),
        )
    return value


def _number(key: str, value: Any, where: str) -> float:
    try:
        if isinstance(value, bool):
            raise ValueError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise UsageError(f"{key} must be a number, not {value!r}", where=where) from None
    return _in_range(key, number, where)


def _whole(key: str, value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise UsageError(f"{key} must be a whole number, not {value!r}", where=where)
    return _in_range(key, value, where)


def _in_range(key: str, number: Any, where: str) -> Any:
    low, high = (_FIELDS[key].metadata[end] for end in ("low", "high"))
    if not low <= number <= high:  # NaN is in no range
        raise UsageError(f"{key} = {number} is out of range", where=where, allowed=f"{low:g} to {high:g}")
    return number


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= 1e18


def _check_whole(protocol: Protocol, where: str) -> None:
    if (protocol.epochs is None) == (protocol.steps is None):
        raise UsageError(f"protocol {protocol.name}: exactly one of epochs and steps must be given", where=where)
    if "default" not in protocol.lr:
        raise UsageError(f"protocol {protocol.name}: lr needs a `default`", where=where)
    if protocol.loss != "ce" and protocol.labels == "hard":
        raise UsageError(f"protocol {protocol.name}: loss {protocol.loss} needs soft or stored labels", where=where)
    if protocol.loss == "ce" and protocol.labels != "hard":
        raise UsageError(f"protocol {protocol.name}: loss ce takes hard labels", where=where)
