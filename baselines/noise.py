"""Uniform noise: images without information, so that its score under soft labels is what the labels alone are worth.

The gate that asks whether the teacher recognises the set is waived for it (its registration says so).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmark.api import Method, Task, Unit

if TYPE_CHECKING:
    import torch


class Noise(Method):
    """Every pixel uniform in 0..255, independent of the class.

    A student learns nothing from it but the labels, so under soft labels its score is what these alone are worth.
    Needs nothing; costs nothing. Defaults: it has no settings.
    """

    def distill(self, task: Task, unit: Unit) -> torch.Tensor:
        import torch

        size = (task.dataset.channels, task.dataset.image_size, task.dataset.image_size)
        return torch.stack(
            [
                torch.randint(0, 256, size, dtype=torch.uint8, generator=task.generator(c, index))
                for c, index in unit.cells
            ]
        )
