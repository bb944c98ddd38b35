"""A teacher: a trained classifier that labels batches and recognises distilled images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.core.compute import fast_layout

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")  # of files of weights


class Teacher:
    """See :mod:`benchmark.teachers`.

    Attributes:
        model: in evaluation mode, frozen; takes normalised float ``[n, C, size, size]``, returns logits.
        name, key: as asked for; what identifies the weights.
        accuracy: recorded top-1 on the test split in percent, or None where nobody recorded one.
        mean, std: the normalisation that the model was trained with.
        size: side in pixels that the model sees.
        resize: test images are resized to ``size`` times this and cropped in the middle, as they were where
            ``accuracy`` was recorded (torchvision: 256 / 224).
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        name: str,
        key: str,
        accuracy: float | None,
        mean: Sequence[float],
        std: Sequence[float],
        size: int,
        resize: float = 1.0,
        device: str = "cpu",
    ) -> None:
        self.model = fast_layout(model.to(device)).eval().requires_grad_(False)
        self.name, self.key, self.accuracy, self.size, self.device = name, key, accuracy, size, device
        self.resize = resize
        self._host = [torch.tensor(v, dtype=torch.float32).view(1, -1, 1, 1) for v in (mean, std)]
        self.mean, self.std = (v.to(device) for v in self._host)

    def normalise(self, images: Tensor) -> Tensor:
        """Grey levels 0..255, uint8 or float, to what the model takes, resized where the size differs."""
        return self._fit((images.to(self.device).float() / 255 - self.mean) / self.std)

    def _fit(self, x: Tensor) -> Tensor:
        if x.shape[-1] == self.size:
            return x
        return F.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True, align_corners=False)

    @torch.no_grad()
    def logits(self, images: Tensor, batch: int = 500) -> Tensor:
        """float32 ``[n, classes]`` of images ``[n, C, h, w]`` in grey levels, on the teacher's device."""
        parts = [self.model(self.normalise(images[i : i + batch])).float() for i in range(0, len(images), batch)]
        return torch.cat(parts)

    @torch.no_grad()
    def logits_of(self, x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """Logits of a batch that was normalised with ``mean`` and ``std`` (each ``[1, C, 1, 1]``)."""
        if not self._own(mean, std):
            mean, std = (v.to(x.device, non_blocking=True) for v in (mean, std))
            x = (x * std + mean - self.mean) / self.std
        return self.model(self._fit(x))

    def _own(self, mean: Tensor, std: Tensor) -> bool:
        """Whether these are the model's own; compared on the host, where students keep theirs: no wait for a GPU."""
        if mean is self.mean and std is self.std:
            return True
        return all(torch.equal(v.cpu(), own) for v, own in zip((mean, std), self._host, strict=True))

    @torch.no_grad()
    def features(self, images: Tensor, batch: int = 500) -> Tensor:
        """float32 ``[n, d]``: what enters the last linear layer, for uint8 images."""
        last = [m for m in self.model.modules() if isinstance(m, nn.Linear)][-1]
        seen: list[Tensor] = []
        hook = last.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().float().flatten(1)))
        try:
            self.logits(images, batch)
        finally:
            hook.remove()
        return torch.cat(seen)


class Ensemble(Teacher):
    """Several teachers as one: the mean of their logits (SRe2L's and G-VBSM's voting), features side by side."""

    def __init__(self, members: list[Teacher], *, name: str, key: str, accuracy: float | None) -> None:
        self.members, self.name, self.key, self.accuracy = members, name, key, accuracy
        self.model = members[0].model
        self.device, self.size, self.resize = members[0].device, members[0].size, members[0].resize
        self.mean, self.std = members[0].mean, members[0].std

    @torch.no_grad()
    def logits(self, images: Tensor, batch: int = 500) -> Tensor:
        return torch.stack([m.logits(images, batch) for m in self.members]).mean(dim=0)

    @torch.no_grad()
    def logits_of(self, x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        return torch.stack([m.logits_of(x, mean, std).float() for m in self.members]).mean(dim=0)

    @torch.no_grad()
    def features(self, images: Tensor, batch: int = 500) -> Tensor:
        return torch.cat([m.features(images, batch) for m in self.members], dim=1)
