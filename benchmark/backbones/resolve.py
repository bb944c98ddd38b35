"""Which backbone a request means: one trained here (by preset) or a folder or hub id that exists already."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmark.core.store import Stage, Store
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
        from benchmark.backbones import train_backbone

        return train_backbone(store, dataset, self.preset, device, judge=judge)


def resolve_backbone(dataset, name: str = "") -> BackboneRef:
    """The backbone called ``name`` (a preset, a folder, a hub id); "" is the dataset's default.

    Raises:
        MissingError: a folder that is no backbone, a hub id that cannot be had.
    """
    from benchmark.backbones import backbone_stage, default_preset, external_key

    if not name:
        ours = default_preset(dataset.name.removesuffix("@val"))
        name = IMAGENET_BACKBONE if dataset.backbone_classes is not None else ours
    if name in registry().names("backbone"):
        stage = backbone_stage(dataset, name)
        return BackboneRef(name, stage.key, stage, name)
    return BackboneRef(name, external_key(name), None)
