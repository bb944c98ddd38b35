"""MGD3: sampling of the backbone with a pull towards the modes of each class.

Source: "MGD3: Mode-Guided Dataset Distillation using Diffusion Models" (Chan-Santiago et al., ICML 2025, arXiv
2505.18963). The authors' repository could not be had; the code was read in two forks of it that agree
(AyushRoy2001/ManifoldGD ``sample_mode_guidance.py``; wenqi-cai297/earlyfusion-for-dd
``Inference/diffusion/gaussian_diffusion.py``), the DDIM form in the paper (Algorithm 1).

1. Modes: the IPC centres of k-means over the latents of a class's training images (the means of the VAE's posterior).
2. Image k is sampled with a pull towards mode k: while the step's index (49 … 0) is above ``stop``, the mean of the
   step moves by ``- scale * sigma * (x0 - m_k)``; in the DDIM form the noise becomes
   ``eps - scale * sqrt(1 - alpha_bar) * (m_k - x0)``. Below ``stop`` sampling is plain.

Defaults: 50 ancestral steps, scale 0.1, stop 25: the forks' arguments. The sign is the
code's, which draws the sample to the mode; that of the paper's equation 6 pushes it away.

Deviations: k-means starts from (seed, class), so that seeds are independent sets (theirs: ``random_state=0``, one set
of modes for three samplings); latents are the store's, so no random mirroring; the classifier-free guidance acts on all
latent channels (theirs: on the first 3 of DiT's 4; ``channels=3`` is that); a backbone that has learned no variance
takes the posterior's; images are kept at the dataset's size (theirs: the decoder's 256 px).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from baselines.dit import sample_cells
from baselines.random_real import too_few
from benchmark.api import Method, Stage, Task, Unit, UsageError, Work, derive_seed, param

if TYPE_CHECKING:
    import torch

    from benchmark.api import Dataset, Guidance


@dataclass(frozen=True)
class MGD3Params:
    """Mode guidance."""

    form: str = param(
        "ddpm",
        "ancestral sampling, or the paper's deterministic form",
        "forks; paper Table 6",
        choices=("ddpm", "ddim"),
    )
    steps: int = param(50, "steps of the sampler", "forks --num-sampling-steps 50", low=2, high=1000)
    scale: float = param(
        0.1,
        "strength of the pull; 0 is plain sampling",
        "forks --mode_guidance_scale 0.1",
        low=0.0,
        tune=(0.05, 0.1, 0.2),
    )
    stop: int = param(
        25,
        "steps with this index (counted down to 0) and below are not pulled",
        "forks --stop_t 25",
        low=-1,
        tune=(10, 25),
    )
    guidance: float = param(
        4.0,
        "classifier-free guidance",
        "forks --cfg-scale 4.0",
        low=0.0,
        tune=(1.0, 1.5, 2.0, 4.0),
        backbone="guidance",
    )
    channels: int = param(
        0, "latent channels that classifier-free guidance acts on; 0: all. The original DiT: 3", "own", low=0
    )

    def __post_init__(self) -> None:
        if self.stop >= self.steps:
            raise UsageError(
                f"stop = {self.stop} leaves no step to pull in", where="--set stop", allowed=f"-1 to {self.steps - 2}"
            )


def towards(modes: torch.Tensor, scale: float, above: int) -> Guidance:
    """The pull ``scale * (mode - x0)`` at noise levels above ``above``; image i has the mode ``modes[i]``."""

    def guidance(x0: torch.Tensor, level: int, index: torch.Tensor) -> torch.Tensor | None:
        return scale * (modes[index] - x0) if level > above else None

    return guidance


class MGD3(Method):
    """While noise is high, image k of a class is pulled towards centre k of a k-means of the class's latents.

    It needs the backbone and the training images, no classifier and no training. A set costs what plain sampling costs
    (digits, IPC 10: 13 CPU seconds), and the encoding of the training images and a k-means a class once.
    Defaults are those of the forks' code; the guidance is the backbone's.
    """

    Params = MGD3Params
    requires = frozenset({"backbone"})
    quick = {"steps": 4, "stop": 1, "scale": 1.0}

    def why_not(self, dataset: Dataset, ipc: int) -> str:
        return too_few(dataset, ipc)

    def stage(self, task: Task, class_index: int) -> Stage:
        """The stage of a class's modes."""
        return task.stage("mgd3.modes", 1, seeded=True, cls=class_index, ipc=task.ipc)

    def stages(self, task: Task) -> list[Stage]:
        return [self.stage(task, c) for c in range(len(task.dataset.classes))]

    def work(self, images: int, classes: int, ipc: int) -> list[Work]:
        p, made = self.params, classes * ipc
        return [Work("encode", images, shared=True), Work("sample", made, p.steps, p.guidance), Work("decode", made)]

    def modes(self, task: Task, class_index: int) -> torch.Tensor:
        """The class's modes, float32 ``[ipc, c, h, w]``, from the store."""
        import torch
        from safetensors.torch import load_file, save_file

        def make(folder: Path) -> None:
            from benchmark.api import class_latents

            latents = torch.cat([part.float().cpu() for part in class_latents(task, class_index, sample=False)])
            seed = derive_seed(task.seed, task.method, class_index, "k-means") % 2**32
            save_file({"modes": centres(latents, task.ipc, seed)}, folder / "modes.safetensors")

        return load_file(task.artifact(self.stage(task, class_index), make) / "modes.safetensors")["modes"]

    def distill(self, task: Task, unit: Unit) -> torch.Tensor:
        from benchmark.api import sampling_levels

        p, backbone, ((label, _), *_) = self.params, task.backbone, unit.cells
        modes = self.modes(task, label)[[i for _, i in unit.cells]].to(backbone.device)
        ascending = sampling_levels(backbone.scheduler, p.steps, p.form)[::-1]
        hook = towards(modes, p.scale, ascending[p.stop] if p.stop >= 0 else -1)
        return sample_cells(task, backbone, unit, p.steps, p.guidance, form=p.form, channels=p.channels, hook=hook)


def centres(latents: torch.Tensor, clusters: int, seed: int) -> torch.Tensor:
    """Centres of scikit-learn's ``KMeans`` (k-means++ once, then Lloyd): float32 ``[clusters, c, h, w]``."""
    import torch
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # sums over OpenMP threads would depend on their number
        found = KMeans(clusters, random_state=seed, n_init="auto").fit(latents.flatten(1).numpy())
    return torch.from_numpy(found.cluster_centers_).float().view(clusters, *latents.shape[1:]).contiguous()
