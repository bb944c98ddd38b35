"""Sets in the layouts that authors publish, and what must be refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from benchmark.core.errors import DataError, MissingError
from benchmark.data.base import ArraySplit, Dataset
from benchmark.sets.released import image_files, read_released

FOLDERS = ("n01", "n02", "n03")


def make_dataset(classes=("cat", "dog", "green frog"), folders=FOLDERS, channels=3, backbone_classes=None):
    shape = (3, 8, 8, 3) if channels == 3 else (3, 8, 8)
    split = ArraySplit(np.zeros(shape, np.uint8), np.arange(3))
    return Dataset("pets", classes, folders, 8, channels, split, split, "x", (0.5,), (0.5,), backbone_classes)


def write(root, names, size=8, suffix="png"):
    """Files ``names(label, index)``; the grey value tells label and index."""
    for label in range(3):
        for index in range(12):
            file = root / names(label, index)
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (size, size), (label * 80 + index,) * 3).save(file.with_suffix("." + suffix))


def values(images):
    return images[:, 0, 0, 0].tolist()


IN_ORDER = [label * 80 + index for label in range(3) for index in range(12)]
LAYOUTS = {
    "wnids": lambda c, i: f"{FOLDERS[c]}/{i}.png",
    "class names": lambda c, i: f"{['cat', 'dog', 'green frog'][c]}/{i}.png",
    "slugs": lambda c, i: f"{['cat', 'dog', 'green_frog'][c]}/{i}.png",
    "index (D4M)": lambda c, i: f"{c}/{c}-image{i}.png",
    "five digits (RDED)": lambda c, i: f"{c:05d}/class{c:05d}_id{i:05d}.png",
    "new000 (SRe2L)": lambda c, i: f"new{c:03d}/class{c:03d}_id{i:03d}.png",
    "flat": lambda c, i: f"class{c:03d}_id{i:03d}.png",
    "flat with wnids": lambda c, i: f"{FOLDERS[c]}_{i}.png",
    "inside the archive's own folder": lambda c, i: f"release/train/{FOLDERS[c]}/{i}.png",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, layout):
    write(tmp_path, LAYOUTS[layout])
    images, labels = read_released(tmp_path, make_dataset())
    assert images.shape == (36, 3, 8, 8) and images.dtype == torch.uint8
    assert labels.tolist() == [c for c in range(3) for _ in range(12)]
    assert values(images) == IN_ORDER  # id10 after id9, not after id1


def test_ten_classes_by_number_are_not_sorted_as_text(tmp_path):
    names = tuple(f"k{c}" for c in range(11))
    split = ArraySplit(np.zeros((11, 8, 8), np.uint8), np.arange(11))
    dataset = Dataset("eleven", names, names, 8, 1, split, split, "x", (0.5,), (0.5,))
    for c in range(11):
        (tmp_path / str(c)).mkdir()
        Image.new("L", (8, 8), c).save(tmp_path / str(c) / "a.png")
    images, labels = read_released(tmp_path, dataset)
    assert values(images) == labels.tolist() == list(range(11))


def test_a_subset_told_by_imagenet_indices(tmp_path):
    """Classes 0, 1, 2 of the dataset are 207, 155, 9 of ImageNet-1K: the folders' numbers say so."""
    numbers = (207, 155, 9)
    write(tmp_path, lambda c, i: f"{numbers[c]}/{i}.png")
    images, _ = read_released(tmp_path, make_dataset(backbone_classes=numbers))
    assert values(images) == IN_ORDER


@pytest.mark.parametrize(("size", "odd", "side"), [((20, 20), (20, 20), 20), ((5, 5), (5, 5), 8),
                                                   ((20, 20), (9, 9), 8), ((20, 9), (20, 9), 8)])  # fmt: skip
def test_larger_square_images_keep_their_side_others_become_the_datasets(tmp_path, size, odd, side):
    """Authors store 224 px for CIFAR and cut random crops from these."""
    write(tmp_path, LAYOUTS["wnids"], suffix="jpg")
    for file in tmp_path.rglob("*.jpg"):
        with Image.open(file) as image:
            image.resize(odd if file.stem == "3" else size).save(file)
    images, _ = read_released(tmp_path, make_dataset(channels=1))
    assert images.shape == (36, 1, side, side)
    assert np.abs(np.array(values(images)) - IN_ORDER).max() <= 2


def test_a_set_of_larger_images_passes_the_gate_and_trains(easy, teacher, tmp_path):
    from benchmark.evaluation import gates, train_student
    from benchmark.evaluation.protocols import load_protocol
    from benchmark.sets.given import open_set

    for label, folder in enumerate(easy.folders):
        (tmp_path / folder).mkdir()
        for index, row in enumerate(easy.train.by_class[label][:3]):
            easy.train.pil(int(row)).resize((28, 28)).save(tmp_path / folder / f"class{label:03d}_id{index:03d}.png")
    found = open_set(tmp_path, easy, 3)
    assert found.images.shape == (12, 1, 28, 28)
    assert gates.check_set(found.images, found.labels, teacher, easy)["recognised"] > 80
    for name, length in {"rded-paper": "epochs", "dc": "epochs", "hard": "steps"}.items():  # dc has no random crops
        protocol = load_protocol(name, {length: 2})
        trained = train_student(found.images, found.labels, dataset=easy, protocol=protocol, student="convnet3_bn",
                                teacher=teacher, ipc=3, seed=0)  # fmt: skip
        assert trained.steps > 0


@pytest.mark.parametrize("numbers", [(0, 1, 2), (207, 155, 9), (2, 0, 1)])  # positions, ImageNet's, the authors' own
def test_named_folders_whose_files_carry_numbers(tmp_path, numbers):
    """`n01440764/class000_id000.jpg`: a wnid is no class number, and names decide."""
    write(tmp_path, lambda c, i: f"{FOLDERS[c]}/class{numbers[c]:03d}_id{i:03d}.png")
    images, _ = read_released(tmp_path, make_dataset())
    assert values(images) == IN_ORDER


def test_named_folders_whose_files_are_of_two_classes(tmp_path):
    write(tmp_path, lambda c, i: f"{FOLDERS[c]}/class{(c + (i == 1)) % 3:03d}_id{i:03d}.png")
    assert "class 0, 1 lie in the folder 'n01'" in refused(tmp_path)


def test_hidden_files_are_no_images_of_the_set(tmp_path):
    write(tmp_path, LAYOUTS["wnids"])
    (tmp_path / ".DS_Store").write_text("")
    for name in ("n01/._0.png", "__MACOSX/n01/0.png", "n01/.ipynb_checkpoints/0-checkpoint.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"no image")
    images, _ = read_released(tmp_path, make_dataset())
    assert values(images) == IN_ORDER and len(image_files(tmp_path)) == 36


def refused(tmp_path, dataset=None):
    with pytest.raises(DataError) as error:
        read_released(tmp_path, dataset or make_dataset())
    return str(error.value)


def test_a_class_without_a_folder(tmp_path):
    write(tmp_path, LAYOUTS["wnids"])
    for file in (tmp_path / "n02").iterdir():
        file.unlink()
    assert "'n02'" in refused(tmp_path)


def test_numbers_that_are_not_the_datasets(tmp_path):
    write(tmp_path, lambda c, i: f"{c + 1}/{i}.png")  # counted from one
    assert "1, 2, 3" in refused(tmp_path)


def test_other_classes(tmp_path):
    write(tmp_path, lambda c, i: f"{['cat', 'dog', 'horse'][c]}/{i}.png")
    assert "'horse'" in refused(tmp_path)


def test_unequal_counts(tmp_path):
    write(tmp_path, LAYOUTS["wnids"])
    (tmp_path / "n03" / "4.png").unlink()
    assert "'green frog' 11" in refused(tmp_path)


def test_file_names_that_disagree_with_their_folder(tmp_path):
    write(tmp_path, lambda c, i: f"new{c:03d}/class{(c + 1) % 3:03d}_id{i:03d}.png")
    assert "class 1 lie in the folder 'new000'" in refused(tmp_path)


def test_a_truncated_image_is_named(tmp_path):
    write(tmp_path, LAYOUTS["wnids"], size=64)
    file = tmp_path / "n02" / "7.png"
    file.write_bytes(file.read_bytes()[:60])
    assert str(file) in refused(tmp_path)


def test_nothing_there(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(MissingError):
            read_released(path, make_dataset())


def test_flat_files_whose_classes_cannot_be_told(tmp_path):
    write(tmp_path, lambda c, i: f"picture{c}-{i}.png")
    error = refused(tmp_path)
    assert "36 images whose classes cannot be told" in error and "WNID_0.jpg" in error
    write(tmp_path, LAYOUTS["flat with wnids"])
    assert "cannot tell the class of 'picture0-0.png'" in refused(tmp_path)
