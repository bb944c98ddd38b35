"""Files of a few bytes that say they hold terabytes, or do: refused before the memory is spent."""

import gzip
import io
import struct
import tarfile
import zipfile

import numpy as np
import pytest
import torch

from benchmark.core import archives
from benchmark.core.errors import DataError
from benchmark.data import load_dataset, packed
from benchmark.data.arrays import load_npz
from benchmark.data.idx import KINDS, read_idx
from benchmark.data.imagenet import flat_labels
from benchmark.data.packed import read_index
from benchmark.sets.tensors import read_tensors
from benchmark.teachers.external import read_weights

NAMES = ("train_images", "train_labels", "test_images", "test_labels")


@pytest.fixture
def free(monkeypatch):
    """One megabyte of memory."""
    for module in (archives, packed):
        monkeypatch.setattr(module, "available_memory", lambda: 1_000_000)


def zipped(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert path.stat().st_size < 100_000
    return path


READERS = {
    "set.npz": lambda path: read_tensors(path, load_dataset("digits")),
    "set.pt": lambda path: read_tensors(path, load_dataset("digits")),
    "weights.pth": read_weights,
    "data.npz": lambda path: load_npz("data", path),
}


@pytest.mark.parametrize("name", READERS)
def test_a_zip_of_more_than_memory_is_refused(name, tmp_path, free):
    path = zipped(tmp_path / name, {f"{n}.npy": bytes(2_000_000) for n in (*NAMES, "images", "archive/data/0")})
    with pytest.raises(DataError, match="members take 0.0 GB") as error:
        READERS[name](path)
    assert name in str(error.value)


def npy(shape, dtype="|u1", content=b"12345678"):
    header = str({"descr": dtype, "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


@pytest.mark.parametrize(
    "array",
    [
        npy((10**13,)),
        npy((10**9, 10**9)),
        npy((2, -4)),
        npy((8,), "|O"),
        npy((9,)),
        b"",
        b"\x93NUMPY\x09\x00",
        b"x" * 99,
    ],
)
@pytest.mark.parametrize("name", ["set.npz", "data.npz"])
def test_an_array_that_is_not_as_large_as_it_says_is_refused(name, array, tmp_path):
    path = zipped(tmp_path / name, {f"{n}.npy": array for n in (*NAMES, "images", "labels")})
    with pytest.raises(DataError, match="cannot be read") as error:
        READERS[name](path)
    assert name in str(error.value)


def test_whole_arrays_pass(tmp_path):
    arrays = {"a": np.arange(6).reshape(2, 3), "b": np.zeros((0, 4), np.float32), "c": np.float64(2), "d": np.eye(3).T}
    np.savez_compressed(tmp_path / "x.npz", **arrays)
    found = archives.read_npz(tmp_path / "x.npz")
    assert set(found) == set(arrays) and all(np.array_equal(found[n], arrays[n]) for n in arrays)
    torch.save({"w": torch.zeros(2)}, tmp_path / "w.pt")
    assert read_weights(tmp_path / "w.pt")[0]["w"].shape == (2,)


def test_a_gzip_file_is_read_no_further_than_it_should_reach(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmark.data.idx.MOST", 100_000)
    stem = KINDS["fashionmnist"].stems[0]
    (tmp_path / f"{stem}.gz").write_bytes(gzip.compress(b"\x00\x00\x08\x01" + bytes(10**7)))
    with pytest.raises(DataError, match="more than it should"):
        read_idx(tmp_path, stem)


def tar_of(path, members, mode="w:"):
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def header(name, size, kind):
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def test_tars_that_say_more_than_they_hold_are_refused(tmp_path):
    inner = tar_of(tmp_path / "inner", {"a.jpg": b"x"}).read_bytes()
    twice = tar_of(tmp_path / "twice", {"b.tar": inner}).read_bytes()
    (tmp_path / "train-0.tar").write_bytes(twice)
    tar_of(tmp_path / "train-1.tar", {"c.tar": twice})
    (tmp_path / "train-2.tar").write_bytes(header("x", 10**15, tarfile.XHDTYPE) + bytes(1024))
    (tmp_path / "train-3.tar").write_bytes(header("a.jpg", 10**15, tarfile.REGTYPE) + bytes(1024))
    (tmp_path / "train-4.tar").write_bytes(header("a.cls", 10**15, tarfile.GNUTYPE_LONGNAME) + bytes(1024))
    for number in range(1, 5):
        with pytest.raises(DataError, match="cannot be read as a tar") as error:
            read_index([tmp_path / f"train-{number}.tar"], lambda labels, names: np.zeros(len(labels), np.int64))
        assert f"train-{number}.tar" in str(error.value)


def test_the_devkit_is_read_no_further_than_it_should_reach(tmp_path):
    archive = tmp_path / "ILSVRC2012_devkit_t12.tar.gz"
    folder = "ILSVRC2012_devkit_t12/data"
    large = {f"{folder}/meta.mat": bytes(65 << 20)}
    for members, words in ((large, "68,157,440 bytes"), ({}, "no ILSVRC"), ({f"{folder}/meta.mat": b"x"}, "no ILSVRC")):
        tar_of(archive, members, "w:gz")
        with pytest.raises(DataError, match=words):
            flat_labels(tmp_path)
    archive.write_bytes(b"\x1f\x8b\x08\x00broken")
    with pytest.raises(DataError, match="cannot be read"):
        flat_labels(tmp_path)


def parquet(path, rows, image):
    pyarrow, written = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"image": [image] * rows, "label": [0] * rows})
    written.write_table(table, path, compression="zstd")
    assert path.stat().st_size < 200_000
    return path


def labels_of(labels, names):
    return np.zeros(len(labels), np.int64)


def test_parquet_files_that_unpack_to_more_than_they_should_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(packed, "SMALL", 1_000_000)
    many = parquet(tmp_path / "train-many.parquet", 4000, np.random.default_rng(0).bytes(3000))  # one image, 4000 times
    with pytest.raises(DataError, match="unpacks to more than"):
        read_index([many], labels_of)
    for module in (archives, packed):
        monkeypatch.setattr(module, "available_memory", lambda: 1_000_000)
    large = parquet(tmp_path / "train-large.parquet", 1, bytes(3_000_000))
    with pytest.raises(DataError, match="pages of a row group take"):
        read_index([large], labels_of)
    assert not [f for f in (tmp_path / "cache").rglob("*") if f.suffix == ".bin"]
