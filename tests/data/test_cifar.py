"""CIFAR in the official batches (real format, made-up pixels, MD5 patched) and as an image tree."""

import hashlib
import pickle

import numpy as np
import pytest
import torchvision.datasets as tv
from PIL import Image

from benchmark.core.errors import DataError, UsageError
from benchmark.data import load_dataset, loading
from benchmark.data.registered import DATASETS

# The order printed in the table at www.cs.toronto.edu/~kriz/cifar.html.
OFFICIAL = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def pixels(count, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def dump(path, document):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(document, protocol=2))
    return [path.name, hashlib.md5(path.read_bytes()).hexdigest()]


def rows(images):  # a row is 1024 red, 1024 green, 1024 blue values
    return images.transpose(0, 3, 1, 2).reshape(len(images), 3072)


@pytest.fixture
def cifar10(tmp_path, monkeypatch):
    folder = tmp_path / "data" / "cifar-10-batches-py"
    train = []
    for batch in range(1, 6):
        document = {b"data".decode(): rows(pixels(20, batch)), "labels": [(i * 3 + batch) % 10 for i in range(20)]}
        train.append(dump(folder / f"data_batch_{batch}", document))
    test = [dump(folder / "test_batch", {"data": rows(pixels(20, 9)), "labels": [i % 10 for i in range(20)]})]
    md5 = dump(folder / "batches.meta", {"label_names": OFFICIAL})[1]
    monkeypatch.setattr(tv.CIFAR10, "train_list", train)
    monkeypatch.setattr(tv.CIFAR10, "test_list", test)
    monkeypatch.setattr(tv.CIFAR10, "meta", {**tv.CIFAR10.meta, "md5": md5})
    return tmp_path / "data"


def test_official_batches(cifar10):
    data = load_dataset("cifar10", str(cifar10))
    assert list(data.classes) == OFFICIAL and data.notes["format"] == "official"
    assert (len(data.train), len(data.test), data.image_size, data.channels) == (100, 20, 32, 3)
    np.testing.assert_array_equal(data.train.images([43])[0].numpy(), pixels(20, 3)[3].transpose(2, 0, 1))
    assert data.train.labels[43] == (3 * 3 + 3) % 10
    floats = data.train.images(range(100)).numpy() / 255
    np.testing.assert_allclose(data.mean, floats.mean((0, 2, 3)), rtol=1e-9)
    np.testing.assert_allclose(data.std, floats.std((0, 2, 3)), rtol=1e-9)


def test_tree_and_batches_are_told_apart(cifar10, tmp_path):
    official = load_dataset("cifar10", str(cifar10))
    tree = tmp_path / "tree" / "cifar10"
    for part, split in (("train", official.train), ("test", official.test)):
        for i in range(len(split)):
            folder = tree / part / OFFICIAL[split.labels[i]]
            folder.mkdir(parents=True, exist_ok=True)
            split.pil(i).save(folder / f"{i:04d}.jpg", quality=75)
    jpeg = load_dataset("cifar10", str(tmp_path / "tree"))
    assert jpeg.notes["format"] == "jpeg" and jpeg.digest != official.digest
    assert jpeg.classes == official.classes and jpeg.image_size == 32
    order = np.argsort(official.test.labels, kind="stable")
    np.testing.assert_array_equal(jpeg.test.labels, official.test.labels[order])
    both = tmp_path / "data" / "cifar10"
    tree.rename(both)
    loading._load.cache_clear()
    assert load_dataset("cifar10", str(cifar10)).digest == official.digest  # official ones are preferred


def test_damaged_batch_is_refused_before_it_is_unpickled(cifar10):
    path = cifar10 / "cifar-10-batches-py" / "data_batch_2"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match="MD5"):
        load_dataset("cifar10", str(cifar10))


def test_download_only_on_request(tmp_path, monkeypatch):
    asked = []

    def download(self):
        asked.append(str(self.root))
        raise OSError("no network in tests")

    monkeypatch.setattr(tv.CIFAR10, "download", download)
    with pytest.raises(Exception, match="is not there"):
        load_dataset("cifar10", str(tmp_path))
    assert not asked
    with pytest.raises(UsageError, match="needs a folder"):
        load_dataset("cifar10", download=True)
    with pytest.raises(OSError, match="no network"):
        load_dataset("cifar10", str(tmp_path), download=True)
    assert asked == [str(tmp_path)]
    with pytest.raises(UsageError, match="cannot be downloaded"):
        load_dataset("imagenet1k", str(tmp_path), download=True)


def test_cifar100(tmp_path, monkeypatch):
    names = [f"fine{i:02d}" for i in range(100)]
    folder = tmp_path / "cifar-100-python"
    fine = [(7 * i) % 100 for i in range(200)]
    document = {"data": rows(pixels(200, 1)), "fine_labels": fine, "coarse_labels": [i % 20 for i in range(200)]}
    monkeypatch.setattr(tv.CIFAR100, "train_list", [dump(folder / "train", document)])
    document = {"data": rows(pixels(100, 2)), "fine_labels": list(range(100)), "coarse_labels": [0] * 100}
    monkeypatch.setattr(tv.CIFAR100, "test_list", [dump(folder / "test", document)])
    md5 = dump(folder / "meta", {"fine_label_names": names, "coarse_label_names": ["x"] * 20})[1]
    monkeypatch.setattr(tv.CIFAR100, "meta", {**tv.CIFAR100.meta, "md5": md5})
    data = load_dataset("cifar100", str(tmp_path))
    assert data.train.labels.tolist() == fine and list(data.classes) == names
    assert list(data.folders) == names and (len(data.train), len(data.test)) == (200, 100)


def test_svhn(tmp_path, monkeypatch):
    from scipy.io import savemat

    listed = {}
    for part, seed in (("train", 1), ("test", 2)):
        images = pixels(20, seed)
        labels = np.array([[(i % 10) + 1] for i in range(20)], np.uint8)  # 1…10, where 10 means the digit 0
        path = tmp_path / "svhn" / f"{part}_32x32.mat"
        path.parent.mkdir(exist_ok=True)
        savemat(path, {"X": images.transpose(1, 2, 3, 0), "y": labels})
        listed[part] = [tv.SVHN.split_list[part][0], path.name, hashlib.md5(path.read_bytes()).hexdigest()]
    monkeypatch.setattr(tv.SVHN, "split_list", listed)
    data = load_dataset("svhn", str(tmp_path))
    assert data.train.labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0] * 2
    np.testing.assert_array_equal(data.test.images([4])[0].numpy(), pixels(20, 2)[4].transpose(2, 0, 1))
    path.write_bytes(path.read_bytes()[:-9])
    loading._load.cache_clear()
    with pytest.raises(DataError, match="MD5") as error:
        load_dataset("svhn", str(tmp_path))
    assert error.value.where == str(path)


def test_published_checksums_are_torchvisions():
    from benchmark.data.sources import SOURCES, facts

    md5 = {a.url.rsplit("/")[-1]: a.md5 for n, s in SOURCES.items() if n != "kmnist" for a in s.archives}
    assert md5["cifar-10-python.tar.gz"] == tv.CIFAR10.tgz_md5
    assert md5["cifar-100-python.tar.gz"] == tv.CIFAR100.tgz_md5
    assert all(md5[name] == digest for _, name, digest in (tv.SVHN.split_list[p] for p in ("train", "test")))
    assert all(md5[name] == digest for name, digest in tv.FashionMNIST.resources)
    assert md5["gzip.zip"] == tv.EMNIST.md5
    assert all(md5[url.rsplit("/")[-1]] == digest for url, digest in tv.Imagenette._ARCHIVES.values())
    assert all(md5[name] == digest for name, digest in tv.imagenet.ARCHIVE_META.values())
    assert ("images", "50,000 training and 10,000 test") in facts("cifar10") and len(facts("digits")) == 2
    assert set(SOURCES) == {info.name for info in DATASETS} - {"imagefolder:"}


def test_tree_keeps_png_apart(tmp_path):
    for part in ("train", "test"):
        for name in OFFICIAL:
            (tmp_path / part / name).mkdir(parents=True)
            Image.fromarray(pixels(1, 1)[0]).save(tmp_path / part / name / "a.png")
    assert load_dataset("cifar10", str(tmp_path)).notes["format"] == "png"
