"""How a teacher is trained on a whole dataset: a recipe for each family of datasets, light (imports no torch)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from benchmark.data.base import plain_name

if TYPE_CHECKING:
    from benchmark.data import Dataset


@dataclass(frozen=True)
class Recipe:
    """Settings of a teacher's training; every field is part of its key."""

    steps: int
    batch: int
    lr: float = 2e-3
    weight_decay: float = 0.02
    warmup: float = 0.1
    ema: float = 0.998
    label_smoothing: float = 0.0
    augment: tuple = ()
    autocast: str | None = None  # mixed precision: float32 weights, forward and backward passes in this type

    def document(self) -> dict:
        """As JSON; without ``autocast``, which is part of the precision policy.

        ``interval`` stands in the keys of all teachers so far; it changes no result.
        """
        document = {**asdict(self), "augment": [dict(entry) for entry in self.augment], "interval": 100}
        del document["autocast"]
        return document


FEW, ENOUGH = (
    300,
    3000,
)  # training images: the recipe is `tiny` below FEW, the kind's own from ENOUGH on; between, a mix
_SHIFT = {"op": "crop_pad", "pad": 0.125}
_CROP = {"op": "random_resized_crop", "scale": [0.6, 1.0], "ratio": [3 / 4, 4 / 3], "rounding": "float"}
_FLIP = {"op": "flip", "p": 0.5}

# Letters and digits must not be flipped; clothes and photographs may be. Steps are chosen so that 2 CPU cores take
# seconds (digits) to minutes (28 and 32 px) with the ConvNet-3 teacher.
RECIPES = {
    "digits": Recipe(steps=600, batch=64, augment=(_CROP,)),
    "gray": Recipe(steps=1500, batch=128, augment=(_SHIFT, _FLIP)),
    "small": Recipe(steps=3000, batch=128, augment=(_SHIFT, _FLIP)),
    "large": Recipe(
        steps=20000,
        batch=128,
        lr=1e-3,
        ema=0.9995,
        augment=({**_CROP, "scale": [0.25, 1.0]}, _FLIP),
        autocast="bfloat16",  # above 64 px a teacher needs a GPU; bfloat16 needs no loss scaling
    ),
    "tiny": Recipe(steps=40, batch=32, ema=0.9, augment=()),
}


def recipe_for(dataset: Dataset) -> Recipe:
    """The dataset's recipe: its own by name, else by image size, channels and number of images."""
    return recipe_of(dataset.name, len(dataset.train), dataset.image_size, dataset.channels)


def recipe_of(name: str, images: int, image_size: int, channels: int) -> Recipe:
    """:func:`recipe_for` from what is known of a dataset before it is there."""
    if plain_name(name) in ("digits", "mnist"):
        return RECIPES["digits"]
    if images < FEW:
        return RECIPES["tiny"]
    full = RECIPES["large" if image_size > 64 else "gray" if channels == 1 else "small"]
    if images >= ENOUGH:
        return full
    tiny, share = RECIPES["tiny"], (images - FEW) / (ENOUGH - FEW)
    return replace(
        full,
        steps=round(tiny.steps + share * (full.steps - tiny.steps)),
        batch=round(tiny.batch + share * (full.batch - tiny.batch)),
        ema=round(1 - (1 - tiny.ema) * ((1 - full.ema) / (1 - tiny.ema)) ** share, 6),  # it averages over more steps
    )
