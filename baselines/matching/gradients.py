"""Gradients of a class's cross-entropy on a network's weights, for many classes at once, and how far two are apart.

Source: DC (arXiv 2006.05929, eq. 7 and 9), repository VICO-UoE/DatasetCondensation, ``utils.py`` (``match_loss``,
``distance_wb``); IDC, repository snu-mllab/Efficient-Dataset-Condensation, ``condense.py`` (``dist``). Biases and the
parameters of norms are never matched there.

The authors go through the network class by class. Where a class has few images, all classes go through it together
here and the classes' gradients are put together from each layer's inputs and output gradients: the same numbers (the
networks' norms do not look at other images) with a tenth of the kernels to launch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEW = 32  # images a class up to which classes go through the network together
TOGETHER = 1 << 18  # pixels that do so (256 images at 32 px): the layers' unfolded inputs take 1 GB in ConvNets
EPSILON = 1e-6  # of the authors' cosine


def weighted_layers(net: nn.Module, classifier: bool) -> list[nn.Module]:
    """The layers whose weights are matched: convolutions, and linear layers if ``classifier``."""
    kinds = (nn.Conv2d, nn.Linear) if classifier else nn.Conv2d
    return [module for module in net.modules() if isinstance(module, kinds)]


def class_gradients(
    net: nn.Module, layers: Sequence[nn.Module], images: Tensor, labels: Sequence[int], *, graph: bool = False
) -> list[Tensor]:
    """Gradients of each class's mean cross-entropy on the weights of ``layers``.

    Args:
        net: no layer of it may look at several images at once (BatchNorm does), or change a layer's output in place.
        images: ``[classes, n, C, H, W]``; labels: a class's label.
        graph: whether they can be differentiated again.

    Returns:
        ``[classes, *weight.shape]`` for each layer.
    """
    if images.shape[1] <= FEW:
        return _together(net, layers, images, labels, graph)
    parts = [_one_class(net, layers, x, label, graph) for x, label in zip(images, labels, strict=True)]
    return [torch.stack(part) for part in zip(*parts, strict=True)]


def _one_class(
    net: nn.Module, layers: Sequence[nn.Module], images: Tensor, label: int, graph: bool
) -> tuple[Tensor, ...]:
    target = torch.full((len(images),), label, device=images.device)
    loss = F.cross_entropy(net(images), target)
    return torch.autograd.grad(loss, [layer.weight for layer in layers], create_graph=graph)


def _together(
    net: nn.Module, layers: Sequence[nn.Module], images: Tensor, labels: Sequence[int], graph: bool
) -> list[Tensor]:
    classes, n = images.shape[:2]
    seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def keep(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen[layer] = inputs[0], output

    handles = [layer.register_forward_hook(keep) for layer in layers]
    try:
        logits = net(images.flatten(0, 1))
    finally:
        for handle in handles:
            handle.remove()
    target = torch.tensor(labels).repeat_interleave(n).to(images.device, non_blocking=True)
    loss = F.cross_entropy(logits, target, reduction="sum") / n  # the sum of the classes' means
    outputs = torch.autograd.grad(loss, [seen[layer][1] for layer in layers], create_graph=graph)
    found = []
    for layer, slope in zip(layers, outputs, strict=True):
        inputs = seen[layer][0] if graph else seen[layer][0].detach()
        if isinstance(layer, nn.Conv2d):
            kernel = {"padding": layer.padding, "stride": layer.stride, "dilation": layer.dilation}
            inputs = F.unfold(inputs, layer.kernel_size, **kernel)
        inputs, slope = inputs.view(classes, n, inputs.shape[1], -1), slope.view(classes, n, slope.shape[1], -1)
        weights = torch.einsum("cnol,cnil->coi", slope, inputs)
        found.append(weights.view(classes, *layer.weight.shape))
    return found


def cosine(real: Tensor, synthetic: Tensor) -> Tensor:
    """DC: for each output of a layer 1 - the cosine of the two gradients on its weights, summed."""
    real, synthetic = real.flatten(2), synthetic.flatten(2)
    lengths = real.norm(dim=-1) * synthetic.norm(dim=-1)
    return (1 - (real * synthetic).sum(-1) / (lengths + EPSILON)).sum()


def squares(real: Tensor, synthetic: Tensor) -> Tensor:
    """IDC's ``mse``: squared differences, summed."""
    return (real - synthetic).square().sum()


def absolute(real: Tensor, synthetic: Tensor) -> Tensor:
    """IDC's ``l1``: absolute differences, summed."""
    return (real - synthetic).abs().sum()


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cosine": cosine, "mse": squares, "l1": absolute}


def match(
    net: nn.Module,
    layers: Sequence[nn.Module],
    real: Sequence[Tensor],
    synthetic: Tensor,
    labels: Sequence[int],
    metric: str,
) -> tuple[Tensor, Tensor]:
    """Distance between real and synthetic gradients, summed over classes, and its gradient on the synthetic images.

    Args:
        real: images of each class ``[n, C, H, W]``; synthetic: ``[classes, m, C, H, W]``.

    Returns:
        the distance (a number), and its gradient ``[classes, m, C, H, W]``.
    """
    distance, each = DISTANCES[metric], synthetic.shape[1]
    count = max(1, TOGETHER // synthetic[0, :, 0].numel()) if each <= FEW else 1
    total, slopes = torch.zeros((), device=synthetic.device), []
    for start in range(0, len(labels), count):
        some = slice(start, start + count)
        parts = [class_gradients(net, layers, x[None], [c]) for x, c in zip(real[some], labels[some], strict=True)]
        wanted = [torch.cat(part) for part in zip(*parts, strict=True)]
        images = synthetic[some].detach().requires_grad_(True)
        found = class_gradients(net, layers, images, labels[some], graph=True)
        loss = sum(distance(*pair) for pair in zip(wanted, found, strict=True))
        slopes += torch.autograd.grad(loss, images)
        total = total + loss.detach()
    return total, torch.cat(slopes)
