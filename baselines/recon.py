"""Random real images encoded and decoded by the backbone's VAE: what the VAE alone costs.

The images are those that `random` draws with the same seed, so the difference is the VAE's. The posterior mean is
decoded, not a sample. It is no ceiling: a method that chooses or makes better images than random ones stands above it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from baselines.random_real import drawn, too_few
from benchmark.api import Method, Task, Unit, Work

if TYPE_CHECKING:
    import torch

    from benchmark.api import Dataset

CHUNK = 10  # images a batch


class Recon(Method):
    """Random real images through the VAE.

    What ``random`` draws is encoded and decoded, so that the difference from it is the VAE's. Needs the backbone's
    VAE and the training images; costs a pass of the VAE an image. Defaults: it has no settings.
    """

    requires = frozenset({"backbone"})

    def why_not(self, dataset: Dataset, ipc: int) -> str:
        return too_few(dataset, ipc)

    def work(self, images: int, classes: int, ipc: int) -> list[Work]:
        return [Work("encode", classes * ipc), Work("decode", classes * ipc)]

    def distill(self, task: Task, unit: Unit) -> torch.Tensor:
        import torch

        rows, backbone, images = drawn(task, unit), task.backbone, []
        for start in range(0, len(rows), CHUNK):
            pixels = task.train.images(rows[start : start + CHUNK], backbone.content_size, backbone.channels)
            latents = backbone.encode(pixels, sample=False)
            images.append(backbone.decode(latents, task.dataset.image_size, task.dataset.channels).cpu())
        return torch.cat(images)
