"""Sets from elsewhere that are made to harm: refused with a `DataError` or `MissingError` that names the file."""

import os
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from benchmark.core.errors import DataError, MissingError
from benchmark.data import load_dataset
from benchmark.data.packed import find_shards
from benchmark.sets.released import read_released
from benchmark.sets.tensors import read_tensors

IMAGES, LABELS = torch.rand(10, 1, 8, 8), torch.arange(10)
TENSORS = {
    "sparse": (IMAGES.to_sparse(), LABELS),
    "without data": (torch.empty(10, 1, 8, 8, device="meta"), LABELS),
    "complex": (IMAGES.to(torch.complex64), LABELS),
    "complex labels": (IMAGES, LABELS.to(torch.complex64)),
    "labels without data": (IMAGES, torch.empty(10, device="meta")),
    "one number said to be 36 thousand million": (torch.zeros(1).expand(10, 1, 60000, 60000), LABELS),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_that_are_no_images_are_refused(name, tmp_path):
    images, labels = TENSORS[name]
    torch.save({"images": images, "labels": labels}, tmp_path / "set.pt")
    with pytest.raises(DataError, match="the (images|labels) .*are|take") as error:
        read_tensors(tmp_path / "set.pt", load_dataset("digits"))
    assert "set.pt" in str(error.value)


@pytest.mark.parametrize("array", [np.array(["a"] * 10), np.zeros(10, "M8[s]"), np.zeros(10, [("a", "i4")])])
def test_arrays_that_are_no_numbers_are_refused(array, tmp_path):
    np.savez(tmp_path / "set.npz", images=IMAGES.numpy(), labels=array)
    with pytest.raises(DataError, match="the labels are"):
        read_tensors(tmp_path / "set.npz", load_dataset("digits"))


def test_a_released_folder_leads_nowhere_else(tmp_path):
    for label in range(10):
        (tmp_path / "real" / str(label)).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "real" / str(label) / "0.png")
    assert len(read_released(tmp_path / "real", load_dataset("digits"))[0]) == 10
    for name, target in (("circle", "."), ("out", tmp_path / "real")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").symlink_to(target)
        with pytest.raises(MissingError, match="no images"):
            read_released(tmp_path / name, load_dataset("digits"))


def test_images_that_do_not_fit_into_memory_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    for label in range(10):
        (tmp_path / str(label)).mkdir()
        Image.new("L", (100, 100)).save(tmp_path / str(label) / "0.png")
    monkeypatch.setattr(sys.modules[read_released.__module__], "available_memory", lambda: 199_999)
    with pytest.raises(DataError, match="take 0.0 GB"):
        read_released(tmp_path, load_dataset("digits"))


@pytest.mark.timeout(20)
@pytest.mark.parametrize("suffix", [".tar", ".parquet"])
def test_a_fifo_named_as_a_shard_is_none(suffix, tmp_path):
    for part in ("train", "test"):
        os.mkfifo(tmp_path / f"{part}-0{suffix}")
    assert find_shards([tmp_path]) is None
