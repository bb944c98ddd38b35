"""The size of a backbone and the arithmetic that follows from it: FLOPs, parameters, bytes. Light: imports no torch.

A FLOP is a multiplication or an addition, so a multiply-accumulate counts two; papers on vision models often print
multiply-accumulates as FLOPs (119 G for a forward pass of DiT-XL/2 at 256 px is 237 GFLOP here).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from benchmark.backbones import folder as folders


@dataclass(frozen=True)
class Shape:
    """What decides the cost of a diffusers DiT and its VAE.

    Attributes:
        width, heads, depth, patch, classes: of the DiT; ``latent`` is (c, h, w) of what it takes, ``out`` its output
            channels.
        channels: of the images; ``image_size`` their side in px at the VAE.
        vae: channels of the VAE's levels, finest first; ``layers`` residual blocks a level going down (one more going
            up); ``attention``: whether its middle has an attention block.
    """

    width: int
    heads: int
    depth: int
    patch: int
    classes: int
    latent: tuple[int, int, int]
    out: int
    image_size: int
    channels: int
    vae: tuple[int, ...]
    layers: int
    attention: bool

    @property
    def name(self) -> str:
        """``dit 28x1152/2 4x32x32, vae 128-256-512-512 3x256px``: the key of the throughput table."""
        latent, vae = "x".join(map(str, self.latent)), "-".join(map(str, self.vae))
        return f"dit {self.depth}x{self.width}/{self.patch} {latent}, vae {vae} {self.channels}x{self.image_size}px"

    @property
    def tokens(self) -> int:
        """Patches of a latent."""
        return (self.latent[1] // self.patch) * (self.latent[2] // self.patch)

    def forward_flops(self) -> float:
        """FLOPs of one pass of the DiT over one latent, without guidance.

        Per block and token: queries, keys, values, output 4 w², MLP 8 w², attention 2 T w multiply-accumulates; per
        block and image the conditioning: 256 w + w² (noise level) and 6 w² (adaLN).
        """
        w, t, area = self.width, self.tokens, self.patch**2
        block = t * (12 * w * w + 2 * t * w) + 256 * w + 7 * w * w
        ends = t * area * w * (self.latent[0] + self.out) + 256 * w + 3 * w * w
        return 2.0 * (self.depth * block + ends)

    def encode_flops(self) -> float:
        """FLOPs of the VAE's encoder on one image."""
        side, total, last = self.image_size, 0, self.vae[0]
        total += _conv(side, self.channels, last)
        for level, width in enumerate(self.vae):
            for layer in range(self.layers):
                total += _residual(side, last if layer == 0 else width, width)
            last = width
            if level < len(self.vae) - 1:
                side //= 2
                total += _conv(side, width, width)
        total += self._middle(side, last) + _conv(side, last, 2 * self.latent[0])
        return 2.0 * (total + side * side * (2 * self.latent[0]) ** 2)

    def decode_flops(self) -> float:
        """FLOPs of the VAE's decoder on one latent."""
        side, last = self.latent[1], self.vae[-1]
        total = side * side * self.latent[0] ** 2 + _conv(side, self.latent[0], last) + self._middle(side, last)
        for level, width in enumerate(reversed(self.vae)):
            for layer in range(self.layers + 1):
                total += _residual(side, last if layer == 0 else width, width)
            last = width
            if level < len(self.vae) - 1:
                side *= 2
                total += _conv(side, width, width)
        return 2.0 * (total + _conv(side, last, self.channels))

    def _middle(self, side: int, width: int) -> int:
        tokens = side * side
        attention = tokens * (4 * width * width + 2 * tokens * width) if self.attention else 0
        return 2 * _residual(side, width, width) + attention

    def dit_parameters(self) -> int:
        """Parameters of the DiT; diffusers' holds a label table and a noise-level embedding in every block."""
        w, area = self.width, self.patch**2
        transformer = 12 * w * w + 9 * w  # attention 4 w² + 4 w, MLP 8 w² + 5 w; its norms have none
        conditioning = (self.classes + 1) * w + 257 * w + (w * w + w) + 6 * (w * w + w)
        ends = (area * self.latent[0] + 1) * w + 2 * (w * w + w) + area * self.out * (w + 1)
        return self.depth * (transformer + conditioning) + ends

    def latent_bytes(self, images: int, half: bool) -> int:
        """Bytes of the cached posterior moments (mean and deviation) of ``images`` latents."""
        c, h, w = self.latent
        return images * 2 * c * h * w * (2 if half else 4)

    def memory(self, batch: int, guided: bool = True, training: bool = False) -> int:
        """Estimated bytes that inverting ``batch`` latents takes: weights in float32 and the largest layers at once.

        A pass holds about 16 numbers a token and channel (residual, modulated copy, queries, keys and values, the
        MLP's hidden layer before and after its activation) and the attention's weights never whole; the VAE holds
        about four maps of its finest level, of `Backbone.vae_chunk` images. Training keeps every block's numbers, and
        four copies of the weights.
        """
        rows = batch * (2 if guided else 1)
        block = rows * self.tokens * self.width * 16 * 4
        images = max(1, min(256, (1 << 19) // self.image_size**2))
        maps = 4 * images * self.image_size**2 * self.vae[0] * 4 * (2 if len(self.vae) > 1 else 1)
        weights = 4 * self.dit_parameters() + VAE_WEIGHTS
        if training:
            return 4 * weights + block * self.depth
        return weights + max(block, maps)


VAE_WEIGHTS = 4 * 84_000_000  # bytes of Stable Diffusion's VAE in float32; smaller ones do not matter
DIT_XL_2_256 = Shape(1152, 16, 28, 2, 1000, (4, 32, 32), 8, 256, 3, (128, 256, 512, 512), 2, True)
KNOWN = {"facebook/DiT-XL-2-256": DIT_XL_2_256}  # known without the files


def _conv(side: int, inputs: int, outputs: int) -> int:
    return side * side * inputs * outputs * 9


def _residual(side: int, inputs: int, outputs: int) -> int:
    shortcut = side * side * inputs * outputs if inputs != outputs else 0
    return _conv(side, inputs, outputs) + _conv(side, outputs, outputs) + shortcut


def shape_of(folder: Path) -> Shape:
    """The shape of a backbone folder, from its two configuration files.

    Raises:
        UsageError: a field is missing.
    """
    try:
        return _shape(*(json.loads((folder / part / "config.json").read_text()) for part in ("transformer", "vae")))
    except KeyError as error:
        raise folders.not_a_backbone(folder, f"its configuration lacks {error}") from None


def _shape(dit: dict, vae: dict) -> Shape:
    side, channels = int(dit["sample_size"]), int(dit["in_channels"])
    widths = tuple(int(w) for w in vae["block_out_channels"])
    return Shape(
        width=int(dit["num_attention_heads"]) * int(dit["attention_head_dim"]),
        heads=int(dit["num_attention_heads"]),
        depth=int(dit["num_layers"]),
        patch=int(dit.get("patch_size") or 2),
        classes=int(dit["num_embeds_ada_norm"]),
        latent=(channels, side, side),
        out=int(dit.get("out_channels") or channels),
        image_size=side * 2 ** (len(widths) - 1),
        channels=int(vae["in_channels"]),
        vae=widths,
        layers=int(vae.get("layers_per_block", 1)),
        attention=bool(vae.get("mid_block_add_attention", True)),
    )


def shape_of_settings(settings, classes: int, channels: int) -> Shape:
    """The shape of a backbone that is trained here (`benchmark.backbones.settings.Settings`)."""
    return Shape(
        width=settings.width,
        heads=settings.heads,
        depth=settings.depth,
        patch=settings.patch,
        classes=classes,
        latent=(settings.latent_channels, settings.latent_size, settings.latent_size),
        out=settings.latent_channels,
        image_size=settings.image_size,
        channels=channels,
        vae=tuple(settings.vae_width * min(2**level, 4) for level in range(settings.levels)),
        layers=settings.vae_layers,
        attention=False,
    )


def shape_by_name(name: str) -> Shape | None:
    """The shape of a folder or hub id without its weights; None where nothing is known of it.

    Raises:
        UsageError: a folder that is not a backbone.
    """
    from benchmark.core.errors import MissingError

    try:
        path = folders.resolve(name)
    except MissingError:
        return KNOWN.get(name)
    folders.check(path)
    return shape_of(path)
