"""VAE latents of the training images, encoded once, a class an artifact, and streamed from the store."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from benchmark.backbones.backbone import Backbone
from benchmark.backbones.stages import LATENTS_CHUNK, latents_stage
from benchmark.core.compute import generator
from benchmark.core.progress import Progress
from benchmark.core.store import Stage, Store
from benchmark.data.base import Dataset


class Encodable(Protocol):
    """What `class_latents` reads of a task."""

    store: Store
    dataset: Dataset

    @property
    def backbone(self) -> Backbone: ...


def moments_stage(dataset: Dataset, backbone: Backbone, class_index: int, resize: str = "bicubic") -> Stage:
    """The stage of one class's moments."""
    precision = backbone.precision.document()
    return latents_stage(
        dataset, class_index, backbone.vae_key, backbone.image_size, backbone.padding, precision, resize
    )


def class_moments(
    store: Store,
    dataset: Dataset,
    backbone: Backbone,
    class_index: int,
    bar: Progress | None = None,
    resize: str = "bicubic",
) -> list[Path]:
    """Files of the moments of one class, in order: each holds ``mean`` and ``std`` ``[<= 256, c, h, w]``.

    Float16 where the VAE runs in half precision, else float32. Made where missing; a kill costs one chunk.
    """
    stage = moments_stage(dataset, backbone, class_index, resize)
    positions = dataset.train.by_class[class_index]
    count = -(-len(positions) // LATENTS_CHUNK)
    half = backbone.vae.dtype in (torch.float16, torch.bfloat16) or backbone.precision.autocast is not None

    filtered = {} if resize == "bicubic" else {"resize": resize}  # not every split of a plug-in has a choice

    def encode(index: int, file: Path) -> None:
        chosen = positions[index * LATENTS_CHUNK : (index + 1) * LATENTS_CHUNK]
        images = dataset.train.images(chosen, backbone.content_size, backbone.channels, **filtered)
        mean, std = backbone.moments(images)
        kind = torch.float16 if half else torch.float32
        save_file({"mean": mean.to("cpu", kind).contiguous(), "std": std.to("cpu", kind).contiguous()}, file)

    def make(folder: Path) -> None:
        for index, file in enumerate(store.chunks(stage, count, encode)):
            shutil.copyfile(file, folder / f"{index:06d}.safetensors")

    folder = store.build(stage, make)
    if bar is not None:
        bar.update(len(positions))
    return sorted(folder.glob("*.safetensors"))


class Rows:
    """Rows of tensors that stay on disk: indexing with an int64 tensor reads those rows, and only those.

    The moments of ImageNet-1K at 256 px are 21 GB in half precision; mapped files cost address space, and the kernel
    drops their pages when memory is short.
    """

    def __init__(self, parts: list[np.ndarray], rows: np.ndarray | None = None) -> None:
        self.parts = parts
        self.ends = np.cumsum([len(part) for part in parts])
        self.rows = np.arange(self.ends[-1]) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: torch.Tensor) -> Rows:
        """Some of the rows, still on disk; ``rows`` is a mask or positions."""
        return Rows(self.parts, self.rows[rows.numpy()])

    def __getitem__(self, chosen: torch.Tensor) -> torch.Tensor:
        rows = self.rows[chosen.numpy()]
        found = np.empty((len(rows), *self.parts[0].shape[1:]), self.parts[0].dtype)
        for place, (row, part) in enumerate(zip(rows, np.searchsorted(self.ends, rows, side="right"))):
            found[place] = self.parts[part][row - self.ends[part]]  # from the end: ends[part] is its own end
        return torch.from_numpy(found)


def mapped(file: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file as read-only arrays mapped from it (float16 and float32).

    The format: 8 bytes of header length, the header (JSON: dtype, shape, byte range of each tensor), the bytes.
    """
    # torch's mapping closes the file; numpy's keeps it open, and ImageNet-1K has more files than a process may open
    whole = torch.from_file(str(file), shared=False, size=file.stat().st_size, dtype=torch.uint8).numpy()
    start = 8 + int(whole[:8].view("<u8")[0])
    header = json.loads(whole[8:start].tobytes())
    kinds = {"F16": "<f2", "F32": "<f4"}
    found = {}
    for name, about in header.items():
        if name != "__metadata__":
            first, last = (start + offset for offset in about["data_offsets"])
            found[name] = whole[first:last].view(kinds[about["dtype"]]).reshape(about["shape"])
    return found


def all_moments(store: Store, dataset: Dataset, backbone: Backbone) -> tuple[Rows, Rows, torch.Tensor, torch.Tensor]:
    """Moments of the whole training split, class by class: mean, std, dataset labels, positions in the split."""
    means, stds, labels = [], [], []
    with Progress(len(dataset.train), "backbone encode", "image") as bar:
        for index in range(len(dataset.classes)):
            for file in class_moments(store, dataset, backbone, index, bar):
                part = mapped(file)
                means.append(part["mean"])
                stds.append(part["std"])
                labels.append(torch.full((len(part["mean"]),), index, dtype=torch.long))
    positions = torch.cat([torch.from_numpy(p) for p in dataset.train.by_class])
    return Rows(means), Rows(stds), torch.cat(labels), positions


def class_latents(
    task: Encodable, class_index: int, sample: bool = True, chunk: int = 64, resize: str = "bicubic"
) -> Iterator[torch.Tensor]:
    """Scaled latents float32 ``[<= chunk, c, h, w]`` (CPU) of one class of ``task.train``, in order.

    Encoded once into the store, then read. With ``sample`` each is a draw from the VAE's posterior, from a generator
    of (class, index) alone: the same draw whatever the chunk size, the process, or the subset that the class is in.
    ``resize`` is the filter that brings larger images to the backbone's size: bicubic or bilinear.
    """
    first, left, name = 0, None, task.dataset.backbone_class(class_index)
    for file in class_moments(task.store, task.dataset, task.backbone, class_index, resize=resize):
        part = load_file(file)
        latents = part["mean"].float()
        if sample:
            std = part["std"].float()
            for row in range(len(latents)):
                draw = generator("posterior", name, first + row)
                latents[row] += std[row] * torch.randn(std[row].shape, generator=draw)
        first += len(latents)
        left = latents if left is None else torch.cat([left, latents])
        while len(left) >= chunk:
            yield left[:chunk]
            left = left[chunk:]
    if left is not None and len(left):
        yield left
