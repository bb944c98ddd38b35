"""Particle guidance (Corso et al., ICLR 2024, arXiv 2310.13102): the images of a class push each other apart."""

from __future__ import annotations

from dataclasses import dataclass

from benchmark.api import Method, MethodInfo, Work, hookimpl, param


@hookimpl
def ddbench_methods():
    return [MethodInfo("particles", "samples that push each other apart", "ddbench_particles:Particles")]


@dataclass(frozen=True)
class Params:
    steps: int = param(50, "DDIM steps", low=2, high=1000)
    guidance: float = param(2.0, "classifier-free guidance", low=0.0)
    push: float = param(1.0, "strength of the repulsion; 0 is plain sampling", low=0.0)


def apart(push):
    """The gradient of minus the log of the mean kernel between images, an RBF of their median squared distance."""
    import torch

    def guidance(x0, level, index):
        flat = x0.flatten(1)
        between = flat[:, None] - flat[None]
        squared = between.square().sum(2)
        width = squared[squared > 0].median() if len(flat) > 1 else torch.ones_like(squared[0, 0])
        kernel = torch.exp(-squared / width)
        return push * (2 / width * (kernel[:, :, None] * between).sum(1) / kernel.sum(1, keepdim=True)).view_as(x0)

    return guidance


class Particles(Method):
    Params = Params
    requires = frozenset({"backbone"})

    def work(self, images, classes, ipc):
        return [Work("sample", classes * ipc, self.params.steps, self.params.guidance), Work("decode", classes * ipc)]

    def distill(self, task, unit):
        from benchmark.api import sample

        p, backbone, count = self.params, task.backbone, len(unit.cells)
        classes = backbone.class_map[[c for c, _ in unit.cells]]
        draws = [task.generator(c, i) for c, i in unit.cells]
        latents = sample(backbone, classes, p.steps, p.guidance, draws, count, hook=apart(p.push))
        return backbone.decode(latents, task.dataset.image_size, task.dataset.channels)
