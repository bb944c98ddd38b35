"""A dataset that a small network learns in a second: four kinds of stripes with noise, 8 px; fixtures of it."""

import numpy as np
import pytest

from benchmark.data import ArraySplit, Dataset


def easy_dataset(channels: int = 1, size: int = 8, train: int = 40, test: int = 25, name: str = "easy") -> Dataset:
    """Rows, columns, diagonals and a bright centre; ``train`` and ``test`` images a class."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[0:size, 0:size]
    center = (np.hypot(x - size / 2 + 0.5, y - size / 2 + 0.5) < size / 4).astype(float)
    kinds = [(y // 2) % 2, (x // 2) % 2, ((x + y) // 2) % 2, center]

    def split(count: int) -> ArraySplit:
        labels = np.repeat(np.arange(4), count)
        clean = np.stack([kinds[c] for c in labels]) * 150.0 + 50
        shape = clean.shape if channels == 1 else (*clean.shape, 3)
        noise = random.normal(0, 25, shape)
        pixels = (clean if channels == 1 else clean[..., None]) + noise
        return ArraySplit(np.clip(pixels, 0, 255).astype(np.uint8), labels)

    parts = split(train), split(test)
    values = parts[0].array.reshape(-1, channels) / 255
    mean, std = tuple(values.mean(0)), tuple(values.std(0))
    names = ("rows", "columns", "diagonals", "centre")
    return Dataset(name, names, names, size, channels, *parts, f"{name}-{channels}-{size}-{train}-{test}", mean, std)


@pytest.fixture(scope="session")
def easy():
    """One channel, 40 training and 25 test images a class."""
    return easy_dataset()


@pytest.fixture(scope="session")
def teacher(easy, tmp_path_factory):
    """A ConvNet-3 that has learned it, trained once a session."""
    from benchmark.core.store import Store
    from benchmark.teachers import get_teacher

    return get_teacher(Store(tmp_path_factory.mktemp("teacher")), easy, "convnet3_bn")


@pytest.fixture(scope="session")
def few(easy):
    """Five images a class, in class order, and their labels."""
    import torch

    index = [int(i) for c in easy.train.by_class for i in c[:5]]
    return easy.train.images(index), torch.from_numpy(easy.train.labels[index])
