"""Train the diffusion backbone that methods use."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from benchmark.backbones.resolve import resolve_backbone
from benchmark.core.store import Stage
from benchmark.pipeline.jobs.base import Context, Job
from benchmark.plugins import registry


@dataclass(frozen=True, kw_only=True)
class BackboneJob(Job):
    """``backbone`` is a preset, a folder or a hub id; ``judge`` the teacher of its report card ("": the usual one)."""

    kind = "backbone"
    phase = "backbone"

    backbone: str
    judge: str = ""

    @cached_property
    def stage(self) -> Stage | None:
        return resolve_backbone(self.source.load(), self.backbone).stage

    def is_done(self, context: Context) -> bool:
        if self.backbone not in registry().names("backbone"):
            return True  # external: nothing to make
        return context.store.has_key("backbone", self.key)

    def work(self, context: Context) -> None:
        dataset = self.source.load()
        resolve_backbone(dataset, self.backbone).build(context.store, dataset, context.device, self.judge)
