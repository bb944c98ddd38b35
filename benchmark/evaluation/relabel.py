"""Stored soft labels (FKD): the teacher's logits for every augmented image of every epoch, kept once as fp16.

Order, crops, flips and mixing are drawn from the protocol's ``label_seed``, so they are a pure function of the
protocol and need no storage; only the logits are counted: 2 bytes x classes x images x epochs.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Protocol as Structural

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from benchmark.core.compute import Precision
from benchmark.core.store import Stage, Store

if TYPE_CHECKING:
    from benchmark.data import Dataset
    from benchmark.evaluation.protocols import Protocol

VERSION = 1
CHUNK = 10  # epochs a file


class Labeller(Structural):
    """What can label an epoch: float16 ``[images, classes]``, row for row in the order of the epoch's batches."""

    def label_epoch(self, epoch: int) -> Tensor: ...


class StoredLabels:
    """Logits by epoch, read one chunk at a time."""

    def __init__(self, files: list[Path]) -> None:
        self.files, self.loaded, self.rows = files, -1, torch.empty(0)

    @property
    def bytes(self) -> int:
        """Size on disk."""
        return sum(f.stat().st_size for f in self.files)

    def epoch(self, epoch: int) -> Tensor:
        """float16 ``[images, classes]``."""
        if epoch // CHUNK != self.loaded:
            with safe_open(self.files[epoch // CHUNK], framework="pt") as file:
                self.rows = file.get_tensor("logits")
            self.loaded = epoch // CHUNK
        return self.rows[epoch % CHUNK]


def relabel_stage(dataset: Dataset, protocol: Protocol, ipc: int, set_key: str, teacher_key: str, precision: Precision):
    """The stage of a set's stored labels: every student and every seed of students shares it."""
    used = ("epochs", "steps", "batch", "batch_factor", "augment", "mix", "mix_alpha", "mix_probability", "normalize",
            "resolution", "label_seed")  # fmt: skip
    params = {"protocol": {k: v for k, v in protocol.document().items() if k in used}, "ipc": ipc}
    inputs = {"dataset": dataset.digest, "set": set_key, "teacher": teacher_key}
    return Stage("relabel", VERSION, params, inputs, protocol.label_seed, precision.document(), CHUNK)


def stored_labels(store: Store, stage: Stage, epochs: int, labeller: Labeller) -> StoredLabels:
    """The stage's labels, made once (resumable by chunks of ``CHUNK`` epochs)."""
    count = math.ceil(epochs / CHUNK)

    def make(out: Path) -> None:
        for index, file in enumerate(store.chunks(stage, count, lambda i, f: _chunk(i, f, epochs, labeller))):
            file.rename(out / f"epochs-{index:05d}.safetensors")

    folder = store.build(stage, make)
    return StoredLabels(sorted(folder.glob("epochs-*.safetensors")))


def labels_in(folder: Path, epochs: int, labeller: Labeller) -> StoredLabels:
    """Labels for one run without a store, in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"epochs-{i:05d}.safetensors" for i in range(math.ceil(epochs / CHUNK))]
    for index, file in enumerate(files):
        if not file.is_file():
            temporary = file.with_suffix(".tmp")
            _chunk(index, temporary, epochs, labeller)
            temporary.rename(file)
    return StoredLabels(files)


def _chunk(index: int, file: Path, epochs: int, labeller: Labeller) -> None:
    rows = [labeller.label_epoch(e).cpu() for e in range(index * CHUNK, min((index + 1) * CHUNK, epochs))]
    save_file({"logits": torch.stack(rows).contiguous()}, file)
