"""Options of datasets: each dataset names those it knows; another one is an error, not silence."""

from __future__ import annotations

import difflib
from typing import Any

from benchmark.core.errors import UsageError


def check_options(dataset: str, given: dict[str, Any], known: tuple[str, ...]) -> None:
    """Refuse options that ``dataset`` does not have, and values that cannot be."""
    for key, value in given.items():
        if key == "on_corrupt" and value not in ("error", "skip"):
            raise UsageError(f"on_corrupt cannot be {value!r}", where="--on-corrupt", allowed="error, skip")
        if key == "image_size" and (isinstance(value, bool) or not isinstance(value, int) or value < 4):
            raise UsageError(f"image_size cannot be {value!r}", where="--image-size", allowed="pixels, at least 4")
        if key == "split" and not (isinstance(value, float) and 0 < value < 1):
            raise UsageError(f"split cannot be {value!r}", where="--split", allowed="a share between 0 and 1, e.g. 0.2")
        if key in known or (key == "download" and not value) or (key == "on_corrupt" and value == "error"):
            continue
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
        raise UsageError(
            f"dataset {dataset!r} has no option {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
            where="--dataset",
            allowed=", ".join(known) or "none",
        )
