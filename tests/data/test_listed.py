"""Tables of paths and labels, Hugging Face's metadata.jsonl, one saved part: the same data as class folders."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from benchmark.core.errors import DataError, MissingError, UsageError
from benchmark.data import load_dataset, loading
from benchmark.data.listed import read_table

CLASSES = ("ant", "bee")


@pytest.fixture
def tree(tmp_path):
    """Six training and two test images of each of two classes, as class folders."""
    random = np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 2)):
        for name in CLASSES:
            (tmp_path / "tree" / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "tree" / part / name / f"{part}-{name}-{i}.png")
    return tmp_path / "tree"


def rows(tree, order=1):
    """(path below the tree, class, part) of every image."""
    return [(str(f.relative_to(tree)), f.parent.name, f.parts[-3]) for f in sorted(tree.rglob("*.png"))][::order]


def write_csv(file, header, lines):
    with open(file, "w", newline="") as out:
        csv.writer(out).writerows([header, *lines])


def flat(tree, folder):
    """The images in one folder; the paths below it are their names."""
    folder.mkdir(parents=True)
    for file in tree.rglob("*.png"):
        shutil.copy(file, folder / file.name)
    return folder


def by_column(tree, base):
    flat(tree, base / "images")
    lines = [(f"images/{path.rpartition('/')[2]}", name, part) for path, name, part in rows(tree, -1)]
    write_csv(base / "labels.csv", ("Filename", "Class", "split"), lines)
    return base


def by_table(tree, base):
    flat(tree, base)
    for part, name in (("train", "train.csv"), ("val", "test.csv")):
        lines = [(path.rpartition("/")[2], kind, 3) for path, kind, p in rows(tree) if p == part]
        write_csv(base / name, ("path", "label", "height"), lines)
    return base


def by_path(tree, base):
    shutil.copytree(tree, base)
    write_csv(base / "all.tsv", ("file_path\tlabel",), [(f"{path}\t{name}",) for path, name, _ in rows(tree)])
    return base / "all.tsv"


def hugging_face(tree, base):
    for part in ("train", "val"):
        target = base / {"val": "validation"}.get(part, part)
        flat(tree / part, target)
        lines = [{"file_name": path.rpartition("/")[2], "label": name} for path, name, p in rows(tree) if p == part]
        (target / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return base


@pytest.mark.parametrize("write", [by_column, by_table, by_path, hugging_face])
def test_a_table_is_the_class_folders(tree, tmp_path, write):
    folders = load_dataset(f"insects={tree}")
    table = load_dataset(f"insects={write(tree, tmp_path / 'other')}")
    assert table.digest == folders.digest and table.classes == CLASSES and table.name == "insects"
    assert table.train.class_digest(1) == folders.train.class_digest(1)  # `random` draws the same images
    assert (table.test.images([0, 3]) == folders.test.images([0, 3])).all()


def test_a_table_without_a_split(tree, tmp_path):
    base = flat(tree, tmp_path / "flat")
    lines = [(path.rpartition("/")[2], CLASSES.index(name)) for path, name, _ in rows(tree)]
    write_csv(base / "labels.csv", ("image", "target"), lines)
    with pytest.raises(MissingError, match="none for testing") as error:
        load_dataset(f"insects={base}")
    assert "--split 0.2" in error.value.hint
    data = load_dataset(f"insects={base}", split=0.25)
    assert data.classes == ("0", "1") and np.bincount(data.test.labels).tolist() == [2, 2]
    assert data.digest != load_dataset(f"insects={base}", split=0.5).digest


def test_tables_beside_class_folders_are_no_list_of_images(tree):
    digest = load_dataset(f"insects={tree}").digest
    (tree / "notes.csv").write_text("name,legs\nant,6\n")
    loading._load.cache_clear()
    assert load_dataset(f"insects={tree}").digest == digest


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda t: t.replace("filename", "id"), "columns id, label"),
        (lambda t: t.replace("val-bee-1.png", "gone.png"), "1 of 16 files are not there: gone.png"),
        (lambda t: t.replace("val-bee-1.png", "val-bee-0.png"), "named more than once"),
        (lambda t: t + "x.png,\n", "row 17"),
        (lambda t: t.encode()[:-3] + b"\xff\n", "cannot be read as a table"),
    ],
)
def test_tables_that_cannot_be_right(tree, tmp_path, change, text):
    base = flat(tree, tmp_path / "flat")
    lines = "".join(f"{path.rpartition('/')[2]},{name}\n" for path, name, _ in rows(tree))
    changed = change("filename,label\n" + lines)
    (base / "labels.csv").write_bytes(changed if isinstance(changed, bytes) else changed.encode())
    with pytest.raises(DataError, match=text) as error:
        load_dataset(f"insects={base}", split=0.25)
    assert error.value.where == str(base / "labels.csv")


@pytest.mark.parametrize("name", ["../secret.png", "/secret.png", "a/../../secret.png"])
def test_a_table_that_came_with_its_images_names_none_outside(name, tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "secret.png")
    (tmp_path / "data" / "a").mkdir(parents=True)
    line = json.dumps({"file_name": name, "label": "x"})
    (tmp_path / "data" / "metadata.jsonl").write_text(line)
    with pytest.raises(DataError, match="leads out of the folder"):
        read_table(tmp_path / "data" / "metadata.jsonl")
    (tmp_path / "data" / "images.jsonl").write_text(line)
    assert read_table(tmp_path / "data" / "images.jsonl").names == (name,)  # one's own table


def test_one_saved_part_and_parquet_of_one_part(tree, tmp_path):
    """`Dataset.save_to_disk` writes one part; many data sets on the hub have a training part only."""
    datasets = pytest.importorskip("datasets")
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))})
    lines = [(Image.open(tree / path).copy(), CLASSES.index(name)) for path, name, _ in rows(tree)]
    part = datasets.Dataset.from_dict({"image": [p for p, _ in lines], "label": [c for _, c in lines]}, features=kinds)
    part.save_to_disk(str(tmp_path / "saved"))
    part.to_parquet(str(tmp_path / "hub" / "data" / "train-00000-of-00001.parquet"))
    for base in (tmp_path / "saved", tmp_path / "hub"):
        with pytest.raises(MissingError, match="none for testing"):
            load_dataset(f"insects={base}")
        data = load_dataset(f"insects={base}", split=0.25)
        assert data.classes == CLASSES and np.bincount(data.test.labels).tolist() == [2, 2]
        assert len(data.train) == 12 and data.train.images([0]).shape == (1, 3, 8, 8)
    (shard,) = (tmp_path / "saved").glob("*.arrow")
    shard.write_bytes(shard.read_bytes()[:-8])
    loading._load.cache_clear()
    with pytest.raises(DataError, match="cannot be read as arrow"):
        load_dataset(f"insects={tmp_path / 'saved'}", split=0.25)


def test_a_path_or_an_id_of_the_hub_is_no_name(tmp_path):
    with pytest.raises(UsageError, match="unknown dataset") as error:
        load_dataset(str(tmp_path))
    assert f"--dataset {tmp_path.name}={tmp_path}" in error.value.hint
    with pytest.raises(UsageError, match="unknown dataset") as error:
        load_dataset("zh-plus/tiny-imagenet")
    assert "hf download zh-plus/tiny-imagenet --repo-type dataset --local-dir tiny-imagenet" in error.value.hint
