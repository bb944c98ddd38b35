"""A loaded backbone: the VAE, the DiT and the scheduler of a folder in diffusers' DiTPipeline format."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from benchmark.backbones import folder as folders
from benchmark.backbones.dit import compile_blocks, fix_label_dropout, label_tables
from benchmark.core.compute import Precision
from benchmark.core.errors import JobError, UsageError
from benchmark.data.base import Dataset

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, DDIMScheduler, DiTTransformer2DModel  # slow to import; see load_parts

VAE_PIXELS = 1 << 19  # pixels a VAE pass (8 images of 256 px, 256 of 32 px), so that large images fit in memory


@dataclass
class Backbone:
    """Latents in and out of images, and the guided noise prediction between.

    Attributes:
        image_size: side in px at which the VAE encodes and decodes.
        padding: px on each side of that which repeat the image's edge; ``content_size`` is the rest.
        latent_shape: (c, h, w).
        num_classes: classes the DiT knows.
        null_class: index of the unconditional row (== num_classes), or None where the DiT was trained without.
        learned_sigma: the DiT has twice the output channels; the first half is the noise.
        class_map: int64, dataset class to backbone class.
        key: what the backbone's results are keyed by; ``vae_key`` likewise for what depends on the VAE alone.
        report: the report card, where the folder has one.
    """

    vae: AutoencoderKL
    dit: DiTTransformer2DModel
    scheduler: DDIMScheduler
    device: str
    precision: Precision
    image_size: int
    latent_shape: tuple[int, int, int]
    num_classes: int
    null_class: int | None
    learned_sigma: bool
    class_map: torch.Tensor
    key: str
    vae_key: str
    padding: int = 0
    name: str = ""
    report: dict = field(default_factory=dict)

    @property
    def channels(self) -> int:
        """Channels of the images that the VAE takes."""
        return int(self.vae.config.in_channels)

    @property
    def content_size(self) -> int:
        """Side in px at which to hand images over: they are padded, not resized, to ``image_size``."""
        return self.image_size - 2 * self.padding

    @property
    def scale(self) -> float:
        """The factor between the VAE's latents and the DiT's."""
        return float(self.vae.config.scaling_factor)

    @property
    def vae_chunk(self) -> int:
        """Images a VAE pass: a fixed function of the image size, so that results do not depend on the machine."""
        return max(1, min(256, VAE_PIXELS // self.image_size**2))

    @torch.no_grad()
    def moments(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of the scaled latents, float32 ``[n, c, h, w]`` each, of uint8 images."""
        parts = []
        for part in images.split(self.vae_chunk):
            pixels = self._pixels(part)
            with self.precision.context(self.device):
                found = self.vae.encode(pixels).latent_dist
            parts.append((found.mean.float() * self.scale, found.std.float() * self.scale))
        return torch.cat([m for m, _ in parts]), torch.cat([s for _, s in parts])

    def encode(self, images: torch.Tensor, generator: torch.Generator | None = None, sample: bool = True):
        """Scaled latents float32 ``[n, c, h, w]`` of uint8 images ``[n, C, s, s]`` of any size and 1 or 3 channels.

        Args:
            generator: a CPU generator for the posterior sample.
            sample: a sample of the VAE's posterior (as D3HR takes it), else its mean.
        """
        mean, std = self.moments(images)
        if not sample:
            return mean
        return mean + std * torch.randn(mean.shape, generator=generator).to(mean.device)

    def _pixels(self, images: torch.Tensor) -> torch.Tensor:
        pixels = images.to(self.device, non_blocking=True).float()
        if pixels.shape[1] != self.channels:
            if self.channels == 1:  # ITU-R 601 luma, as PIL's convert("L")
                luma = torch.tensor([0.299, 0.587, 0.114], device=pixels.device).view(1, 3, 1, 1)
                pixels = (pixels * luma).sum(dim=1, keepdim=True).round()
            else:
                pixels = pixels.expand(-1, self.channels, -1, -1)
        if pixels.shape[-1] != self.content_size:
            size = (self.content_size, self.content_size)
            pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 255)
        pixels = pad(pixels, self.padding)
        return (pixels / 127.5 - 1).to(self.vae.dtype)

    @torch.no_grad()
    def decode(self, latents: torch.Tensor, size: int, channels: int, resample: str = "lanczos") -> torch.Tensor:
        """Images uint8 ``[n, channels, size, size]`` on the CPU of scaled latents ``[n, c, h, w]``.

        Decoded at the backbone's size, rounded to 8 bits, padding cut off, then resized with PIL's filter ``resample``
        (as the D3HR authors save their images).

        Raises:
            JobError: the latents hold NaN or infinity.
        """
        if not torch.isfinite(latents).all():
            raise JobError(
                "NaN or infinite latents reached the decoder",
                where=f"images {sorted(set((~torch.isfinite(latents)).nonzero()[:, 0].tolist()))[:8]}",
            )
        done = []
        for part in latents.split(self.vae_chunk):
            with self.precision.context(self.device):
                decoded = self.vae.decode((part.to(self.device) / self.scale).to(self.vae.dtype)).sample
            if not torch.isfinite(decoded).all():
                raise JobError(
                    f"the VAE's output is NaN or infinite ({self.vae.dtype})",
                    where=self.name,
                    hint="repeat with --precision fp32: the decoder of Stable Diffusion's VAE overflows in fp16",
                )
            pixels = ((decoded.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu()
            inner = slice(self.padding, self.image_size - self.padding)
            pixels = pixels[:, :, inner, inner]
            done.append(_resize(pixels, size, channels, resample))
        return torch.cat(done)

    @torch.no_grad()
    def eps(self, latents: torch.Tensor, t: int, classes: torch.Tensor, guidance: float) -> torch.Tensor:
        """Predicted noise, float32 ``[n, c, h, w]``, at noise level ``t`` (0 … 999).

        Classifier-free guidance: uncond + guidance x (cond - uncond), both halves in one pass of 2n; one plain pass
        of n where ``guidance`` is 1.

        Raises:
            UsageError: guidance on a backbone that has no unconditional row.
            JobError: the prediction is not finite; names the first layer whose output is not.
        """
        return self.predict(latents, t, classes, guidance)[0]

    def predict(
        self,
        latents: torch.Tensor,
        t: int | torch.Tensor,
        classes: torch.Tensor,
        guidance: float,
        channels: int = 0,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As :meth:`eps`, differentiable in ``latents``, with what the network says of the variance.

        Args:
            t: noise level (0 … 999), or one an image, int64 ``[n]``.
            channels: latent channels that are guided, the first ones; 0: all. The original DiT guides 3 of 4
                (`models.py forward_with_cfg`) and takes the other from the conditional prediction.

        Returns:
            noise float32 ``[n, c, h, w]``; for a learned sigma the conditional prediction's second half, of that
            shape, which lies in -1 … 1 between the smallest and the largest variance of a step; else None.
        """
        if guidance != 1 and self.null_class is None:
            raise unguided(self.name, guidance)
        n, c = len(latents), latents.shape[1]
        inputs, labels = latents.to(self.device), classes.to(self.device)
        if guidance != 1:
            inputs = torch.cat([inputs, inputs])
            labels = torch.cat([labels, torch.full_like(labels, self.null_class)])
        if isinstance(t, int):
            levels = torch.full((len(inputs),), t, device=self.device, dtype=torch.long)
        else:
            levels = t.to(self.device).repeat(len(inputs) // n)
        with self.precision.context(self.device):
            output = self.dit(inputs.to(self.dit.dtype), timestep=levels, class_labels=labels).sample
        noise = output[:, :c].float()
        if not torch.isfinite(noise).all():
            raise self._not_finite(inputs, levels, labels)
        variance = output[:n, c:].float() if self.learned_sigma else None
        if guidance != 1:
            guided = noise[n:] + guidance * (noise[:n] - noise[n:])
            noise = torch.cat([guided[:, :channels], noise[:n, channels:]], dim=1) if channels else guided
        return noise, variance

    def _not_finite(self, inputs: torch.Tensor, levels: torch.Tensor, labels: torch.Tensor) -> JobError:
        """Run once more with hooks to name the first layer and class that are not finite."""
        first: list[tuple[str, list[int]]] = []

        def watch(name):
            def hook(module, args, output):
                if not first and torch.is_tensor(output) and not torch.isfinite(output).all():
                    rows = (~torch.isfinite(output)).flatten(1).any(dim=1) if len(output) == len(labels) else []
                    first.append((name, sorted({int(c) for c in labels[rows]}) if len(rows) else []))

            return hook

        handles = [m.register_forward_hook(watch(name)) for name, m in self.dit.named_modules() if name]
        try:
            with self.precision.context(self.device):
                self.dit(inputs.to(self.dit.dtype), timestep=levels, class_labels=labels)
        finally:
            for handle in handles:
                handle.remove()
        where, rows = first[0] if first else ("output", [])
        if not torch.isfinite(inputs).all():
            bad = (~torch.isfinite(inputs)).flatten(1).any(dim=1)
            where, rows = "input latents", sorted({int(c) for c in labels[bad]})
        return JobError(
            f"the backbone's noise prediction is NaN or infinite at noise level {int(levels[0])}",
            where=f"layer {where}, backbone classes {rows[:8]}",
            hint="try --precision fp32 (half precision overflows in some layers)",
        )


def pad(images: torch.Tensor, padding: int) -> torch.Tensor:
    """Repeat the edge of ``[n, C, s, s]`` by ``padding`` px on each side."""
    if not padding:
        return images
    return F.pad(images.float(), (padding,) * 4, mode="replicate").to(images.dtype)


def unguided(name: str, guidance: float) -> UsageError:
    """The error for guidance on a backbone without an unconditional row."""
    return UsageError(
        f"guidance {guidance:g} needs a backbone that was trained with label dropout; this one was not",
        where=name,
        allowed="guidance 1",
        hint="set the method's guidance to 1, or train a backbone with label_dropout above 0",
    )


def _resize(pixels: torch.Tensor, size: int, channels: int, resample: str) -> torch.Tensor:
    if pixels.shape[-2:] == (size, size) and pixels.shape[1] == channels:
        return pixels
    mode = "L" if channels == 1 else "RGB"
    out = torch.empty(len(pixels), channels, size, size, dtype=torch.uint8)
    for row, image in enumerate(pixels):
        array = image.permute(1, 2, 0).numpy()
        picture = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).convert(mode)
        if picture.size != (size, size):
            picture = picture.resize((size, size), Image.Resampling[resample.upper()])
        out[row] = torch.from_numpy(np.array(picture)).view(size, size, channels).permute(2, 0, 1)
    return out


def load_backbone(folder: str | Path, dataset: Dataset, device: str, precision: Precision, key: str) -> Backbone:
    """Load a backbone folder (or hub id that is already in the local cache) for ``dataset``.

    Raises:
        MissingError: no such folder, or a hub id that is not cached; says how to get it.
        UsageError: the folder is not a backbone, or its classes are not the dataset's.
    """
    path = folders.resolve(folder)
    folders.check(path)
    about = folders.about(path)
    dtype = getattr(torch, precision.dtype)
    vae, dit, scheduler = load_parts(path, dtype)
    vae, dit = vae.to(device).eval().requires_grad_(False), dit.to(device).eval().requires_grad_(False)
    fix_label_dropout(dit)
    table = label_tables(dit)[0].embedding_table.num_embeddings
    num_classes = int(dit.config.num_embeds_ada_norm)
    unconditional = table > num_classes and about.get("label_dropout", 1) > 0
    channels, side = int(dit.config.in_channels), int(dit.config.sample_size)
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    out_channels = int(dit.config.out_channels or channels)
    if int(vae.config.latent_channels) != channels or out_channels not in (channels, 2 * channels):
        raise UsageError(
            f"the VAE has {vae.config.latent_channels} latent channels, the transformer takes {channels} and gives "
            f"{out_channels}",
            where=str(path),
            allowed="equal latent channels; the output may have twice as many (learned sigma)",
        )
    if precision.compile:
        compile_blocks(dit)
    return Backbone(
        vae=vae,
        dit=dit,
        scheduler=scheduler,
        device=device,
        precision=precision,
        image_size=side * factor,
        latent_shape=(channels, side, side),
        num_classes=num_classes,
        null_class=num_classes if unconditional else None,
        learned_sigma=out_channels == 2 * channels,
        class_map=class_map(dataset, num_classes, about, str(folder)),
        key=key,
        vae_key=about.get("vae_key") or folders.digest(path / "vae"),
        padding=int(about.get("padding", 0)),
        name=str(folder),
        report=folders.report(path),
    )


def load_parts(path: Path, dtype: torch.dtype) -> tuple[AutoencoderKL, DiTTransformer2DModel, DDIMScheduler]:
    """The three parts of a checked folder, on the CPU."""
    from diffusers import AutoencoderKL, DDIMScheduler, DiTTransformer2DModel

    quiet = logging.getLogger("diffusers")  # it warns about harmless extra fields of the old DiT configuration
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        vae, dit = (
            kind.from_pretrained(
                path / part,
                torch_dtype=dtype,
                low_cpu_mem_usage=False,
                use_safetensors=folders.has_safetensors(path / part),
            )
            for kind, part in ((AutoencoderKL, "vae"), (DiTTransformer2DModel, "transformer"))
        )
        scheduler = DDIMScheduler.from_pretrained(path / "scheduler")
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise folders.not_a_backbone(path, f"{type(error).__name__}: {str(error).splitlines()[0]}") from error
    finally:
        quiet.setLevel(level)
    if scheduler.config.prediction_type != "epsilon":
        raise folders.not_a_backbone(path, f"prediction type {scheduler.config.prediction_type!r}, not 'epsilon'")
    return vae, dit, scheduler


def class_map(dataset: Dataset, num_classes: int, about: dict, name: str) -> torch.Tensor:
    """Dataset class to backbone class, int64: the dataset's own mapping (subsets of ImageNet), or one to one.

    Raises:
        UsageError: the counts differ, or the backbone was trained on other classes.
    """
    if dataset.whole is not None:
        return class_map(dataset.whole, num_classes, about, name)[torch.tensor(dataset.chosen)]
    wanted = len(dataset.classes)
    hint = f"ddbench backbone finetune --from {name} --dataset {dataset.name}"
    trained = about.get("classes")
    if trained is not None:
        if list(trained) == list(dataset.classes):
            return torch.arange(wanted)
        raise UsageError(
            f"the backbone was trained on {about.get('dataset', 'other data')} ({len(trained)} classes: "
            f"{', '.join(trained[:3])}, …), not on {dataset.name}'s {wanted} classes",
            where=name,
            hint=hint,
        )
    if dataset.backbone_classes is not None and max(dataset.backbone_classes) < num_classes:
        return torch.tensor(dataset.backbone_classes, dtype=torch.long)
    if wanted != num_classes:
        raise UsageError(
            f"the backbone has {num_classes} classes, {dataset.name} has {wanted}",
            where=name,
            allowed=f"a backbone of {wanted} classes, or a dataset that maps its classes to the backbone's",
            hint=hint,
        )
    return torch.arange(wanted)
