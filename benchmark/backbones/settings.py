"""Every number that determines a trained backbone: preset, then dataset, then what the caller overrides."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from benchmark.core.compute import Precision
from benchmark.core.errors import UsageError
from benchmark.data.base import Dataset, plain_name
from benchmark.plugins import registry


@dataclass(frozen=True)
class Settings:
    """Geometry, sizes and training recipe of a VAE and a DiT.

    ``image_size`` (px), ``levels`` (resolutions of the VAE: it shrinks by ``2 ** (levels - 1)``) and ``patch`` follow
    from the dataset's image size where they are 0 (see :func:`geometry`).
    """

    # geometry
    image_size: int = 0
    levels: int = 0
    padding: int = -1  # px repeated on each side to reach image_size instead of resizing; -1: see `default_padding`
    latent_channels: int = 4
    patch: int = 2
    # VAE
    vae_width: int = 16  # channels of the finest level; each coarser one has twice as many, up to 4 times
    vae_layers: int = 1
    vae_steps: int = 1000
    vae_batch: int = 64
    vae_lr: float = 2e-3
    kl_weight: float = 1e-3  # of the mean KL per latent coordinate, beside the mean absolute error per pixel
    # DiT
    width: int = 128
    depth: int = 4
    heads: int = 4
    dit_steps: int = 1000
    dit_batch: int = 128
    dit_lr: float = 1e-3
    weight_decay: float = 0.0
    warmup: float = 0.05  # share of the steps over which the rate rises; a cosine to zero follows
    label_dropout: float = 0.1  # 0 gives a backbone that cannot be guided
    snr_gamma: float = 5.0  # min-SNR weighting (arXiv 2303.09556, eq. 5 for noise prediction); 0 weighs levels equally
    ema_width: float = 0.05  # width of the averaging window as a share of the training so far (arXiv 2312.02696)
    # both
    precision: str = "fp32"
    seed: int = 0
    # what a GPU trains with (later fields: left out of keys at these values, see `document`)
    perceptual: float = 0.0  # weight of the distance of a small classifier's features in the VAE's loss
    draws: str = "host"  # where batches and noise are drawn: host (the same numbers on every device), or device (fast)
    compiled: int = 0  # 1: the training steps go through torch.compile
    align: float = 0.0  # weight of the distance of an inner layer of the DiT to a classifier's features
    flips: int = 0  # 1: mirrored training images count as images too
    held_out: int = 1024  # training images, at most, that nothing trains on

    def document(self) -> dict[str, Any]:
        """As JSON; fields that came after the first backbones are left out at their defaults, so old keys stay."""
        values = dataclasses.asdict(self)
        return {k: v for k, v in values.items() if k not in LATER or v != LATER[k]}

    def vae_document(self) -> dict[str, Any]:
        """The settings that the VAE depends on."""
        names = ("image_size", "levels", "padding", "latent_channels", "ema_width", *LATER)
        found = {k: v for k, v in self.document().items() if k in names or k.startswith(("vae_", "kl_"))}
        found.pop("align", None)  # of the DiT alone
        return found

    @property
    def policy(self) -> Precision:
        return Precision.named(self.precision)

    @property
    def latent_size(self) -> int:
        return self.image_size // 2 ** (self.levels - 1)


LATER = {
    f.name: f.default
    for f in dataclasses.fields(Settings)
    if f.name in ("perceptual", "draws", "compiled", "align", "flips", "held_out")
}


def geometry(image_size: int) -> tuple[int, int]:
    """Working size in px and number of VAE levels for images of ``image_size`` px.

    Up to 32 px the latents are 8x8 (16 tokens of 2x2: what a CPU can train), up to 128 px 16x16, else 32x32 as in
    DiT-XL/2-256.
    """
    for size, levels in ((16, 2), (32, 3), (64, 3), (128, 4)):
        if image_size <= size:
            return size, levels
    return 256, 4


def default_padding(image_size: int, working_size: int) -> int:
    """Px on each side for images only a little smaller than the working size (28 of 32 px), else 0: they are resized.

    Up to 32 px and back costs Fashion-MNIST 8.5 grey levels RMSE before any VAE sees it; padding costs nothing.
    """
    gap = working_size - image_size
    return gap // 2 if gap > 0 and gap % 2 == 0 and 8 * gap <= working_size else 0


@lru_cache(maxsize=1)
def _datasets() -> dict[str, dict[str, Any]]:
    import yaml

    return yaml.safe_load(files("benchmark.backbones").joinpath("datasets.yaml").read_text(encoding="utf-8"))


def default_preset(dataset: str) -> str:
    """Name of the preset that a dataset gets when the user names none."""
    return own_settings(dataset).get("preset", "small")


def own_settings(dataset: str) -> dict[str, Any]:
    """What ``datasets.yaml`` says of a dataset, with or without ``@val``: settings, and what they are besides."""
    return _datasets().get(plain_name(dataset), {})


RANGES = {  # of settings that are not 0 to 10**9
    "image_size": (0, 4096),
    "levels": (0, 8),
    "padding": (-1, 2048),
    "latent_channels": (1, 1024),
    "patch": (1, 64),
    "vae_width": (1, 4096),
    "vae_layers": (1, 64),
    "width": (1, 16384),
    "depth": (1, 256),
    "heads": (1, 1024),
    "vae_lr": (0, 100.0),
    "dit_lr": (0, 100.0),
    "kl_weight": (0, 1e6),
    "weight_decay": (0, 1e3),
    "warmup": (0, 1),
    "label_dropout": (0, 1),
    "snr_gamma": (0, 1e6),
    "ema_width": (0, 1),
    "seed": (0, 2**62),
}


def _is_number(value: Any) -> bool:
    """A number, or text that reads as one (from a command line)."""
    try:
        float(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def settings(dataset: Dataset, preset: str, **overrides: Any) -> Settings:
    """The settings of a backbone for ``dataset``: preset, then the dataset's own for that preset, then ``overrides``.

    Raises:
        UsageError: unknown preset or setting, or a size that does not divide.
    """
    values = dict(registry().get("backbone", preset, where="--preset").load())
    other = ("preset", "presets", "guidance", "reason")
    own = {k: v for k, v in own_settings(dataset.name).items() if k not in other}
    if preset == default_preset(dataset.name):
        values.update(own)
    values.update(own_settings(dataset.name).get("presets", {}).get(preset, {}))
    values.update(overrides)
    known = {f.name: f for f in dataclasses.fields(Settings)}
    for key, value in values.items():
        if key not in known:
            import difflib

            near = difflib.get_close_matches(key, known, n=1)
            raise UsageError(
                f"unknown backbone setting {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
                allowed=", ".join(known),
            )
        kind = type(known[key].default)
        try:
            if isinstance(value, bool) or (kind is str) != isinstance(value, str) and not _is_number(value):
                raise ValueError
            if kind is int and float(value) != int(float(value)):
                raise ValueError
            values[key] = int(float(value)) if kind is int else kind(value)
        except (TypeError, ValueError, OverflowError):
            raise UsageError(f"backbone setting {key} must be {kind.__name__}, not {value!r}") from None
        low, high = RANGES.get(key, (0, 10**9))
        if kind is not str and not low <= values[key] <= high:  # NaN is in no range
            allowed = f"{low:g} to {high:g}"
            raise UsageError(f"backbone setting {key} = {values[key]} is out of range", where="--set", allowed=allowed)
    made = Settings(**values)
    size, levels = geometry(made.image_size or dataset.image_size)
    made = dataclasses.replace(made, image_size=made.image_size or size, levels=made.levels or levels)
    if made.padding < 0:
        made = dataclasses.replace(made, padding=default_padding(dataset.image_size, made.image_size))
    factor = 2 ** (made.levels - 1)
    if made.image_size % (factor * made.patch):
        raise UsageError(
            f"image_size {made.image_size} does not divide by {factor * made.patch} ({made.levels} VAE levels, "
            f"patch {made.patch})"
        )
    if 4 * made.padding >= made.image_size:
        raise UsageError(f"padding {made.padding} leaves too little of image_size {made.image_size}")
    if made.width % made.heads:
        raise UsageError(f"width {made.width} does not divide by heads {made.heads}")
    for key in ("vae_steps", "dit_steps", "vae_batch", "dit_batch"):
        if getattr(made, key) < 1:
            raise UsageError(f"{key} must be at least 1, not {getattr(made, key)}")
    if made.draws not in ("host", "device"):
        raise UsageError(f"draws must be host or device, not {made.draws!r}")
    if made.draws == "host" and (made.perceptual or made.compiled or made.flips or made.align):
        raise UsageError(
            "perceptual, compiled, align and flips need draws=device", hint="ddbench backbone train --set draws=device"
        )
    if min(made.perceptual, made.align) < 0 or made.held_out < 1:
        raise UsageError("perceptual and align must be at least 0, held_out at least 1")
    if not 0 <= made.label_dropout < 1:
        raise UsageError(f"label_dropout must be in [0, 1), not {made.label_dropout}")
    check_training_precision(made.policy)
    return made


def check_training_precision(policy: Precision) -> None:
    """Refuse float16: its small gradients vanish without loss scaling, and every device that has it has bf16 or fp32.

    Raises:
        UsageError: float16, or compiled.
    """
    if policy.autocast == "float16" or policy.compile:
        where, allowed = "precision", "fp32, tf32, bf16"
        raise UsageError("backbones are not trained in fp16 and not compiled", where=where, allowed=allowed)
