"""The two backbones of D4M: the class-conditional DiT of the harness, and Stable Diffusion with class names as prompts.

Both turn a class into latents and prototypes into images: img2img starts at the noise level that leaves
``int(steps * strength)`` of ``steps`` steps, and denoises with guidance.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from diffusers import DDIMScheduler
from PIL import Image

from benchmark.api import DataError, MissingError, Task

if TYPE_CHECKING:
    from benchmark.api import Backbone

NEGATIVE = "cartoon, anime, painting"  # D4M gen_syn_image.py
CHUNK = 10  # images a batch


class Generator(Protocol):
    """What D4M needs of a backbone."""

    def latents(self, task: Task, class_index: int) -> torch.Tensor:
        """Scaled latents (posterior samples) of the class's training images: float32 ``[n, c, h, w]``."""
        ...

    def images(
        self,
        task: Task,
        start: torch.Tensor,
        class_index: int,
        strength: float,
        guidance: float,
        steps: int,
        generators: list[torch.Generator],
    ) -> torch.Tensor:
        """Images of the latents ``start`` ``[n, c, h, w]``: uint8 ``[n, C, image_size, image_size]``."""
        ...


def img2img(
    backbone: Backbone,
    start: torch.Tensor,
    classes: torch.Tensor,
    strength: float,
    guidance: float,
    steps: int,
    generators: list[torch.Generator],
) -> torch.Tensor:
    """Noise ``start`` and denoise it by DDIM, as diffusers' img2img pipelines do.

    Args:
        start: scaled latents ``[n, c, h, w]``; classes: backbone classes ``[n]``; one CPU generator an image.

    Returns:
        latents ``[n, c, h, w]``.
    """
    scheduler = DDIMScheduler.from_config(backbone.scheduler.config)
    scheduler.set_timesteps(steps)
    times = scheduler.timesteps[steps - min(int(steps * strength), steps) :]
    x, classes = start.to(backbone.device), classes.to(backbone.device)
    if len(times):
        noise = torch.stack([torch.randn(start.shape[1:], generator=g) for g in generators]).to(x)
        x = scheduler.add_noise(x, noise, times[:1].repeat(len(x)))
    for t in times:
        x = scheduler.step(backbone.eps(x, int(t), classes, guidance), int(t), x).prev_sample
    return x


class DiTGenerator:
    """The DiT that the other diffusion methods use too: the like-for-like comparison."""

    def latents(self, task: Task, class_index: int) -> torch.Tensor:
        from benchmark.api import class_latents

        return torch.cat([part.float().cpu() for part in class_latents(task, class_index, sample=True)])

    def images(self, task, start, class_index, strength, guidance, steps, generators) -> torch.Tensor:
        backbone, images = task.backbone, []
        for i in range(0, len(start), CHUNK):
            part = start[i : i + CHUNK]
            classes = backbone.class_map[torch.full((len(part),), class_index)]
            latents = img2img(backbone, part, classes, strength, guidance, steps, generators[i : i + CHUNK])
            images.append(backbone.decode(latents, task.dataset.image_size, task.dataset.channels).cpu())
        return torch.cat(images)


def missing_pipeline(model: str) -> str:
    """Why the Stable Diffusion pipeline ``model`` (a folder or a hub id) cannot be used here; empty if it can."""
    import importlib.util

    if importlib.util.find_spec("transformers") is None:
        return "Stable Diffusion's text encoder needs the package transformers: pip install 'ddbench[sd]'"
    if (Path(model) / "model_index.json").is_file():
        return ""
    if Path(model).exists():
        return f"{model} holds no model_index.json: it is no pipeline in diffusers' format"
    import re

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        return f"{model} is neither a folder nor a hub id"
    from huggingface_hub import try_to_load_from_cache

    if isinstance(try_to_load_from_cache(model, "model_index.json"), str):
        return ""
    return f"{model} is neither a folder nor in the local Hugging Face cache: get it with `hf download {model}`"


def pipeline_folder(model: str) -> Path:
    """The local folder of a pipeline given as a folder or a cached hub id.

    Raises:
        MissingError: it is not on this machine.
    """
    reason = missing_pipeline(model)
    if reason:
        raise MissingError(reason, where=f"--set model={model}", allowed="a folder that save_pretrained wrote")
    if (Path(model) / "model_index.json").is_file():
        return Path(model)
    from huggingface_hub import try_to_load_from_cache

    return Path(try_to_load_from_cache(model, "model_index.json")).parent


class StableDiffusion:
    """``StableDiffusionImg2ImgPipeline`` from a local folder or a hub id, class names as prompts."""

    def __init__(self, model: str, task: Task) -> None:
        from diffusers import StableDiffusionImg2ImgPipeline

        folder = pipeline_folder(model)
        try:
            self.pipe = StableDiffusionImg2ImgPipeline.from_pretrained(
                folder, safety_checker=None, requires_safety_checker=False, local_files_only=True
            ).to(task.device)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise DataError(f"cannot load a Stable Diffusion pipeline: {error}", where=str(folder)) from error
        self.pipe.set_progress_bar_config(disable=True)
        self.size = self.pipe.unet.config.sample_size * self.pipe.vae_scale_factor  # 512 for v1.5, as D4M's --size

    @torch.no_grad()
    def latents(self, task: Task, class_index: int) -> torch.Tensor:
        rows, vae, parts = task.train.by_class[class_index], self.pipe.vae, []
        for start in range(0, len(rows), CHUNK):
            images = task.train.images(rows[start : start + CHUNK], size=self.size, channels=3)
            generator = task.generator(class_index, start, "posterior")
            with task.precision.context(task.device):
                posterior = vae.encode(images.to(task.device).float() / 127.5 - 1).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=generator).to(posterior.mean)
            parts.append(((posterior.mean + posterior.std * noise) * vae.config.scaling_factor).float().cpu())
        return torch.cat(parts)

    @torch.no_grad()
    def images(self, task, start, class_index, strength, guidance, steps, generators) -> torch.Tensor:
        size, mode = task.dataset.image_size, "L" if task.dataset.channels == 1 else "RGB"
        out = []
        for row, generator in zip(start, generators, strict=True):  # one at a time, as theirs: any IPC, equal images
            with task.precision.context(task.device):
                (image,) = self.pipe(
                    prompt=task.dataset.classes[class_index],
                    negative_prompt=NEGATIVE,
                    image=row[None].to(task.device),
                    strength=strength,
                    guidance_scale=guidance,
                    num_inference_steps=steps,
                    generator=generator,
                ).images
            small = image.convert(mode).resize((size, size), Image.Resampling.BICUBIC)
            out.append(torch.from_numpy(np.array(small)).view(size, size, -1).permute(2, 0, 1))
        return torch.stack(out)
