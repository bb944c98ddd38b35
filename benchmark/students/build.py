"""Build a student by name, and say what was resolved: learning-rate group and input size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmark.plugins import registry

if TYPE_CHECKING:
    from torch import nn

# first match wins; the families of RDED's table (argument.py), for models named through timm: and torchvision:
_GROUPS = (
    ("mobilenet", "mobilenet"),
    ("mnasnet", "mobilenet"),
    ("efficientnet", "efficientnet"),
    ("shufflenet", "shufflenet"),
    ("vgg", "vgg"),
    ("alexnet", "alexnet"),
    ("convnext", "convnext"),
    ("swin", "transformer"),
    ("vit", "transformer"),
    ("deit", "transformer"),
)


def lr_group(name: str) -> str:
    """The key of ``name`` in a protocol's learning-rate table.

    Raises:
        UsageError: no such student.
    """
    info = registry().get("student", name, where="--student")
    if info.lr_group != "auto":
        return info.lr_group
    return next((group for part, group in _GROUPS if part in name), "resnet")


def student_version(name: str) -> dict[str, int]:
    """What a student's version adds to keys and identities: nothing for version 1, so that old ones stay valid.

    Raises:
        UsageError: no such student.
    """
    version = registry().get("student", name, where="--student").version
    return {} if version == 1 else {"student_version": version}


def build_student(name: str, num_classes: int, channels: int, image_size: int, seed: int) -> nn.Module:
    """A student with fresh weights that depend on ``seed`` and the name only; the caller's random state is untouched.

    Takes normalised float ``[n, channels, image_size, image_size]``, returns logits ``[n, num_classes]``.
    """
    import torch

    from benchmark.core.compute import derive_seed

    info = registry().get("student", name, where="--student")
    argument = name.partition(":")[2]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("student", name, seed))
        return info.load()(argument, num_classes, channels, image_size)


def input_size(model: nn.Module, image_size: int) -> int:
    """The side in pixels at which the network itself sees its images (some enlarge small ones)."""
    return getattr(model, "size", image_size) if type(model).__name__ == "Enlarged" else image_size
