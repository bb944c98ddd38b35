"""Light descriptions that plug-ins register. Importing this module (or a plug-in) must never import torch.

A ``target`` is ``"package.module:attribute"`` and is imported only when the thing is used. A name that ends in ``:``
takes an argument: ``imagefolder:`` answers to ``imagefolder:/data/pets``, ``timm:`` to ``timm:resnet26``.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Info:
    """What every registered thing has: a unique ``name``, one line of ``summary``, and where it is implemented."""

    name: str
    summary: str
    target: str

    def load(self, target: str = "") -> Any:
        """Import and return the object behind ``target``, or behind another ``"module:attribute"`` of this info."""
        module, _, attribute = (target or self.target).partition(":")
        return getattr(importlib.import_module(module), attribute)


# What a method needs besides the training images, by `MethodInfo.uses`; lists and boards are grouped so.
USES = {
    "images": "the training images alone",
    "classifier": "a classifier trained on the real images",
    "backbone": "a diffusion backbone",
}


@dataclass(frozen=True)
class MethodInfo(Info):
    """A distillation method; ``target`` is a subclass of :class:`benchmark.methods.Method`.

    ``uses`` is a key of `USES`. How the method works, what it needs and costs, and where its defaults come from, say
    three sentences of the class's docstring.
    """

    version: int = 1
    paper: str = ""  # citation, arXiv number
    gate: str = "order"  # "order": the labels must follow the classes' order; "waived": the images mean nothing
    trains_once: bool = False  # something is trained once for all seeds (a fine-tuning): boards say so
    uses: str = ""


@dataclass(frozen=True)
class DatasetInfo(Info):
    """A dataset; ``target`` is called as ``target(argument, root, options)`` (see :mod:`benchmark.data.base`).

    ``find`` is ``"module:function"``, called as ``find(name, root)`` with the data root (a `Path` or None) before
    anything is loaded. It returns the folder where the data lies, or raises `MissingError`. Without it nothing is
    looked for: the data comes with a package, or only loading can tell.
    """

    classes: int | None = None
    image_size: int | None = None
    channels: int | None = None
    source: str = ""  # where to get it
    aliases: tuple[str, ...] = ()
    find: str = ""
    download: bool = False  # whether the option `download` fetches it into the data root
    imagenet_classes: bool | None = None  # whether its classes are among ImageNet-1K's; None: only loading can tell


@dataclass(frozen=True)
class StudentInfo(Info):
    """A student architecture; ``target(argument, num_classes, channels, image_size)`` returns an ``nn.Module``."""

    lr_group: str = "resnet"  # key into a protocol's `lr` table
    version: int = 1  # raised when the same name and seed give another network; enters keys and records when not 1


@dataclass(frozen=True)
class ProtocolInfo(Info):
    """A protocol; ``target`` is ``"package:file.yaml"`` and is read, not imported."""


@dataclass(frozen=True)
class BackbonePresetInfo(Info):
    """A size at which ``ddbench backbone train`` builds a VAE and a DiT; ``target`` names a dict of settings."""


@dataclass(frozen=True)
class ExecutorInfo(Info):
    """An engine that runs the jobs of a plan: ``target(run, jobs, options)`` with ``jobs`` workers.

    ``slots`` is ``"module:function"``, called as ``slots(address, device)``: how many workers it takes by default.
    """

    slots: str = ""
    elsewhere: bool = False  # works on other machines (``--address``), which may have devices that this one lacks


@dataclass(frozen=True)
class MetricInfo(Info):
    """An extra score of a trained student; ``target(context)`` returns ``{score name: float}``."""


@dataclass(frozen=True)
class CommandInfo(Info):
    """A ``ddbench`` sub-command; ``target`` is a ``click.Command``."""


@dataclass
class Broken:
    """A plug-in that could not be loaded, or whose hook raised; shown by ``ddbench plugins``."""

    plugin: str
    distribution: str
    error: str
    traceback: str = field(default="", repr=False)
