"""D4M: k-means prototypes in latent space, turned into images by latent img2img.

Source: "D4M: Dataset Distillation via Disentangled Diffusion Model" (arXiv 2407.15138), repository suduo94/D4M,
``distillation/gen_prototype.py`` and ``gen_syn_image.py`` with their ``.sh`` files. Defaults are those of the scripts:
``km_expand`` 1, strength 0.7, guidance 8 (on the DiT the guidance chosen for it, where one was), and diffusers' 50
steps; the negative prompt is theirs.

Two backbones: Stable Diffusion (``model`` = a folder or a hub id), which the paper uses, and the harness's
class-conditional DiT (``model`` empty, the default), so that D4M stands beside D3HR on the same backbone.

Deviations: images are resized with the shorter side and centre-cropped (theirs: squashed to a square); the order in
which latents reach k-means and its seed come from (seed, class) (theirs: a shuffled loader and 0); a remainder batch is
fed for every class; on the DiT, sampling is DDIM (Stable Diffusion keeps its own scheduler, PNDM for v1.5); float32
instead of float16 unless ``--precision`` says otherwise. Soft labels (their "training-time matching") are the
protocol's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from baselines.d4m import generators
from baselines.d4m.prototypes import prototypes
from baselines.random_real import too_few
from benchmark.api import Method, Needs, Stage, Task, Unit, Work, derive_seed, param

if TYPE_CHECKING:
    from benchmark.api import Dataset


@dataclass(frozen=True)
class D4MParams:
    """D4M's scripts."""

    model: str = param("", "Stable Diffusion: a folder or a hub id; empty: the harness's DiT", "arXiv 2407.15138, 4.1")
    expand: int = param(1, "k-means batch, in multiples of IPC", "gen_prototype_imgnt.sh --km_expand 1", low=1)
    strength: float = param(
        0.7, "img2img strength", "gen_syn_image_imgnt.sh --strength 0.7", low=0.0, high=1.0, tune=(0.3, 0.5, 0.7)
    )
    guidance: float = param(
        8.0,
        "classifier-free guidance",
        "gen_syn_image_imgnt.sh --guidance_scale 8",
        low=0.0,
        tune=(1.0, 1.5, 2.0, 4.0, 8.0),
        backbone="guidance",
    )
    steps: int = param(50, "scheduler steps, before strength", "diffusers' default, unchanged there", low=1, high=1000)


class D4M(Method):
    """Prototypes through img2img.

    k-means over the latents of a class gives as many prototypes as images are wanted; each is noised in part and
    denoised again as its class. Needs the backbone (or Stable Diffusion: ``model``) and the training images; costs
    their encoding and a k-means, once, and 35 guided passes of the DiT an image. Defaults are those of the
    authors' scripts; the guidance is the backbone's, where one was chosen.
    """

    Params = D4MParams
    quick = {"steps": 4}

    def __init__(self, params: Any) -> None:
        super().__init__(params)
        self._generator: generators.Generator | None = None

    def needs(self) -> Needs:
        return Needs(backbone=not self.params.model, batch=generators.CHUNK)  # Stable Diffusion is its own backbone

    @classmethod
    def on_backbone(cls, given: dict[str, Any]) -> bool:
        return not given.get("model")

    def why_not(self, dataset: Dataset, ipc: int) -> str:
        return too_few(dataset, ipc)

    def inputs(self, dataset: Dataset) -> dict[str, str]:
        """The digest of the Stable Diffusion folder; a plan asks for it, so a missing one is said before any work.

        Raises:
            MissingError: it, or the package transformers, is not on this machine; says how to get it.
        """
        if not self.params.model:
            return {}
        from benchmark.api import folder_digest as digest

        return {"model": digest(generators.pipeline_folder(self.params.model))}

    def generator(self, task: Task) -> generators.Generator:
        """The backbone, loaded on first use."""
        if self._generator is None:
            model = self.params.model
            self._generator = generators.StableDiffusion(model, task) if model else generators.DiTGenerator()
        return self._generator

    def stage(self, task: Task, class_index: int) -> Stage:
        """The stage of a class's prototypes."""
        model = self.inputs(task.dataset)
        expand = self.params.expand
        return task.stage("d4m.prototypes", 1, seeded=True, cls=class_index, ipc=task.ipc, expand=expand, **model)

    def stages(self, task: Task) -> list[Stage]:
        return [self.stage(task, c) for c in range(len(task.dataset.classes))]

    def work(self, images: int, classes: int, ipc: int) -> list[Work]:
        p, made = self.params, classes * ipc
        if p.model:
            return []  # Stable Diffusion's cost is not the DiT's
        steps = int(p.steps * p.strength)  # as the sampler counts them
        return [Work("encode", images, shared=True), Work("sample", made, steps, p.guidance), Work("decode", made)]

    def prototypes(self, task: Task, class_index: int) -> torch.Tensor:
        """The class's prototypes, float32 ``[ipc, c, h, w]``, from the store."""

        def make(folder: Path) -> None:
            latents = self.generator(task).latents(task, class_index)
            order = torch.randperm(len(latents), generator=task.generator(class_index, 0, "order"))
            seed = derive_seed(task.seed, task.method, class_index, "k-means") % 2**32
            found = prototypes(latents[order], task.ipc, self.params.expand * task.ipc, seed)
            save_file({"prototypes": found.contiguous()}, folder / "prototypes.safetensors")

        return load_file(task.artifact(self.stage(task, class_index), make) / "prototypes.safetensors")["prototypes"]

    def distill(self, task: Task, unit: Unit) -> torch.Tensor:
        p, ((label, _), *_) = self.params, unit.cells
        start = self.prototypes(task, label)[[i for _, i in unit.cells]]
        draws = [task.generator(c, i) for c, i in unit.cells]
        return self.generator(task).images(task, start, label, p.strength, p.guidance, p.steps, draws)
