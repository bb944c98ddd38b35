"""Minimax: a DiT fine-tuned to be representative and diverse, then sampled.

Source: "Efficient Dataset Distillation via Minimax Diffusion" (arXiv 2311.15529), repository vimar-gu/MinimaxDiffusion,
``train_dit.py``, ``sample.py``, ``run.sh``. Trained are biases, DiffFit's scales and the label table
(:mod:`baselines.minimax.adapter`) by AdamW 1e-3 without decay in batches of 8, with the diffusion loss plus 0.002 ×
representativeness plus 0.008 × diversity against memories of 64 latents a class
(:mod:`baselines.minimax.criteria`); ``run.sh`` samples from the averaged weights (0.9999) after 12,000 steps.

Classes are fine-tuned in phases of ``phase`` (theirs: ``--nclass 10 --phase p``), each from the original backbone, so
memory stays bounded whatever the number of classes; a phase is also the unit of work. A fine-tuning serves every seed
and IPC (theirs too: one run, then ``--num-samples 100``): the spread over seeds is that of sampling.

Deviations: sampling is the harness's DDIM (50 steps, guidance on all latent channels, of the
backbone's strength where one was chosen, else 4.0), so that diffusion methods
differ in nothing else (theirs: ancestral sampling in 50 steps, guidance on the first 3 of 4 channels); latents are the
store's, so no random mirroring, and one posterior sample an image; images are kept at the dataset's size (theirs: the
decoder's 256 px); on the small datasets fewer steps with a shorter average (see :meth:`Minimax.defaults`).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from baselines.dit import sample_cells
from benchmark.api import Method, Needs, Stage, Task, Unit, Work, param

if TYPE_CHECKING:
    from benchmark.api import Backbone


@dataclass(frozen=True)
class MinimaxParams:
    """Fine-tuning (``train_dit.py``) and sampling (``sample.py``)."""

    steps: int = param(12000, "fine-tuning steps a phase", "run.sh samples checkpoint 0012000", low=1)
    batch: int = param(8, "images a step", "run.sh --global-batch-size 8", low=1)
    lr: float = param(1e-3, "AdamW's rate, constant, no decay", "train_dit.py", low=0.0)
    representativeness: float = param(
        0.002, "weight of representativeness", "train_dit.py --lambda-pos", low=0.0, tune=(0.002, 0.02)
    )
    diversity: float = param(0.008, "weight of diversity", "train_dit.py --lambda-neg", low=0.0, tune=(0.002, 0.008))
    memory: int = param(64, "latents remembered a class, of each kind", "train_dit.py --memory-size", low=1)
    ema: float = param(0.9999, "decay of the averaged weights that are sampled", "train_dit.py update_ema", low=0.0)
    label_dropout: float = param(0.1, "share of labels dropped", "models.py class_dropout_prob", low=0.0, high=1.0)
    phase: int = param(10, "classes a phase", "train_dit.py --nclass 10", low=1)
    sampling_steps: int = param(50, "DDIM steps", "sample.py --num-sampling-steps 50", low=1, high=1000)
    guidance: float = param(
        4.0,
        "classifier-free guidance",
        "sample.py --cfg-scale 4.0",
        low=0.0,
        tune=(1.0, 1.5, 2.0, 4.0),
        backbone="guidance",
    )


class Minimax(Method):
    """Samples of a DiT fine-tuned with the minimax criteria.

    A few weights of the DiT learn from real latents, with terms that draw its samples to them and away from each
    other; then it is sampled. Needs the backbone and the training images; costs thousands of training steps, once
    for every seed and IPC, then 50 guided passes of the DiT an image. Defaults are those of the authors'
    ``run.sh``, with fewer steps on small datasets; the guidance is the backbone's, where one was chosen.
    """

    Params = MinimaxParams
    trains = True
    quick = {"steps": 5, "phase": 2, "memory": 3, "sampling_steps": 3}

    def needs(self) -> Needs:
        return Needs(backbone=True, batch=self.params.batch, batch_parameter="batch", training=True)

    def __init__(self, params: Any) -> None:
        super().__init__(params)
        self._tuned: tuple[str, Backbone] | None = None

    @classmethod
    def defaults(cls, dataset: str) -> dict[str, Any]:
        """About 8 passes over digits' 1,347 images (``run.sh --epochs 8``), elsewhere what a CPU does in minutes."""
        steps = {"digits": 1500, "fashionmnist": 3000, "cifar10": 3000}.get(dataset.partition("@")[0])
        return {"steps": steps, "ema": 0.999} if steps else {}

    def units(self, task: Task) -> list[Unit]:
        return [
            Unit(f"phase {p}", tuple((c, i) for c in classes for i in range(task.ipc)))
            for p, classes in enumerate(self.phases(task))
        ]

    def phases(self, task: Task) -> list[range]:
        """The classes of each phase."""
        labels = range(len(task.dataset.classes))
        return [labels[i : i + self.params.phase] for i in range(0, len(labels), self.params.phase)]

    def stage(self, task: Task, classes: range) -> Stage:
        """The stage of a phase's fine-tuning."""
        p = self.params
        names = ("steps", "batch", "lr", "representativeness", "diversity", "memory", "ema", "label_dropout")
        settings = {name: getattr(p, name) for name in names}
        return task.stage("minimax.tuning", 1, first=classes[0], last=classes[-1], **settings)

    def work(self, images: int, classes: int, ipc: int) -> list[Work]:
        p, made, phases = self.params, classes * ipc, -(-classes // self.params.phase)
        tuned = Work("tune", phases * p.batch, p.steps, shared=True)
        sampled = Work("sample", made, p.sampling_steps, p.guidance)
        return [Work("encode", images, shared=True), tuned, sampled, Work("decode", made)]

    def stages(self, task: Task) -> list[Stage]:
        return [self.stage(task, classes) for classes in self.phases(task)]

    def tuning(self, task: Task, classes: range) -> Any:
        """The fine-tuning of a phase at its start."""
        from baselines.minimax.tuning import Settings, Tuning
        from benchmark.api import class_latents

        p = self.params
        parts = [torch.cat([x.float().cpu() for x in class_latents(task, c, sample=True)]) for c in classes]
        labels = torch.cat([torch.full((len(x),), c) for c, x in zip(classes, parts, strict=True)])
        settings = Settings(p.batch, p.lr, p.representativeness, p.diversity, p.memory, p.ema, p.label_dropout)
        return Tuning(task.backbone, torch.cat(parts), labels, settings, "minimax", classes[0])

    def tuned(self, task: Task, classes: range) -> Backbone:
        """The backbone fine-tuned for ``classes``, from the store."""
        from baselines.minimax.adapter import fold
        from benchmark.api import compile_blocks

        stage = self.stage(task, classes)

        def make(folder: Path) -> None:
            from benchmark.api import train

            tuning = self.tuning(task, classes)
            label = f"minimax classes {classes[0]}-{classes[-1]} tuning"
            train(task.store, stage, label, self.params.steps, tuning, tuning.step)
            save_file({k: v.cpu().contiguous() for k, v in tuning.average.items()}, folder / "tuned.safetensors")

        if self._tuned is None or self._tuned[0] != stage.key:
            values = load_file(task.artifact(stage, make) / "tuned.safetensors", device=task.device)
            backbone = copy.copy(task.backbone)
            backbone.dit = fold(task.backbone.dit, values)
            if task.precision.compile:
                compile_blocks(backbone.dit)  # copies are not
            self._tuned = (stage.key, backbone)
        return self._tuned[1]

    def distill(self, task: Task, unit: Unit) -> torch.Tensor:
        labels = [c for c, _ in unit.cells]
        backbone = self.tuned(task, range(labels[0], labels[-1] + 1))
        return sample_cells(task, backbone, unit, self.params.sampling_steps, self.params.guidance)
