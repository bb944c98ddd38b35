"""The same images in folders, in parquet (written by pyarrow) and in tars: one digest, one order; half-written ones."""

import io
import json
import tarfile

import numpy as np
import pytest
from imagenet_tree import build, flat_val, write_devkit, write_jpeg
from PIL import Image
from speed.bench_shards import sets_of
from test_cifar import OFFICIAL, cifar10, pixels  # noqa: F401 - a fixture

from benchmark.core.errors import DataError, MissingError, UsageError
from benchmark.data import load_dataset, loading
from benchmark.data.imagenet import IMAGENETTE
from benchmark.data.wordnet import imagenet_wnids

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(path, images, labels, *, names=None, image="image", label="label", classes=(), paths=None):
    """As `datasets` writes it: a struct of bytes and path, the class names in the schema's metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"bytes": data, "path": paths[i] if paths else None} for i, data in enumerate(images)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({image: pa.array(rows, kind), label: pa.array(labels, pa.int64())})
    features = {"info": {"features": {label: {"names": list(classes), "_type": "ClassLabel"}}}}
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(features)}), path, row_group_size=7)


def add(tar, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def test_cifar10_in_parquet_is_the_official_one(cifar10, tmp_path, monkeypatch):  # noqa: F811
    from benchmark.data import cifar

    official = load_dataset("cifar10", str(cifar10))
    monkeypatch.setattr(cifar, "FIRST_LABELS", tuple(official.train.labels[:10].tolist()))
    blocks = np.arange(100).reshape(5, 20)[[3, 2, 1, 4, 0]].ravel()  # data_batch_4, 3, 2, 5, 1
    for part, split, order in (("train", official.train, blocks), ("test", official.test, range(20))):
        images = [png(np.asarray(split.pil(int(i)))) for i in order]
        file = tmp_path / "hf" / "cifar10" / "plain_text" / f"{part}-00000-of-00001.parquet"
        write_parquet(file, images, split.labels[list(order)], image="img", classes=OFFICIAL)
    data = load_dataset("cifar10", str(tmp_path / "hf"))
    assert data.digest == official.digest and data.notes["format"] == "parquet"
    assert data.train.class_digest(3) == official.train.class_digest(3)  # `random` draws the same images
    assert data.mean == official.mean


def test_a_parquet_file_of_another_dataset_is_refused(tmp_path):
    for part in ("train", "test"):
        images = [png(p) for p in pixels(10, 1)]
        write_parquet(tmp_path / f"{part}-00000-of-00001.parquet", images, range(10), classes=[*OFFICIAL[:9], "lorry"])
    with pytest.raises(DataError, match="lorry|classes airplane") as error:
        load_dataset("cifar10", str(tmp_path))
    assert "airplane" in error.value.allowed


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """ImageNet-1K's layout and names with a dot in the place of each image: a second to write."""
    base = tmp_path_factory.mktemp("tree") / "imagenet1k"
    for label, wnid in enumerate(imagenet_wnids()):
        for part, count, name in (
            ("train", 2, f"{wnid}_{{}}"),
            ("val", 1, f"ILSVRC2012_val_{7 * label % 1000 + 1:08d}"),
        ):
            (base / part / wnid).mkdir(parents=True)
            for i in range(count if wnid in IMAGENETTE else 1):
                colour = (label % 250, label // 4 % 250, 100 * i + 9)
                write_jpeg(base / part / wnid / f"{name.format(i + 9)}.JPEG", Image.new("RGB", (9, 8), colour))
    return base


def files(base, part):
    """(wnid, name, bytes) of a split in an order that is not the labels'."""
    found = sorted((base / part).glob("*/*.JPEG"))
    return [
        (found[i].parent.name, found[i].name, found[i].read_bytes())
        for i in np.random.default_rng(0).permutation(len(found))
    ]


def hugging_face(base, target):
    for part, ours in (("train", "train"), ("val", "validation")):
        rows = files(base, part)
        half = len(rows) // 2
        for shard, some in enumerate((rows[:half], rows[half:])):
            labels = [imagenet_wnids().index(wnid) for wnid, _, _ in some]
            paths = [name.replace(".JPEG", f"_{wnid}.JPEG") for wnid, name, _ in some]
            write_parquet(
                target / "data" / f"{ours}-0000{shard}-of-00002.parquet", [r[2] for r in some], labels, paths=paths
            )


def webdataset(base, target):
    target.mkdir(parents=True)
    for part, ours in (("train", "train"), ("val", "validation")):
        rows = files(base, part)
        for shard in range(2):
            with tarfile.open(target / f"imagenet1k-{ours}-000{shard}.tar", "w") as tar:
                for wnid, name, data in rows[shard::2]:
                    stem = name.removesuffix(".JPEG")
                    add(tar, f"{stem}.cls", str(imagenet_wnids().index(wnid)).encode())
                    add(tar, f"{stem}.jpg", data)


def official_tars(base, target):
    target.mkdir(parents=True)
    with tarfile.open(target / "ILSVRC2012_img_train.tar", "w") as tar:
        for wnid in imagenet_wnids():
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as inner:
                for file in (base / "train" / wnid).iterdir():
                    add(inner, file.name, file.read_bytes())
            add(tar, f"{wnid}.tar", buffer.getvalue())
    with tarfile.open(target / "ILSVRC2012_img_val.tar", "w") as tar:
        for _, name, data in files(base, "val"):
            add(tar, name, data)
    write_devkit(target, flat_val(base, target.parent / "flat"))


@pytest.mark.parametrize("write", [hugging_face, webdataset, official_tars])
def test_imagenet_in_shards_is_the_tree(tree, tmp_path, write):
    folders = load_dataset("imagenet1k", str(tree.parent))
    write(tree, tmp_path / "packed" / "imagenet1k")
    packed = load_dataset("imagenet1k", str(tmp_path / "packed"))
    assert packed.digest == folders.digest and packed.notes["container"] in ("parquet", "tar")
    assert packed.train.class_digest(7) == folders.train.class_digest(7)
    chosen = [0, 3, 700, 1009]
    assert (packed.train.images(chosen, size=32) == folders.train.images(chosen, size=32)).all()
    some = load_dataset("imagenette", str(tmp_path / "packed"))
    assert some.digest == load_dataset("imagenette", str(tree.parent)).digest
    assert len(some.train) == 20 and some.folders == IMAGENETTE
    roots, options = (tree.parent, tmp_path / "packed"), {"classes": "0-2", "image_size": 8}
    small = [load_dataset("imagenette", str(root), **options) for root in roots]
    assert small[0].digest == small[1].digest
    sets = [sets_of(dataset, tmp_path / str(i)) for i, dataset in enumerate(small)]
    assert sets[0] == sets[1] and sets[0]["random"] != sets[0]["d3hr"]
    loading._load.cache_clear()
    assert load_dataset("imagenet1k", str(tmp_path / "packed")).digest == folders.digest  # from the remembered index


def test_labels_in_another_order_are_refused(tmp_path):
    tree = build(tmp_path / "tree" / "imagenette", wnids=IMAGENETTE, odd=False)
    for part, ours in (("train", "train"), ("val", "validation")):
        rows = files(tree, part)
        labels = [9 - IMAGENETTE.index(wnid) for wnid, _, _ in rows]
        target = tmp_path / "hf" / "imagenette" / f"{ours}-00000-of-00001.parquet"
        write_parquet(target, [r[2] for r in rows], labels, paths=[f"{w}_{n}" for w, n, _ in rows])
    with pytest.raises(DataError, match="says n") as error:
        load_dataset("imagenette", str(tmp_path / "hf"))
    assert "another order" in error.value.hint


def half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("write", [hugging_face, webdataset])
def test_half_written_and_missing_shards(tree, tmp_path, write):
    target = tmp_path / "packed" / "imagenet1k"
    write(tree, target)
    shards = sorted(target.rglob("*train*"))
    half(shards[1])
    with pytest.raises(DataError, match="cannot be read as") as error:
        load_dataset("imagenet1k", str(target.parent))
    assert error.value.where == str(shards[1]) and "again" in error.value.hint
    shards[0].unlink()
    with pytest.raises(DataError, match="1 of 2 shards are missing: 0"):
        load_dataset("imagenet1k", str(target.parent))


def test_without_pyarrow(tmp_path, monkeypatch):
    for part in ("train", "test"):
        write_parquet(tmp_path / f"{part}-00000-of-00001.parquet", [png(p) for p in pixels(10, 1)], range(10))
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingError, match="pyarrow") as error:
        load_dataset("cifar10", str(tmp_path))
    assert error.value.hint == "pip install 'ddbench[hf]'"


def test_tinyimagenet_in_parquet(tmp_path):
    wnids = imagenet_wnids()[::5]
    for part in ("train", "valid"):
        images = [png(np.full((64, 64, 3), i, np.uint8)) for i in range(200)]
        write_parquet(
            tmp_path / "data" / f"{part}-00000-of-00001-1359597a978bc4fa.parquet", images, range(200), classes=wnids
        )
    data = load_dataset("tinyimagenet", str(tmp_path))
    assert data.folders == wnids and int(data.train.images([150])[0, 0, 0, 0]) == 150


def test_own_parquet_and_own_npz(tmp_path):
    images = pixels(6, 1)
    for part in ("train", "test"):
        file = tmp_path / "pets" / f"{part}-00000-of-00001.parquet"
        write_parquet(file, [png(p) for p in images], [0, 1, 2, 0, 1, 2], classes=["cat", "dog", "ant"])
    data = load_dataset(f"imagefolder:{tmp_path / 'pets'}")
    assert data.classes == ("cat", "dog", "ant") and data.image_size == 32
    np.testing.assert_array_equal(data.train.images([1])[0].numpy(), images[3].transpose(2, 0, 1))
    labels = np.array([[0], [1], [2]] * 2, np.uint8)  # MedMNIST: [n, 1]
    arrays = {
        f"{part}_{what}": value
        for part in ("train", "val", "test")
        for what, value in (("images", images), ("labels", labels))
    }
    np.savez(tmp_path / "med.npz", **arrays)
    med = load_dataset(f"imagefolder:{tmp_path / 'med.npz'}")
    assert med.classes == ("0", "1", "2") and len(med.test) == 6 and med.notes["format"] == "npz"
    half(tmp_path / "med.npz")
    loading._load.cache_clear()
    with pytest.raises(DataError, match="cannot be read as npz"):
        load_dataset(f"imagefolder:{tmp_path / 'med.npz'}")
    np.savez(tmp_path / "med.npz", a=images)
    with pytest.raises(DataError, match="arrays a"):
        load_dataset(f"imagefolder:{tmp_path / 'med.npz'}")


def test_class_folders_without_a_split(tmp_path):
    for name in ("ant", "bee"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(10):
            Image.fromarray(pixels(1, i)[0]).save(tmp_path / "pets" / name / f"{i}.png")
    name = f"imagefolder:{tmp_path / 'pets'}"
    with pytest.raises(MissingError, match="no folder train/") as error:
        load_dataset(name)
    assert "--split 0.2" in error.value.hint
    fifth, again, half_ = (
        load_dataset(name, split=share, on_corrupt=c) for share, c in ((0.2, None), (0.2, "error"), (0.5, None))
    )
    assert np.bincount(fifth.test.labels).tolist() == [2, 2] and len(fifth.train) == 16
    assert fifth.digest == again.digest != half_.digest and len(half_.test) == 10
    with pytest.raises(UsageError, match="split"):
        load_dataset(name, split=1.5)


def test_what_datasets_saves(tmp_path):
    datasets = pytest.importorskip("datasets")
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    images = pixels(4, 1)
    rows = {"image": [Image.fromarray(p) for p in images], "label": [0, 1, 1, 0]}
    part = datasets.Dataset.from_dict(rows, features=kinds)
    datasets.DatasetDict({"train": part, "test": part}).save_to_disk(str(tmp_path / "pets"))
    data = load_dataset(f"pets={tmp_path / 'pets'}")
    assert data.classes == ("cat", "dog") and data.notes["container"] == "arrow" and len(data.test) == 4
    np.testing.assert_array_equal(data.train.images([2])[0].numpy(), images[1].transpose(2, 0, 1))
    (shard,) = (tmp_path / "pets" / "train").glob("*.arrow")
    whole = shard.read_bytes()
    for kept in (len(whole) // 2, len(whole) - 8):
        loading._load.cache_clear()
        shard.write_bytes(whole[:kept])
        with pytest.raises(DataError, match="cannot be read as arrow") as error:
            load_dataset(f"pets={tmp_path / 'pets'}")
        assert error.value.where == str(shard)
    shard.unlink()
    loading._load.cache_clear()
    with pytest.raises(DataError, match="saved parts: test"):
        load_dataset(f"pets={tmp_path / 'pets'}")
