"""What an augmentation in a protocol may say; light, imports no torch."""

from __future__ import annotations

import difflib
from typing import Any

from benchmark.core.errors import UsageError

# operation -> {parameter: (default, explanation)}
OPERATIONS: dict[str, dict[str, tuple[Any, str]]] = {
    "patch_shuffle": {"factor": (2, "factor x factor patches, columns and rows permuted (RDED)")},
    "random_resized_crop": {
        "scale": ([0.08, 1.0], "range of the crop's part of the area"),
        "ratio": ([3 / 4, 4 / 3], "range of the crop's aspect ratio (log-uniform)"),
        "rounding": ("float", "float: antialiased tensors; uint8: rounded after each pass, as PIL does"),
    },
    "crop_pad": {"pad": (0.125, "shift by up to this part of the side, zeros of the normalised image come in")},
    "flip": {"p": (0.5, "chance of a left-right flip")},
    "cutout": {"size": (0.5, "side of the square that is erased, in parts of the image's side")},
    "rotate_scale": {
        "degrees": (15.0, "rotation up to this angle either way"),
        "scale": (1.2, "zoom between 1/scale and scale"),
    },
    "diffaug": {
        "strategy": ("color_crop_flip_scale_rotate", "flip, color, cutout, and one of the others a batch (IDC)")
    },
    "dsa": {"strategy": ("color_crop_cutout_flip_scale_rotate", "one of these is drawn for each batch (DSA)")},
}


def _fits(given: Any, default: Any) -> bool:
    """Whether a value can stand where the default stands: numbers finite and not negative, ranges of two in order."""
    if isinstance(default, str):
        return isinstance(given, str)
    if isinstance(default, list):
        return (
            isinstance(given, list)
            and len(given) == 2
            and all(_fits(v, 1.0) for v in given)
            and 0 < given[0] <= given[1]
        )
    number = isinstance(given, (int, float)) and not isinstance(given, bool)
    return number and 0 <= given <= 1000  # NaN is not


def check_augment(value: Any, where: str) -> list[dict[str, Any]]:
    """A protocol's list of augmentations with defaults filled in.

    Raises:
        UsageError: not a list of ``{op: name, parameter: value}``; unknown operation or parameter.
    """
    if not isinstance(value, list):
        raise UsageError(f"augment must be a list of operations, not {value!r}", where=where)
    filled = []
    for entry in value:
        if not isinstance(entry, (str, dict)):
            raise UsageError(f"augment takes {{op: NAME, …}} or NAME, not {entry!r}", where=where)
        entry = {"op": entry} if isinstance(entry, str) else dict(entry)
        name = entry.pop("op", None)
        if not isinstance(name, str) or name not in OPERATIONS:
            near = difflib.get_close_matches(str(name), OPERATIONS, n=1)
            raise UsageError(
                f"unknown augmentation {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
                where=where,
                allowed=", ".join(sorted(OPERATIONS)),
            )
        unknown = set(entry) - set(OPERATIONS[name])
        if unknown:
            raise UsageError(
                f"{name} has no parameter {min(map(str, unknown))!r}", where=where, allowed=", ".join(OPERATIONS[name])
            )
        for key, given in entry.items():
            if not _fits(given, OPERATIONS[name][key][0]):
                default = OPERATIONS[name][key][0]
                raise UsageError(f"{name}: {key} cannot be {given!r}", where=where, allowed=f"such as {default!r}")
        filled.append({"op": name, **{k: entry.get(k, d) for k, (d, _) in OPERATIONS[name].items()}})
    return filled
