"""The two backbones of D4M: the class-conditional DiT of the harness, and Stable Diffusion with class names as prompts.

Both turn a class into latents and prototypes into images: img2img starts at the noise level that leaves
``int(steps * strength)`` of ``steps`` steps, and denoises with guidance.
"""

from __future__ import annotations

import json
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
LIBRARIES = ("diffusers", "transformers", "stable_diffusion")  # that a pipeline's parts may come from


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
        MissingError: it is not on this machine. DataError: it names code of its own, or its weights are pickles.
    """
    reason = missing_pipeline(model)
    if reason:
        raise MissingError(reason, where=f"--set model={model}", allowed="a folder that save_pretrained wrote")
    folder = Path(model)
    if not (folder / "model_index.json").is_file():
        from huggingface_hub import try_to_load_from_cache

        folder = Path(try_to_load_from_cache(model, "model_index.json")).parent
    if fault := untrusted(folder):
        raise DataError(
            f"the Stable Diffusion pipeline {fault}",
            where=str(folder),
            allowed="parts of diffusers and transformers, with weights as safetensors",
            hint="get one that was saved with save_pretrained(..., safe_serialization=True)",
        )
    return folder


def untrusted(folder: Path) -> str:
    """What in a pipeline's folder would run code that came with it; empty if nothing would.

    diffusers imports whatever modules ``model_index.json`` names, and reads pickles where there are no safetensors.
    """
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        parts = {name: part for name, part in index.items() if not name.startswith("_") and isinstance(part, list)}
        libraries = {name: part[0] for name, part in parts.items() if part[0] is not None}
    except (ValueError, OSError, AttributeError, IndexError, RecursionError) as error:
        return f"has a model_index.json that cannot be read: {error}"
    for name, library in libraries.items():
        if library not in LIBRARIES:
            return f"takes its {name} from {library!r}"
    for name in ("unet", "vae", "text_encoder"):
        if not any((folder / name).glob("*.safetensors")):
            return f"has no safetensors in {name}/"
    return ""


class StableDiffusion:
    """``StableDiffusionImg2ImgPipeline`` from a local folder or a hub id, class names as prompts."""

    def __init__(self, model: str, task: Task) -> None:
        from diffusers import StableDiffusionImg2ImgPipeline

        folder = pipeline_folder(model)
        try:
            self.pipe = StableDiffusionImg2ImgPipeline.from_pretrained(
                folder,
                safety_checker=None,
                requires_safety_checker=False,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
            ).to(task.device)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - the readers of weights and settings raise anything for damaged ones
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
