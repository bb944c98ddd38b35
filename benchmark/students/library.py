"""Students from torchvision and timm, made to fit the number of classes, the channels and small images."""

from __future__ import annotations

import difflib

import torch
import torch.nn.functional as F
from torch import nn

from benchmark.core.errors import UsageError

SMALL = 64  # up to this side ResNets get the small-image stem (RDED's `resnet18_modified`: CIFAR and Tiny-ImageNet)


class Enlarged(nn.Module):
    """A network that sees its input enlarged to ``size`` px (bilinear): for those that halve five times."""

    def __init__(self, model: nn.Module, size: int) -> None:
        super().__init__()
        self.model, self.size = model, size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(F.interpolate(x, (self.size, self.size), mode="bilinear", align_corners=False))


def at_least(model: nn.Module, image_size: int, minimum: int) -> nn.Module:
    """``model``, behind an enlargement where the images are smaller than ``minimum``."""
    return model if image_size >= minimum else Enlarged(model, minimum)


def set_channels(model: nn.Module, channels: int) -> nn.Module:
    """Replace the first convolution by one for ``channels`` input channels (3 leaves the model as it is)."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            if module.in_channels != channels:
                new = nn.Conv2d(
                    channels,
                    module.out_channels,
                    module.kernel_size,
                    module.stride,
                    module.padding,
                    module.dilation,
                    bias=module.bias is not None,
                )
                parent, _, leaf = name.rpartition(".")
                setattr(model.get_submodule(parent), leaf, new)
            break
    return model


def _torchvision(name: str, num_classes: int, channels: int) -> nn.Module:
    import torchvision

    check_name(f"torchvision:{name}")
    extra = {"aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    if extra:
        extra["init_weights"] = True
    model = torchvision.models.get_model(name, weights=None, num_classes=num_classes, **extra)
    return set_channels(model, channels)


def _resnet(name: str, num_classes: int, channels: int, image_size: int) -> nn.Module:
    model = _torchvision(name, num_classes, channels)
    if image_size <= SMALL:
        model.conv1 = nn.Conv2d(channels, 64, 3, 1, 1, bias=False)
        model.maxpool = nn.Identity()
    return model


def resnet18(argument: str, num_classes: int, channels: int, image_size: int) -> nn.Module:
    return _resnet("resnet18", num_classes, channels, image_size)


def resnet50(argument: str, num_classes: int, channels: int, image_size: int) -> nn.Module:
    return _resnet("resnet50", num_classes, channels, image_size)


def resnet101(argument: str, num_classes: int, channels: int, image_size: int) -> nn.Module:
    return _resnet("resnet101", num_classes, channels, image_size)


def mobilenetv2(argument: str, num_classes: int, channels: int, image_size: int) -> nn.Module:
    return at_least(_torchvision("mobilenet_v2", num_classes, channels), image_size, 32)


def efficientnet_b0(argument: str, num_classes: int, channels: int, image_size: int) -> nn.Module:
    return at_least(_torchvision("efficientnet_b0", num_classes, channels), image_size, 32)


def shufflenetv2(argument: str, num_classes: int, channels: int, image_size: int) -> nn.Module:
    return at_least(_torchvision("shufflenet_v2_x1_0", num_classes, channels), image_size, 32)


def vgg11(argument: str, num_classes: int, channels: int, image_size: int) -> nn.Module:
    return at_least(_torchvision("vgg11", num_classes, channels), image_size, 32)


def swin_t(argument: str, num_classes: int, channels: int, image_size: int) -> nn.Module:
    return at_least(_torchvision("swin_t", num_classes, channels), image_size, 32)


def convnext_t(argument: str, num_classes: int, channels: int, image_size: int) -> nn.Module:
    return at_least(_torchvision("convnext_tiny", num_classes, channels), image_size, 32)


def _vit(name: str, num_classes: int, channels: int, image_size: int) -> nn.Module:
    import timm

    # 8 patches a side for small images (CIFAR practice: patch 4 at 32 px), ViT's own 16 px from 128 px on
    patch = 16 if image_size >= 128 else max(1, image_size // 8)
    return timm.create_model(name, num_classes=num_classes, in_chans=channels, img_size=image_size, patch_size=patch)


def vit_tiny(argument: str, num_classes: int, channels: int, image_size: int) -> nn.Module:
    return _vit("vit_tiny_patch16_224", num_classes, channels, image_size)


def deit_tiny(argument: str, num_classes: int, channels: int, image_size: int) -> nn.Module:
    return _vit("deit_tiny_patch16_224", num_classes, channels, image_size)


def check_name(name: str) -> None:
    """Refuse ``timm:NAME`` and ``torchvision:NAME`` that do not exist, before anything runs.

    Raises:
        UsageError: unknown; says the nearest names.
    """
    library, colon, argument = name.partition(":")
    if not colon or library not in ("timm", "torchvision"):
        return
    if not argument:
        raise UsageError(f"student {name!r} needs an argument after the colon", where="--student")
    if library == "timm":
        import timm

        known = timm.list_models()
    else:
        from torchvision import models

        known = models.list_models(module=models)
    if argument not in known:
        near = difflib.get_close_matches(argument, known, n=5, cutoff=0.4)
        raise UsageError(
            f"{library} has no model {argument!r}",
            where="--student",
            allowed=(", ".join(near) + ", … " if near else "") + f"({len(known)} in all)",
        )


def timm_model(argument: str, num_classes: int, channels: int, image_size: int) -> nn.Module:
    """A timm model without weights. One of fixed input size sees its images enlarged (or reduced) to that size."""
    import timm

    check_name(f"timm:{argument}")
    model = timm.create_model(argument, num_classes=num_classes, in_chans=channels)
    wanted = model.default_cfg
    if wanted.get("fixed_input_size"):
        size = wanted["input_size"][-1]
        return model if size == image_size else Enlarged(model, size)
    return at_least(model, image_size, (wanted.get("min_input_size") or (3, 32, 32))[-1])


def tv_model(argument: str, num_classes: int, channels: int, image_size: int) -> nn.Module:
    """A torchvision classifier without weights; ViTs need their own 224 px, others at least 32 px (AlexNet: 64)."""
    model = _torchvision(argument, num_classes, channels)
    if argument.startswith(("vit_", "maxvit")):
        return model if image_size == 224 else Enlarged(model, 224)
    minimum = {"alexnet": 64, "inception_v3": 75}.get(argument, 32)
    return at_least(model, image_size, minimum)
