"""Which backbone a request means: one trained here (by preset) or a folder or hub id that exists already."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.core.errors import unknown_name
from benchmark.core.outputs import expanded
from benchmark.core.store import Stage, Store
from benchmark.data.base import plain_name
from benchmark.plugins import registry

IMAGENET_BACKBONE = "facebook/DiT-XL-2-256"


@dataclass(frozen=True)
class BackboneRef:
    """A backbone by name, with its key; ``stage`` is None for one that is not made here."""

    name: str
    key: str
    stage: Stage | None
    preset: str = ""

    def build(self, store: Store, dataset, device: str, judge: str = "") -> Path | str:
        """Its folder (trained if need be, with a report card by the teacher ``judge``), or the hub id."""
        if self.stage is None:
            return self.name
        dataset = dataset.whole or dataset
        from benchmark.backbones import train_backbone

        return train_backbone(store, dataset, self.preset, device, judge=judge)


def shipped(dataset: str, classes: Sequence[str]) -> Path | None:
    """The folder of a backbone for ``dataset`` among those of ``$DDBENCH_BACKBONES``, or of a checkout's
    ``results/backbones``; None where there is none, or the variable is set to nothing.

    A checkout's is named from its root (records must not depend on where that lies): `folder.resolve` finds it.
    Not for ``NAME@val``: a shipped backbone was trained on the images that such a dataset holds out.
    """
    from benchmark.backbones import folder as folders

    given = os.environ.get("DDBENCH_BACKBONES")
    if given == "":
        return None
    folder = (folders.SHIPPED if given is None else Path(given).expanduser()) / dataset
    place = folders.CHECKOUT / folder if given is None else folder
    if not (place / folders.ABOUT).is_file():
        return None
    return folder if folders.about(place).get("classes") == list(classes) else None


def resolve_backbone(dataset, name: str = "") -> BackboneRef:
    """The backbone called ``name`` (a preset, a folder, a hub id); "" is the dataset's default.

    That is DiT-XL/2-256 for ImageNet's classes, else what :func:`shipped` finds, else the dataset's preset. Some
    classes of a dataset have the whole dataset's backbone.

    Raises:
        MissingError: a folder that is no backbone, a hub id that cannot be had.
    """
    from benchmark.backbones import backbone_stage, default_preset, external_key

    dataset = dataset.whole or dataset
    if not name:
        found = shipped(dataset.name, dataset.classes)
        ours = str(found) if found else default_preset(plain_name(dataset.name))
        name = IMAGENET_BACKBONE if dataset.backbone_classes is not None else ours
    if name in registry().names("backbone"):
        stage = backbone_stage(dataset, name)
        return BackboneRef(name, stage.key, stage, name)
    if "/" not in name and not expanded(name, "--backbone").exists():  # no folder, no hub id: a preset misspelt
        raise unknown_name("backbone", name, registry().names("backbone"), where="--backbone")
    return BackboneRef(name, external_key(name), None)
