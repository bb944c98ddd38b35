"""What a record holds, written down once: field, type, unit, meaning; and how a record is checked against it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from benchmark.core.bits import unpack
from benchmark.core.foreign import check_plain, is_odd, is_plain_path
from benchmark.core.store.keys import digest_of

SCHEMA = 1
ID_LENGTH = 32
SEALED = ("identity", "outcome", "scores", "cost", "gates")  # what the digest covers: everything that was measured
STATUSES = ("ok", "failed", "skipped")
SET_STATUSES = ("ok", "weak", "waived")

NUMBER = (int, float)
NULL = type(None)

# (path, types, required, meaning). A dot descends; a field that is not listed is allowed (plug-ins add scores).
FIELDS: tuple[tuple[str, tuple[type, ...], bool, str], ...] = (
    ("schema", (int,), True, "version of this table"),
    ("id", (str,), True, "first 32 hex digits of the SHA-256 of the identity's canonical JSON"),
    ("digest", (str,), True, f"SHA-256 over {', '.join(SEALED)}: an edit by hand is noticed"),
    ("identity", (dict,), True, "everything that determines the result; hashed into the id"),
    ("identity.dataset", (dict,), True, ""),
    ("identity.dataset.name", (str,), True, "as on the command line"),
    ("identity.dataset.digest", (str,), True, "SHA-256 of the content"),
    ("identity.ipc", (int,), True, "images per class"),
    ("identity.method", (dict,), True, ""),
    ("identity.method.name", (str,), True, ""),
    ("identity.method.version", (int, str), True, ""),
    ("identity.method.params", (dict,), True, "every parameter, defaults included"),
    ("identity.method.inputs", (dict,), False, "what else the set was made from: teacher, files; by key or digest"),
    ("identity.seed", (int,), True, "seeds the distilled set and the student"),
    ("identity.student", (str,), True, "architecture"),
    ("identity.student_version", (int,), False, "version of the architecture's code, where it is not 1"),
    ("identity.protocol", (dict,), True, ""),
    ("identity.protocol.name", (str,), True, ""),
    ("identity.protocol.version", (int, str), True, ""),
    ("identity.protocol.digest", (str,), True, "SHA-256 of the protocol's document"),
    ("identity.teacher", (dict, NULL), True, "null where the protocol needs none"),
    ("identity.teacher.name", (str,), True, ""),
    ("identity.teacher.key", (str,), True, ""),
    ("identity.backbone", (dict, NULL), True, "null where the method needs none"),
    ("identity.backbone.name", (str,), True, ""),
    ("identity.backbone.key", (str,), True, ""),
    ("identity.precision", (dict,), True, "dtype, autocast, tf32, compile"),
    ("identity.set", (str,), True, "stage key or content digest of the distilled set"),
    ("outcome", (dict,), True, ""),
    ("outcome.status", (str,), True, "ok, failed or skipped"),
    ("outcome.reason", (str,), False, "why it failed or was skipped"),
    ("outcome.flags", (list,), False, "short remarks"),
    ("scores", (dict,), True, "percent unless a metric says otherwise; empty unless ok"),
    ("scores.top1_last", NUMBER, False, "top-1 on the test split after the last epoch, percent; ranks the boards"),
    ("scores.top1_best", NUMBER, False, "best of the evaluated epochs, percent; chosen on the test split"),
    ("scores.top5_last", (*NUMBER, NULL), False, "top-5 after the last epoch, percent"),
    ("scores.ece", (*NUMBER, NULL), False, "expected calibration error, percent"),
    (
        "scores.right",
        (str,),
        False,
        "which test images the student got right after the last epoch, one bit each in the split's order, COUNT:BASE64",
    ),
    ("scores.curve", (list,), False, "[[epoch, top1, top5], …] of the evaluated epochs, percent"),
    ("cost", (dict,), True, ""),
    (
        "cost.distill_seconds",
        (*NUMBER, NULL),
        False,
        "wall-clock seconds of one worker that made the distilled set, with the whole of the stages that other sets "
        "share (D3HR's statistics, say) and without waiting for other workers",
    ),
    ("cost.distill_shared_seconds", (*NUMBER, NULL), False, "the part of it that other sets share"),
    ("cost.train_seconds", (*NUMBER, NULL), False, "wall-clock seconds that trained and tested the student"),
    ("cost.peak_memory_bytes", (*NUMBER, NULL), False, "peak memory of training, bytes"),
    ("cost.image_bytes", (*NUMBER, NULL), False, "size of the distilled images on disk, bytes"),
    ("cost.label_bytes", (*NUMBER, NULL), False, "size of stored soft labels, bytes; 0 for online or hard labels"),
    ("cost.device", (str, NULL), False, "where the student was trained"),
    ("provenance", (dict,), True, "versions, commit, hardware, time; not sealed, not hashed"),
    ("gates", (dict,), True, ""),
    ("gates.teacher", (dict, NULL), False, "accuracy and expected accuracy in percent, status"),
    (
        "gates.set",
        (dict, NULL),
        False,
        "recognised: percent of the set that the teacher gets right; chance; status: ok, weak (not significantly above "
        "chance), waived",
    ),
    ("artifacts", (dict,), True, "where the set, the contact sheet and the curve lie; not sealed"),
    ("artifacts.images", (str,), False, "digest of the set's class order and images: equal sets have equal ones"),
    ("artifacts.protocol", (dict,), False, "every field of the protocol; identity.protocol.digest is its SHA-256"),
)


def _name(value: Any) -> bool:
    return isinstance(value, str) and not is_odd(value)


def _measured(value: Any) -> bool:
    """A number that sums and means of it cannot overflow."""
    return isinstance(value, NUMBER) and not isinstance(value, bool) and abs(value) <= 1e18  # NaN fails


def _optional(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


def _curve(value: Any) -> bool:
    """``[[epoch, top1, …], …]``."""
    return isinstance(value, list) and all(
        isinstance(point, list) and len(point) >= 2 and all(map(_measured, point[:2])) for point in value
    )


def _flat(value: Any) -> bool:
    return isinstance(value, dict) and not any(isinstance(v, (dict, list)) for v in value.values())


def _inputs(value: Any) -> bool:
    """Name to key, or to ``{"name", "key"}``."""
    made = value.values() if isinstance(value, dict) else [0]
    return all(_name(v) or (_flat(v) and all(_name(x) for x in v.values())) for v in made)


def _listed(value: Any) -> bool:
    return isinstance(value, list) and all(map(_name, value))


# Path, check and meaning of what the types above do not say: elements of lists, values of objects, names. What passes
# here can be shown by every command. `*` stands for every entry of an object.
_ELEMENTS: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    *((path, _name, "a name without control characters") for path in (
        "identity.dataset.name", "identity.dataset.digest", "identity.method.name", "identity.student",
        "identity.protocol.name", "identity.protocol.digest", "identity.teacher.name", "identity.teacher.key",
        "identity.backbone.name", "identity.backbone.key", "identity.set", "id", "digest",
        "artifacts.tuning.on", "artifacts.tuning.protocol", "artifacts.tuning.student", "artifacts.tuning.seen",
        "provenance.commit",
    )),
    ("identity.method.version", lambda v: isinstance(v, int) or _name(v), "a number or a name"),
    ("identity.protocol.version", lambda v: isinstance(v, int) or _name(v), "a number or a name"),
    ("identity.method.inputs", _inputs, "names with keys"),
    ("identity.precision", _flat, "an object without lists and objects in it"),
    ("outcome.flags", _listed, "a list of texts"),
    ("scores.curve", _curve, "a list of [epoch, top1, …] in numbers"),
    ("cost.device", _optional(_name), "a name"),
    ("gates.teacher.accuracy", _optional(_measured), "a number"),
    ("gates.teacher.expected", _optional(_measured), "a number"),
    ("gates.teacher.status", _name, "a name"),
    ("gates.set.recognised", _optional(_measured), "a number"),
    ("gates.set.chance", _optional(_measured), "a number"),
    ("gates.set.status", _name, "a name"),
    ("artifacts.contact_sheet", _optional(lambda v: v == "" or is_plain_path(v)), "a plain path in the folder"),
    ("artifacts.tuning", _optional(lambda v: isinstance(v, dict)), "an object"),
    ("artifacts.tuning.seeds", _measured, "a number"),
    ("artifacts.tuning.trials", _measured, "a number"),
)  # fmt: skip
_TUNED = ("on", "protocol", "student", "seeds", "trials")  # a note of `ddbench tune` has all of these

_CHECKED = [(path.split("."), check, meaning) for path, check, meaning in _ELEMENTS]
_NESTED = [(path.split("."), types, required) for path, types, required, _ in FIELDS]
_PERCENT = ("top1_last", "top1_best", "top5_last", "ece")
_MISSING = object()


def record_id(identity: dict) -> str:
    """First 32 hex digits of the SHA-256 of the identity's canonical JSON."""
    return digest_of(identity)[:ID_LENGTH]


def seal(record: dict) -> str:
    """The digest that a record carries: SHA-256 over its measured parts."""
    return digest_of({name: record.get(name) for name in SEALED})


def verify_record(record: Any, *, plain: bool = False) -> list[str]:
    """What is wrong with a record: schema, types, ranges, id, digest. An empty list for a good one.

    Args:
        plain: it was read by `foreign.read_json`, which has checked its values.
    """
    if not isinstance(record, dict):
        return ["not a JSON object"]
    if record.get("schema") != SCHEMA:
        return [f"schema is {record.get('schema')!r}; this version of ddbench reads schema {SCHEMA}"]
    try:
        if not plain:
            check_plain(record)
    except ValueError as error:
        return [f"holds a value that cannot be used: {error}"]
    faults = list(_structure(record)) or list(_elements(record))
    if faults:
        return faults
    faults = list(_values(record))
    try:
        if record["id"] != record_id(record["identity"]):
            faults.append("id does not belong to the identity: the identity was edited")
        elif record["digest"] != seal(record):
            faults.append(f"digest does not match: one of {', '.join(SEALED)} was edited after it was written")
    except (ValueError, TypeError) as error:  # NaN, or something that JSON cannot hold
        faults.append(f"cannot be hashed: {error}")
    return faults


def _structure(record: dict) -> Iterator[str]:
    for path, types, required in _NESTED:
        parent = record
        for name in path[:-1]:
            parent = parent.get(name) if isinstance(parent, dict) else None
        if not isinstance(parent, dict):
            continue  # the parent is null where it may be, or was reported itself
        value = parent.get(path[-1], _MISSING)
        if value is _MISSING:
            if required:
                yield f"{'.'.join(path)} is missing"
        elif not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            names = " or ".join("null" if t is NULL else t.__name__ for t in types)
            yield f"{'.'.join(path)} must be {names}, not {_short(value)}"


def _elements(record: dict) -> Iterator[str]:
    for names, check, meaning in _CHECKED:
        value: Any = record
        for name in names:
            value = value.get(name, _MISSING) if isinstance(value, dict) else _MISSING
        if value is not _MISSING and not check(value):
            yield f"{'.'.join(names)} must be {meaning}, not {_short(value)}"
    tuning = record["artifacts"].get("tuning")
    if isinstance(tuning, dict) and tuning and tuning.get("settings") != "authors":  # which nobody tuned
        yield from (f"artifacts.tuning.{name} is missing" for name in _TUNED if name not in tuning)
    for part in ("scores", "cost"):
        for name, value in record[part].items():
            if not _name(name):
                yield f"{part} has an entry {_short(name)}, which is no name"
            elif isinstance(value, NUMBER) and not isinstance(value, bool) and not _measured(value):
                yield f"{part}.{name} = {value} is too large"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def _bits(scores: dict) -> Iterator[str]:
    try:
        right = unpack(scores["right"])
    except ValueError as error:
        yield f"scores.right is {error}"
        return
    if not len(right) or abs(100 * right.mean() - scores.get("top1_last", math.nan)) > 1e-6:
        yield f"scores.right counts {100 * right.mean() if len(right) else 0:.4f} %, scores.top1_last says otherwise"


def _values(record: dict) -> Iterator[str]:
    identity, outcome, scores = record["identity"], record["outcome"], record["scores"]
    if not 1 <= identity["ipc"] <= 10**9:
        yield f"identity.ipc = {identity['ipc']} must be at least 1 and at most 10**9"
    status = outcome["status"]
    if status not in STATUSES:
        yield f"outcome.status = {status!r} must be one of {', '.join(STATUSES)}"
    elif status == "ok":
        for name in ("top1_last", "top1_best"):
            if scores.get(name) is None:
                yield f"scores.{name} is missing although the outcome is ok"
    elif not outcome.get("reason"):
        yield f"outcome.reason is missing although the outcome is {status}"
    for name in _PERCENT:
        value = scores.get(name)
        if value is not None and not 0 <= value <= 100:  # NaN fails too
            yield f"scores.{name} = {value} is not a percentage"
    if "right" in scores:
        yield from _bits(scores)
    document = record["artifacts"].get("protocol")
    if document is not None and digest_of(document) != identity["protocol"]["digest"]:
        yield "artifacts.protocol is not the protocol whose digest identity.protocol has"
    for name, value in record["cost"].items():
        if isinstance(value, NUMBER) and not (math.isfinite(value) and value >= 0):
            yield f"cost.{name} = {value} must be finite and not negative"
    gate = record["gates"].get("set")
    if gate and gate.get("status") not in SET_STATUSES and status == "ok":
        yield f"gates.set.status = {gate.get('status')!r} must be one of {', '.join(SET_STATUSES)}"
