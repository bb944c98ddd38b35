"""Sets that ddbench writes are read back in order whatever the threads do, and refused when they are not as written."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from benchmark.core.errors import DataError
from benchmark.data.base import ArraySplit, Dataset
from benchmark.sets import folder as distilled
from benchmark.sets.folder import read_set, write_set

CLASSES = tuple(f"c{i:02d}" for i in range(30))


def make(tmp_path, channels=3, ipc=4):
    shape = (30, 8, 8, 3) if channels == 3 else (30, 8, 8)
    split = ArraySplit(np.zeros(shape, np.uint8), np.arange(30))
    dataset = Dataset("many", CLASSES, CLASSES, 8, channels, split, split, "x", (0.5,), (0.5,))
    pixels = np.random.default_rng(0).integers(0, 256, (30, ipc, 8, 8, channels), dtype=np.uint8)
    cells = ((c, i, pixels[c, i]) for c in range(30) for i in range(ipc))
    write_set(tmp_path / "set", dataset, ipc, cells, {"method": {"name": "toy"}})
    return tmp_path / "set", dataset, torch.from_numpy(pixels).flatten(0, 1).permute(0, 3, 1, 2)


@pytest.mark.parametrize("channels", [1, 3])
def test_read_back_in_order(tmp_path, monkeypatch, channels):
    root, dataset, pixels = make(tmp_path, channels)
    monkeypatch.setattr(distilled, "BATCH", 7)
    found = read_set(root, dataset)
    assert torch.equal(found.images, pixels) and found.ipc == 4
    assert found.labels.tolist() == [c for c in range(30) for _ in range(4)] and found.labels.dtype == torch.int64


def test_faults_are_named(tmp_path):
    root, dataset, _ = make(tmp_path)
    file = root / "c29" / "00003.png"
    whole = file.read_bytes()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file)
    with pytest.raises(DataError, match=r"c29/00003.png is not the image that was written"):
        read_set(root, dataset)
    manifest = json.loads((root / "manifest.json").read_text())
    for size, data, message in ((8, b"no image", "cannot be read as an image"), (9, whole, "the manifest says 9 px")):
        file.write_bytes(data)
        changed = {**manifest, "size": size}
        changed["files"] = {**manifest["files"], "c29/00003.png": distilled.digest_file(file)}
        (root / "manifest.json").write_text(json.dumps(changed))
        with pytest.raises(DataError, match=message):
            read_set(root, dataset)
    file.unlink()
    with pytest.raises(DataError, match="class 'c29' has 3 images, the manifest says 4"):
        read_set(root, dataset)
