"""Plain guided sampling of the diffusion backbone: generated images without any distillation.

Defaults: 50 DDIM steps and the guidance that was chosen for the backbone; where none was, 4.0, as the DiT rows of
Minimax (`sample.py`: 50 steps, cfg-scale 4.0) and as D3HR decodes, so that these differ in nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmark.api import Method, Task, Unit, Work, param

if TYPE_CHECKING:
    import torch

    from benchmark.api import Backbone

CHUNK = 10  # images a batch: the same cut whatever the IPC, so IPC 1 is the first image of IPC 10 up to rounding


@dataclass(frozen=True)
class DiTParams:
    """Sampling."""

    steps: int = param(50, "DDIM steps", "Minimax sample.py --num-sampling-steps 50; D3HR 50", low=1, high=1000)
    guidance: float = param(
        4.0,
        "classifier-free guidance",
        "Minimax sample.py --cfg-scale 4.0; D3HR 4.0",
        low=0.0,
        tune=(1.0, 1.5, 2.0, 3.0, 4.0, 7.0),
        backbone="guidance",
    )


def sample_cells(
    task: Task, backbone: Backbone, unit: Unit, steps: int, guidance: float, **options: Any
) -> torch.Tensor:
    """Sampled images of a unit's cells, each from the noise of its own (seed, method, class, index).

    ``options`` as in :func:`benchmark.backbones.sampling.sample`; a hook's ``index`` is the position in ``unit.cells``.

    Returns:
        uint8 ``[len(unit.cells), C, size, size]``.
    """
    import torch

    from benchmark.api import sample

    classes = backbone.class_map[torch.tensor([c for c, _ in unit.cells])]
    draws = [task.generator(c, i) for c, i in unit.cells]
    return decoded(task, backbone, sample(backbone, classes, steps, guidance, draws, CHUNK, **options))


def decoded(task: Task, backbone: Backbone, latents: torch.Tensor) -> torch.Tensor:
    """Images uint8 ``[n, C, size, size]`` of the dataset's size, on the CPU, of latents ``[n, c, h, w]``."""
    import torch

    size, channels = task.dataset.image_size, task.dataset.channels
    return torch.cat([backbone.decode(part, size, channels).cpu() for part in latents.split(CHUNK)])


class DiT(Method):
    """Guided samples of the class.

    Noise is denoised by the backbone with classifier-free guidance, one image after the other, with no regard to
    the set. Needs the backbone alone; costs 50 guided passes of the DiT an image. Defaults are those of Minimax's
    DiT rows; the guidance is the backbone's, where one was chosen.
    """

    Params = DiTParams
    requires = frozenset({"backbone"})
    quick = {"steps": 3}

    def work(self, images: int, classes: int, ipc: int) -> list[Work]:
        made = classes * ipc
        return [Work("sample", made, self.params.steps, self.params.guidance), Work("decode", made)]

    def distill(self, task: Task, unit: Unit) -> torch.Tensor:
        return sample_cells(task, task.backbone, unit, self.params.steps, self.params.guidance)
