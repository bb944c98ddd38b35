"""Sets from elsewhere that are made to harm: refused with a `DataError` or `MissingError` that names the file."""

import contextlib
import hashlib
import json
import os
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from benchmark.core.errors import DataError, MissingError
from benchmark.data import load_dataset
from benchmark.data.packed import find_shards
from benchmark.sets.card import export
from benchmark.sets.folder import write_set
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


@pytest.fixture
def shipped(tmp_path):
    """A prepared set: its manifest, and what somebody wants to reach with it."""
    folder = tmp_path / "ship" / "a" / "set"
    images = [(c, 0, np.full((8, 8, 1), 20 * c, np.uint8)) for c in range(10)]
    folder.mkdir(parents=True)
    meta = {"method": {"name": "d3hr", "version": 1, "params": {}}, "seed": 0, "backbone": None, "ddbench": "0.1"}
    write_set(folder, load_dataset("digits"), 1, images, meta)
    for place in (tmp_path, tmp_path / "home"):
        place.mkdir(exist_ok=True)
        (place / "mine").write_text("mine")
    return folder


@pytest.mark.parametrize("name", ["../../mine", "../../../home/mine", "/mine", "a/../../mine", "", "0/..", 3])
def test_an_export_writes_nothing_outside_its_folder(name, shipped, tmp_path):
    """As the review did: the manifest names a file outside with its right digest."""
    manifest = json.loads((shipped / "manifest.json").read_text())
    payload = b"payload\n"
    if isinstance(name, str) and name:
        goal = (shipped / name.lstrip("/")).resolve()
        if goal.is_relative_to(tmp_path / "ship") and not goal.is_dir():
            goal.write_bytes(payload)
    manifest["files"][str(name) if name == 3 else name] = hashlib.sha256(payload).hexdigest()
    (shipped / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError):
        export(shipped, tmp_path / "home" / "x" / "exported")
    assert (tmp_path / "home" / "mine").read_text() == "mine" and not (tmp_path / "home" / "x" / "exported").exists()
    assert [p.name for p in (tmp_path / "home").rglob("*") if p.is_file()] == ["mine"]


@pytest.mark.parametrize("victim", ["contact_sheet.png", "0/00000.png", "README.md"])
def test_an_export_copies_nothing_that_a_link_points_at(victim, shipped, tmp_path):
    (shipped / victim).unlink(missing_ok=True)
    (shipped / victim).symlink_to(tmp_path / "home" / "mine")
    with contextlib.suppress(DataError):
        export(shipped, tmp_path / "exported")
    found = [p for p in (tmp_path / "exported").rglob("*") if p.is_file()] if (tmp_path / "exported").exists() else []
    assert not [p for p in found if p.is_symlink() or p.read_bytes() == b"mine"]


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
