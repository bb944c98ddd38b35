"""d3hr-modes: a class is several modes of its inverted latents, one an image, in place of one Gaussian.

The same code as D3HR with other defaults (docs/d3hr-modes.md says why): k-means finds as many modes as images are
wanted, and each image is decoded from its mode's mean plus part of the deviation within modes.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from d3hr_plugin.method import D3HR
from d3hr_plugin.params import Params
from d3hr_plugin.presets import FAST

_FIELDS = {f.name: f for f in dataclasses.fields(Params)}


def _again(name: str, default: Any, source: str, tune: tuple = ()) -> Any:
    """A parameter of D3HR with another default; it always enters keys and records."""
    metadata = {**_FIELDS[name].metadata, "source": source, "late": False}
    return dataclasses.field(default=default, metadata={**metadata, "tune": tune or metadata["tune"]})


@dataclass(frozen=True)
class ModesParams(Params):
    """D3HR's parameters, with the defaults of the modes."""

    model: str = _again("model", "mixture", "own", tune=("mixture", "medoids"))
    modes_in: str = _again("modes_in", "inverted", "own")
    spread: float = _again("spread", 0.5, "own", tune=(0.0, 0.5, 1.0))
    select: str = _again("select", "none", "own")
    candidates: int = _again("candidates", 200, "own")
    invert_guidance: float = _again("invert_guidance", 1.0, "own: with guidance latents leave their modes")
    invert_batch: int = _again("invert_batch", 256, "own")
    decode_batch: int = _again("decode_batch", 128, "own")


class D3HRModes(D3HR):
    """D3HR with modes in place of a Gaussian.

    A class's inverted latents are split by k-means into as many modes as images are wanted, and each image is
    decoded from the mean of its own. Needs the backbone and the training images; costs what D3HR costs, whose
    inversion it shares. Defaults were chosen on held-out images (docs/d3hr-modes.md).
    """

    Params = ModesParams
    presets = {"fast": FAST}
    quick = {"steps": 4, "depth": 2, "invert_batch": 4, "decode_batch": 4}

    @classmethod
    def authors(cls, dataset: str) -> dict[str, Any]:
        return {}  # nobody has published it
