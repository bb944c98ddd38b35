"""The contract of a dataset: two splits of labelled images, a fixed class order, a content digest."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from PIL import Image

from benchmark.data.withheld import Withheld

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


class Split:
    """Labelled images, read on demand. Subclasses define ``labels`` and :meth:`pil`."""

    labels: np.ndarray  # int64 [n], positions in the dataset's class order

    def __init__(self, channels: int, image_size: int) -> None:
        self.channels, self.image_size = channels, image_size

    def __len__(self) -> int:
        return len(self.labels)

    def pil(self, index: int) -> Image.Image:
        """The image as stored, any size, mode ``L`` (1 channel) or ``RGB`` (3).

        Raises:
            DataError: the file cannot be read as an image; names the file.
        """
        raise NotImplementedError

    @cached_property
    def by_class(self) -> list[np.ndarray]:
        """For each class the positions of its images, ascending."""
        order = np.argsort(self.labels, kind="stable")
        counts = np.bincount(self.labels)
        return np.split(order, np.cumsum(counts)[:-1])

    def rows_digest(self, indices: Sequence[int]) -> str:
        """SHA-256 of some images in the order given, whatever their labels, their split and what else is in it."""
        sha = hashlib.sha256()
        for image in self.map(lambda image: image, indices):
            sha.update(f"{image.mode} {image.size}".encode())
            sha.update(image.tobytes())
        return sha.hexdigest()

    def class_digest(self, label: int) -> str:
        """`rows_digest` of the images of one class: all that work on this class alone depends on."""
        if label not in self._class_digests:
            self._class_digests[label] = self.rows_digest(self.by_class[label])
        return self._class_digests[label]

    @cached_property
    def _class_digests(self) -> dict[int, str]:
        return {}

    def map(self, function: Callable[[Image.Image], T], indices: Sequence[int]) -> Iterator[T]:
        """``function`` of each image as stored, in order; splits of files read and apply it in several threads."""
        for index in indices:
            yield function(self.pil(int(index)))

    def images(
        self, indices: Sequence[int], size: int | None = None, channels: int | None = None, resize: str = "bicubic"
    ) -> torch.Tensor:
        """Images as uint8 ``[n, C, size, size]``: shorter side resized by PIL's filter ``resize``, centre cropped."""
        import torch

        size, channels = size or self.image_size, channels or self.channels
        mode = "L" if channels == 1 else "RGB"
        out = torch.empty(len(indices), channels, size, size, dtype=torch.uint8)
        for row, index in enumerate(indices):
            array = np.asarray(resize_crop(self.pil(int(index)).convert(mode), size, FILTERS[resize]))
            out[row] = torch.from_numpy(array.copy()).view(size, size, channels).permute(2, 0, 1)
        return out


FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}  # antialiased, both


def resize_crop(image: Image.Image, size: int, resample: Image.Resampling = Image.Resampling.BICUBIC) -> Image.Image:
    """Resize so that the shorter side is ``size`` and crop the centre; a square image of that size is untouched."""
    width, height = image.size
    if (width, height) == (size, size):
        return image
    scale = size / min(width, height)
    width, height = max(size, round(width * scale)), max(size, round(height * scale))
    image = image.resize((width, height), resample)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


class ArraySplit(Split):
    """Images that fit in memory: uint8 ``[n, H, W]`` or ``[n, H, W, 3]``."""

    def __init__(self, array: np.ndarray, labels: np.ndarray) -> None:
        assert array.dtype == np.uint8 and len(array) == len(labels), (array.dtype, array.shape, labels.shape)
        super().__init__(1 if array.ndim == 3 else 3, array.shape[1])
        self.array, self.labels = array, labels.astype(np.int64)

    def pil(self, index: int) -> Image.Image:
        return Image.fromarray(self.array[index])

    def rows_digest(self, indices: Sequence[int]) -> str:
        rows = np.ascontiguousarray(self.array[np.asarray(indices, dtype=np.int64)])
        return hashlib.sha256(f"{rows.shape}".encode() + rows.tobytes()).hexdigest()

    def images(
        self, indices: Sequence[int], size: int | None = None, channels: int | None = None, resize: str = "bicubic"
    ) -> torch.Tensor:
        import torch

        if (size or self.image_size) != self.image_size or (channels or self.channels) != self.channels:
            return super().images(indices, size, channels, resize)
        chosen = torch.from_numpy(self.array[np.asarray(indices, dtype=np.int64)])
        return chosen[:, None] if self.channels == 1 else chosen.permute(0, 3, 1, 2).contiguous()


@dataclass
class Dataset:
    """A dataset as the rest of the harness sees it.

    Attributes:
        name: as on the command line.
        classes: human-readable class names in label order.
        folders: a folder name a class that sorts in label order (wnids on ImageNet).
        image_size: side in pixels at which students are trained and distilled sets are stored.
        channels: 1 or 3.
        digest: SHA-256 of the content (labels and images), or of the file list with sizes where hashing everything
            would take minutes (then ``doctor`` checks in full).
        mean, std: per channel, of pixel values in 0..1, from the training split.
        test: what students are tested on. Methods are handed a dataset :meth:`without_test`.
        backbone_classes: ImageNet-1K label of each class, for ImageNet-1K and subsets of it (what a pretrained DiT or
            classifier calls it), else None.
        whole, chosen: of some classes of a dataset (`benchmark.data.classes`) that dataset and its labels of them.
    """

    name: str
    classes: tuple[str, ...]
    folders: tuple[str, ...]
    image_size: int
    channels: int
    train: Split
    test: Split
    digest: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    backbone_classes: tuple[int, ...] | None = None
    notes: dict[str, str] = field(default_factory=dict)
    whole: Dataset | None = None
    chosen: tuple[int, ...] = ()

    def backbone_class(self, label: int) -> int:
        """The number of a class that subsets share: its ImageNet-1K label where it has one, else ``label`` itself."""
        if self.whole is not None:
            return self.whole.backbone_class(self.chosen[label])
        return label if self.backbone_classes is None else int(self.backbone_classes[label])

    def __post_init__(self) -> None:
        """Labels and pixels in memory become read-only: all jobs of a process share them."""
        for split in (self.train, self.test):
            for value in vars(split).values():
                if isinstance(value, np.ndarray):
                    value.setflags(write=False)
        self._labels = self._fingerprint()

    def changed(self) -> str:
        """What somebody changed in the dataset since it was loaded: ``the labels``, or nothing."""
        return "" if self._fingerprint() == self._labels else "the labels"

    def _fingerprint(self) -> list[int]:
        labels = (vars(split).get("labels") for split in (self.train, self.test))
        return [zlib.crc32(np.ascontiguousarray(found)) for found in labels if isinstance(found, np.ndarray)]

    def without_test(self) -> Dataset:
        """This dataset with a test split that raises :class:`benchmark.data.withheld.WithheldError` when touched.

        It is what methods and the training of teachers are handed. Name, digest and training split are the same.
        """
        whole = self.whole.without_test() if self.whole is not None else None
        return dataclasses.replace(self, test=Withheld(), whole=whole)  # type: ignore[arg-type]


def plain_name(name: str) -> str:
    """The dataset that ``NAME@val`` is held out of and ``NAME@10classes`` a part of: recipes and settings are one."""
    return re.sub(r"(@val|@\d+classes)+$", "", name)


def folder_names(classes: Sequence[str]) -> tuple[str, ...]:
    """Folder names that sort in class order: the names themselves where they do, else with a numeric prefix."""
    import re

    slugs = [re.sub(r"[^A-Za-z0-9._-]+", "_", c) or "_" for c in classes]
    if slugs == sorted(slugs) and len(set(slugs)) == len(slugs):
        return tuple(slugs)
    width = max(2, len(str(len(slugs) - 1)))
    return tuple(f"{i:0{width}d}_{slug}" for i, slug in enumerate(slugs))
