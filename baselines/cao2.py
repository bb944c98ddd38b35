"""CaO2: more samples than wanted, those that a classifier is sure of, and a little optimisation of their latents.

Source: "CaO2: Rectifying Inconsistencies in Diffusion-Based Dataset Distillation" (Wang et al., ICCV 2025, arXiv
2506.22637), repository hatchetProject/CaO2, ``sample_imagenet.py``, ``sample_woof.py``, ``sample_nette.py``,
``sample_imagenet100.py``. Two parts, each of which can be switched off:

1. Selection: ``candidates`` x IPC samples a class; those that the teacher takes for their class come first, ordered by
   its confidence (largest probability), then the others in the same order; the first IPC stay. ``select=none``: off.
2. Refinement, image by image: Adam on the latent, each step at a random low noise level with one noise that is fixed
   for the image, loss ``mean (noise - eps)^2 + 10 max |noise - eps|``. ``refine_steps=0``: off.

Defaults are those of ``sample_imagenet.py``; ImageNette has half the candidates and no refinement (its loop is
``range(0)``), ImageNet-100 half the candidates, the least confident first, and levels up to 5.

What the released code does and the paper does not say has a name here: the refinement's condition is the null class
(``condition``); its noise has the level of step t of the 50, of which the network is told the number t itself, 1 … 11,
instead of that level (``told``); the teacher sees pixels in -1 … 1 without its normalisation (``judge``: ours is
normalised unless asked). Its ``model.train()`` changes nothing: only the label dropout is active, and drops to the null
class that is already given.

Deviations: the teacher is the run's (theirs: torchvision's ResNet-18) and judges 8-bit images of the dataset's size;
noise is drawn for each image (theirs: from a bank of 1024); classifier-free guidance acts on all latent channels
(theirs: on the first 3 of 4; ``channels=3``); images are kept at the dataset's size (theirs: the decoder's 256 px).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baselines.dit import CHUNK, decoded
from benchmark.api import Method, Needs, Stage, Task, Unit, UsageError, Work, param

if TYPE_CHECKING:
    import torch

    from benchmark.api import Backbone, Teacher


@dataclass(frozen=True)
class CaO2Params:
    """Sampling, selection, refinement."""

    form: str = param(
        "ddpm", "ancestral sampling, or deterministic", "diffusion/__init__.py, p_sample_loop", choices=("ddpm", "ddim")
    )
    steps: int = param(50, "steps of the sampler", "sample_*.py --num-sampling-steps 50", low=2, high=1000)
    guidance: float = param(
        2.7,
        "classifier-free guidance",
        "sample_*.py --cfg-scale 2.7",
        low=0.0,
        tune=(1.0, 1.5, 2.0, 2.7, 4.0),
        backbone="guidance",
    )
    channels: int = param(
        0, "latent channels that classifier-free guidance acts on; 0: all. The original DiT: 3", "own", low=0
    )
    select: str = param(
        "confident",
        "which candidates the teacher recognises come first; none: no selection, no teacher",
        "sample_imagenet.py (confident); sample_imagenet100.py (unsure)",
        choices=("confident", "unsure", "none"),
        tune=("confident", "unsure"),
    )
    candidates: int = param(4, "samples a kept one", "sample_imagenet.py, sample_woof.py: 4", low=1, tune=(2, 4, 8))
    judge: str = param(
        "normalised",
        "what the teacher sees: images normalised as it was trained, or (released) pixels in -1 … 1",
        "own; sample_*.py (released)",
        choices=("normalised", "released"),
    )
    refine_steps: int = param(100, "steps of Adam on a latent; 0: none", "sample_*.py range(100)", low=0, tune=(0, 100))
    refine_lr: float = param(6e-4, "Adam's rate", "sample_*.py lr=6e-4", low=0.0)
    refine_levels: int = param(
        11, "highest step of the sampler that noise is taken of", "sample_*.py steps // 4", low=1
    )
    linf: float = param(10.0, "weight of the largest error", "sample_*.py lambda_linf = 10.0", low=0.0)
    condition: str = param(
        "null",
        "class that the network is told in the refinement: none, or the image's (the paper)",
        "sample_*.py (null)",
        choices=("null", "class"),
    )
    told: str = param(
        "step",
        "noise level that the network is told: the step's number as in the released code, or the level of the noise",
        "sample_*.py q_sample(…, batch_ts), model(…, batch_ts)",
        choices=("step", "level"),
    )

    def __post_init__(self) -> None:
        if self.refine_steps and self.refine_levels >= self.steps:
            raise UsageError(
                f"refine_levels = {self.refine_levels} is beyond the sampler's {self.steps} steps",
                where="--set refine_levels",
                allowed=f"1 to {self.steps - 1}",
            )


DATASETS = {
    "imagenette": {"candidates": 2, "refine_steps": 0},
    "imagenet100": {"candidates": 2, "select": "unsure", "refine_levels": 5},
}


def ranked(logits: torch.Tensor, label: int, order: str) -> torch.Tensor:
    """Positions of candidates, best first: those recognised as ``label``, then the others, each by confidence.

    Args:
        logits: ``[n, classes]``.
        order: ``confident`` or ``unsure``: which confidence comes first.

    Returns:
        int64 ``[n]`` on the CPU.
    """
    import torch

    confidence, seen = logits.float().softmax(1).max(1)
    confidence, right = confidence.cpu(), (seen == label).cpu()
    by_confidence = torch.argsort(confidence, descending=order == "confident", stable=True)
    return torch.cat([by_confidence[right[by_confidence]], by_confidence[~right[by_confidence]]])


def judged(teacher: Teacher, images: torch.Tensor, judge: str) -> torch.Tensor:
    """The teacher's logits ``[n, classes]`` of uint8 images."""
    import torch

    if judge == "normalised":
        return teacher.logits(images)
    signed = (part.to(teacher.device).float() / 127.5 - 1 for part in images.split(500))
    return torch.cat([teacher.logits_of(part, teacher.mean, teacher.std).float() for part in signed])


def refinement_loss(noise: torch.Tensor, predicted: torch.Tensor, linf: float) -> torch.Tensor:
    """``[n]``: mean squared error plus ``linf`` x the largest error of each image ``[n, c, h, w]``."""
    error = (noise - predicted).flatten(1)
    return error.square().mean(1) + linf * error.abs().amax(1)


def refine(
    backbone: Backbone,
    latents: torch.Tensor,
    classes: torch.Tensor,
    noise: torch.Tensor,
    drawn: torch.Tensor,
    levels: list[int],
    params: CaO2Params,
) -> torch.Tensor:
    """Latents ``[n, c, h, w]`` after the refinement; each image depends on its own row alone.

    Args:
        classes: what the network is told, int64 ``[n]``.
        noise: the images' fixed noise ``[n, c, h, w]``.
        drawn: the sampler's step of each refinement step and image, counted from clean: int64 ``[refine_steps, n]``.
        levels: noise level of each of the sampler's steps, ascending.
    """
    import torch

    device = backbone.device
    table = torch.tensor(levels, device=device)
    power = backbone.scheduler.alphas_cumprod.to(device, torch.float32)[table]
    drawn, noise = drawn.to(device), noise.to(device)
    told = drawn if params.told == "step" else table[drawn]
    with torch.enable_grad():
        x = latents.detach().to(device).clone().requires_grad_()
        adam = torch.optim.Adam([x], lr=params.refine_lr)
        for step in range(len(drawn)):
            share = power[drawn[step]].view(-1, 1, 1, 1)
            noised = share.sqrt() * x + (1 - share).sqrt() * noise
            predicted, _ = backbone.predict(noised, told[step], classes, 1.0)
            (x.grad,) = torch.autograd.grad(refinement_loss(noise, predicted, params.linf).sum(), [x])
            adam.step()
    return x.detach()


class CaO2(Method):
    """Of several samples those stay that a classifier is sure of, and their latents are moved to suit the backbone.

    It needs the backbone and a classifier (not with select=none), no training images. A set costs
    ``candidates`` + 2 times plain sampling, the 2 for the refinement (digits, IPC 10: 78 CPU seconds).
    Defaults are those of the released scripts; the guidance is the backbone's.
    """

    Params = CaO2Params
    trains = True
    quick = {"steps": 4, "candidates": 2, "refine_steps": 2, "refine_levels": 2, "refine_lr": 0.05}

    def needs(self) -> Needs:
        return Needs(backbone=True, teacher=self.params.select != "none")

    @classmethod
    def defaults(cls, dataset: str) -> dict[str, Any]:
        """The authors' script of the dataset."""
        return dict(DATASETS.get(dataset.partition("@")[0], {}))

    @property
    def pool(self) -> int:
        """Samples made for one that is kept."""
        return self.params.candidates if self.params.select != "none" else 1

    def stage(self, task: Task, class_index: int) -> Stage:
        """The stage of a class's selected latents."""
        p = self.params
        settings = {name: getattr(p, name) for name in ("form", "steps", "guidance", "channels", "select")}
        settings |= {"pool": self.pool, "judge": p.judge} if p.select != "none" else {}
        return task.stage("cao2.selected", 1, seeded=True, chunk=CHUNK, cls=class_index, ipc=task.ipc, **settings)

    def stages(self, task: Task) -> list[Stage]:
        return [self.stage(task, c) for c in range(len(task.dataset.classes))]

    def work(self, images: int, classes: int, ipc: int) -> list[Work]:
        p, kept = self.params, classes * ipc
        made = kept * self.pool
        work = [Work("sample", made, p.steps, p.guidance), Work("decode", made + kept if p.select != "none" else kept)]
        return work + ([Work("refine", kept, p.refine_steps)] if p.refine_steps else [])

    def selected(self, task: Task, class_index: int) -> torch.Tensor:
        """The class's latents after selection, float32 ``[ipc, c, h, w]``, from the store."""
        import torch
        from safetensors.torch import load_file, save_file

        from benchmark.api import sample

        p, backbone, made = self.params, task.backbone, task.ipc * self.pool

        def make(folder: Path) -> None:
            draws = [task.generator(class_index, i) for i in range(made)]
            classes = backbone.class_map[torch.full((made,), class_index)]
            latents = sample(backbone, classes, p.steps, p.guidance, draws, CHUNK, form=p.form, channels=p.channels)
            if p.select != "none":
                logits = judged(task.teacher, decoded(task, backbone, latents), p.judge)
                latents = latents[ranked(logits, class_index, p.select)[: task.ipc].to(latents.device)]
            save_file({"latents": latents.cpu().contiguous()}, folder / "latents.safetensors")

        return load_file(task.artifact(self.stage(task, class_index), make) / "latents.safetensors")["latents"]

    def distill(self, task: Task, unit: Unit) -> torch.Tensor:
        import torch

        from benchmark.api import sampling_levels

        p, backbone, ((label, _), *_) = self.params, task.backbone, unit.cells
        latents = self.selected(task, label)[[i for _, i in unit.cells]].to(backbone.device)
        if p.refine_steps:
            told = backbone.class_map[torch.full((len(latents),), label)]
            if p.condition == "null":
                if backbone.null_class is None:
                    raise UsageError(
                        "the refinement has the null class as its condition, and this backbone has none",
                        where=backbone.name,
                        hint="--set condition=class, or a backbone that was trained with label_dropout above 0",
                    )
                told = torch.full_like(told, backbone.null_class)
            noise = torch.stack(
                [
                    torch.randn(x.shape, generator=task.generator(*c, "noise"))
                    for x, c in zip(latents, unit.cells, strict=True)
                ]
            )
            shape = (p.refine_steps,)
            drawn = torch.stack(
                [
                    torch.randint(1, p.refine_levels + 1, shape, generator=task.generator(*c, "levels"))
                    for c in unit.cells
                ],
                dim=1,
            )
            levels = sampling_levels(backbone.scheduler, p.steps, p.form)[::-1]
            parts = [slice(i, i + CHUNK) for i in range(0, len(latents), CHUNK)]
            latents = torch.cat(
                [refine(backbone, latents[s], told[s], noise[s], drawn[:, s], levels, p) for s in parts]
            )
        return decoded(task, backbone, latents)
