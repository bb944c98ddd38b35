"""MNIST's file format: Fashion-MNIST, KMNIST and EMNIST, each known by its content."""

import gzip
import struct
from dataclasses import replace

import numpy as np
import pytest

from benchmark.core.errors import DataError
from benchmark.data import idx, load_dataset, loading, sources


def write(folder, *, per_class=(3, 2), zipped=True):
    """Four IDX files with ``per_class`` images a class of train and test; pixel 0 of each image is its label."""
    folder.mkdir(parents=True)
    for stem, count in (("train", per_class[0]), ("t10k", per_class[1])):
        labels = np.tile(np.arange(10, dtype=np.uint8), count)
        images = np.random.default_rng(count).integers(0, 256, (len(labels), 28, 28), dtype=np.uint8)
        images[:, 0, 0] = labels
        parts = {
            f"{stem}-images-idx3-ubyte": struct.pack(">4B3I", 0, 0, 8, 3, len(labels), 28, 28) + images.tobytes(),
            f"{stem}-labels-idx1-ubyte": struct.pack(">4BI", 0, 0, 8, 1, len(labels)) + labels.tobytes(),
        }
        for name, data in parts.items():
            path = folder / (f"{name}.gz" if zipped else name)
            path.write_bytes(gzip.compress(data) if zipped else data)
    return folder


@pytest.fixture(autouse=True)
def no_debian(tmp_path, monkeypatch):
    monkeypatch.setattr(idx, "DEBIAN", tmp_path / "debian")
    monkeypatch.setitem(idx.KINDS, "fashionmnist", replace(idx.KINDS["fashionmnist"], digest=""))


def test_another_dataset_in_the_same_files_is_refused(tmp_path, monkeypatch):
    write(tmp_path / "data")
    monkeypatch.undo()
    with pytest.raises(DataError, match="not Fashion-MNIST") as error:
        load_dataset("fashionmnist", str(tmp_path / "data"))
    assert "KMNIST" in error.value.hint


@pytest.mark.parametrize("inner, zipped", [("FashionMNIST/raw", True), ("", True), ("FashionMNIST/raw", False)])
def test_layouts_agree_with_torchvision(tmp_path, inner, zipped):
    root = tmp_path / "data"
    write(root / inner, zipped=zipped)
    data = load_dataset("fashionmnist", str(root))
    assert (len(data.train), len(data.test), data.channels, data.image_size) == (30, 20, 1, 28)
    np.testing.assert_array_equal(data.train.images(range(30)).numpy()[:, 0, 0, 0], data.train.labels)
    if inner and not zipped:
        from torchvision.datasets import FashionMNIST

        theirs = FashionMNIST(str(root), train=False)
        np.testing.assert_array_equal(theirs.data.numpy(), data.test.images(range(20)).numpy()[:, 0])
        assert theirs.targets.tolist() == data.test.labels.tolist()
        assert [c.split("/")[0] for c in theirs.classes] == list(data.classes)


def test_debians_package_is_found_without_a_flag(tmp_path):
    write(tmp_path / "debian")
    write(tmp_path / "other", per_class=(2, 1))
    debian, given = load_dataset("fashionmnist"), load_dataset("fashionmnist", str(tmp_path / "other"))
    assert (len(debian.train), len(given.train)) == (30, 20) and debian.digest != given.digest


@pytest.mark.parametrize("fault", ["cut gzip", "not gzip", "cut data", "labels short"])
def test_damaged_file_is_named(tmp_path, fault):
    write(tmp_path / "debian")
    path = tmp_path / "debian" / "t10k-images-idx3-ubyte.gz"
    raw = gzip.decompress(path.read_bytes())
    if fault == "labels short":
        path = tmp_path / "debian" / "t10k-labels-idx1-ubyte.gz"
        path.write_bytes(gzip.compress(struct.pack(">4BI", 0, 0, 8, 1, 10) + bytes(range(10))))
    else:
        path.write_bytes(
            {"cut gzip": path.read_bytes()[:5000], "not gzip": raw, "cut data": gzip.compress(raw[:-100])}[fault]
        )
    with pytest.raises(DataError) as error:
        load_dataset("fashionmnist")
    assert "debian" in error.value.where and (fault == "labels short" or error.value.where == str(path))


def test_kmnist_is_known_by_its_md5(tmp_path, monkeypatch):
    import hashlib

    from torchvision.datasets import KMNIST

    from benchmark.data.sources import SOURCES

    source = SOURCES["kmnist"]
    assert [(a.url.rpartition("/")[2], a.md5) for a in source.archives] == KMNIST.resources
    folder = write(tmp_path / "data" / "kmnist")
    with pytest.raises(DataError, match="is not KMNIST's"):
        load_dataset("kmnist", str(tmp_path / "data"))
    names = [(a, folder / a.url.rpartition("/")[2]) for a in source.archives]
    changed = tuple(replace(a, md5=hashlib.md5(file.read_bytes()).hexdigest()) for a, file in names)
    monkeypatch.setitem(SOURCES, "kmnist", replace(source, archives=changed))
    data = load_dataset("kmnist", str(tmp_path / "data"))
    assert (len(data.train), len(data.test), data.classes[9]) == (30, 20, "wo")


@pytest.mark.parametrize(("inner", "suffix"), [("EMNIST/raw", ""), ("gzip", ".gz")])
def test_emnist_is_read_upright(tmp_path, monkeypatch, inner, suffix):
    """torchvision unpacks the archive's files; their images are transposed, and the labels of letters begin at 1."""
    from torchvision.datasets import EMNIST

    source = replace(sources.SOURCES["emnist-letters"], train=52, test=26)
    monkeypatch.setitem(sources.SOURCES, "emnist-letters", source)
    folder = tmp_path / "data" / inner
    folder.mkdir(parents=True)
    for part, count in (("train", 2), ("test", 1)):
        labels = np.tile(np.arange(1, 27, dtype=np.uint8), count)
        images = np.random.default_rng(count).integers(0, 256, (len(labels), 28, 28), dtype=np.uint8)
        for kind, data in (("images-idx3", images), ("labels-idx1", labels)):
            raw = struct.pack(f">4B{data.ndim}I", 0, 0, 8, data.ndim, *data.shape) + data.tobytes()
            file = folder / f"emnist-letters-{part}-{kind}-ubyte{suffix}"
            file.write_bytes(gzip.compress(raw) if suffix else raw)
    data = load_dataset("emnist-letters", str(tmp_path / "data"))
    assert len(data.train) == 52 and data.classes[0] == "a" and data.test.labels.tolist() == list(range(26))
    if not suffix:
        theirs = EMNIST(str(tmp_path / "data"), "letters", train=False)
        assert [theirs.classes[i] for i in theirs.targets] == [data.classes[i] for i in data.test.labels]
        np.testing.assert_array_equal(theirs.data.numpy().transpose(0, 2, 1), data.test.images(range(26)).numpy()[:, 0])
    monkeypatch.setitem(sources.SOURCES, "emnist-letters", replace(source, train=124_800))
    loading._load.cache_clear()
    with pytest.raises(DataError, match=r"images \(52, 28, 28\)") as error:
        load_dataset("emnist-letters", str(tmp_path / "data"))
    assert "124,800" in error.value.allowed
