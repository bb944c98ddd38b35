"""Named settings of D3HR, for ``--preset``; what a user sets with ``--set`` goes first."""

from __future__ import annotations

from typing import Any

# ten evaluations in place of 30, both ways (docs/d3hr.md, "How many evaluations?")
FAST: dict[str, Any] = {
    "invert_solver": "dpm2m",
    "invert_evaluations": 10,
    "decode_solver": "dpm2m",
    "decode_evaluations": 10,
}

PRESETS: dict[str, dict[str, Any]] = {
    # the authors' scripts as they run: the start one step above the inversion's end, a further step at level 0, the
    # skewness over features, resizing as torchvision does by default. m is their option's default; their loop draws a
    # thousand times as many.
    "released": {
        "steps": 50,
        "depth": 30,
        "domain": "ddim",
        "encode_resize": "bilinear",
        "invert_guidance": 4.0,
        "invert_solver": "ddim",
        "sampler": "search",
        "search_by": "draws",
        "m": 100_000,
        "score": "released",
        "start_step": 18,
        "ending": "released",
        "decode_guidance": 4.0,
    },
    # what the paper reports (known from secondary notes): depth 31, a million candidates, skewness weighed by 0.5
    "paper": {
        "steps": 50,
        "depth": 31,
        "domain": "ddim",
        "invert_guidance": 4.0,
        "invert_solver": "ddim",
        "sampler": "search",
        "m": 1_000_000,
        "score": "paper",
        "decode_guidance": 4.0,
    },
    "fast": FAST,
}
