"""ImageNet-1K and its subsets in every on-disk layout; labels against lists that are not ours."""

import hashlib
import shutil

import numpy as np
import pytest
from imagenet_tree import CMYK, GREY, TRUNCATED, build, flat_val, picture, write_devkit, write_kaggle

from benchmark.core.errors import DataError, MissingError
from benchmark.data import load_dataset, loading
from benchmark.data.imagenet import IMAGENETTE, IMAGEWOOF, cmc_list, subset_wnids
from benchmark.data.wordnet import class_names, imagenet_positions, imagenet_wnids

# SHA-256 of the 1000 ids joined by spaces in label order, of ds_inf/imagenet_1k_mapping.json in lin-zhao-resoLve/D3HR.
D3HR_ORDER = "791ce0333040dd249d13133f90d28ef0263ffc01e5de0afd85b3e32048d7d456"
# The same of the sorted lists in misc/class100.txt, class_woof.txt and class_nette.txt of vimar-gu/MinimaxDiffusion.
MINIMAX_ORDER = {
    "imagenet100": "469d277522bc36e827b1bc5121a8d837f7c0fe14737e8326ce34c6e5553f75af",
    "imagewoof": "7068c1227e6e914e1e9e3b64e3c37457db73a0d95d0ff9373b5cd659b6396ef2",
    "imagenette": "f59eff25ad35433f9030fda92270a65c59449b60da5c90cca80794deee62c523",
}
# Breeds as listed in the README of github.com/fastai/imagenette, with their labels in torchvision's list of categories.
WOOF_NAMES = {
    *("Australian terrier", "Border terrier", "Samoyed", "Beagle", "Shih-Tzu"),
    *("English foxhound", "Rhodesian ridgeback", "Dingo", "Golden retriever", "Old English sheepdog"),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """All 1000 classes, two training images and one validation image each."""
    return build(tmp_path_factory.mktemp("data") / "imagenet1k")


@pytest.fixture
def copy(whole, tmp_path):
    """A tree whose class folders can be taken away."""
    base = tmp_path / "data" / "imagenet1k"
    for part in ("train", "val"):
        (base / part).mkdir(parents=True)
        for wnid in imagenet_wnids():
            (base / part / wnid).symlink_to(whole / part / wnid)
    return base


@pytest.fixture(scope="module")
def linked(whole, tmp_path_factory):
    """(flat folder of the validation images, WordNet id by file name without extension)."""
    target = tmp_path_factory.mktemp("flat") / "val"
    return target, flat_val(whole, target)


@pytest.fixture
def flat(whole, linked, tmp_path):
    """A tree whose ``val`` is flat, without labels."""
    base = tmp_path / "data" / "imagenet1k"
    base.mkdir(parents=True)
    (base / "train").symlink_to(whole / "train")
    (base / "val").symlink_to(linked[0])
    return base


def test_class_order_against_independent_lists():
    from timm.data import ImageNetInfo
    from torchvision.models._meta import _IMAGENET_CATEGORIES

    wnids = imagenet_wnids()
    assert hashlib.sha256(" ".join(wnids).encode()).hexdigest() == D3HR_ORDER
    assert list(wnids) == ImageNetInfo().label_names() == sorted(wnids)
    assert len(set(class_names(wnids))) == 1000
    same = sum(a.lower() == b.lower() for a, b in zip(class_names(wnids), _IMAGENET_CATEGORIES))
    assert same > 950  # torchvision says "cardigan" for the dog, and so on


def test_subsets_against_independent_lists():
    import torchvision
    from torchvision.models._meta import _IMAGENET_CATEGORIES

    for name, digest in MINIMAX_ORDER.items():
        assert hashlib.sha256(" ".join(subset_wnids(name)).encode()).hexdigest() == digest
    assert set(torchvision.datasets.Imagenette._WNID_TO_CLASS) == set(IMAGENETTE) and list(IMAGENETTE) == sorted(
        IMAGENETTE
    )
    woof = imagenet_positions(subset_wnids("imagewoof"))
    assert {_IMAGENET_CATEGORIES[i].lower() for i in woof} >= {n.lower() for n in WOOF_NAMES - {"Beagle", "Dingo"}}
    assert list(IMAGEWOOF) == sorted(IMAGEWOOF) and len(set(IMAGEWOOF)) == 10
    assert len(set(cmc_list())) == 100 and set(cmc_list()) <= set(imagenet_wnids())
    assert cmc_list()[:2] == ("n02869837", "n01749939") and cmc_list()[-1] == "n02090622"
    names = set(class_names(subset_wnids("imageidc")))
    assert {"green mamba", "langur", "cocktail shaker", "Saluki"} <= names and len(names) == 10


def check_pictures(split, wnids, indices):
    """The images at ``indices`` show the class that their label says (pictures are told apart by mean difference)."""
    position = {wnid: i for i, wnid in enumerate(imagenet_wnids())}
    for i in indices:
        label = split.labels[i]
        seed = 10_000 if "val" in split.index.path(i) else int(split.index.names[i].split("_")[-1][:-5]) - 1
        image = split.pil(i)
        mine = np.asarray(picture(position[wnids[label]], seed, image.size), float)
        other = np.asarray(picture((position[wnids[label]] + 137) % 1000, seed, image.size), float)
        got = np.asarray(image, float)
        assert np.abs(got - mine).mean() < 12 < np.abs(got - other).mean(), split.index.path(i)


def test_class_folders(whole):
    data = load_dataset("imagenet1k", str(whole.parent))
    assert data.folders == imagenet_wnids() and data.classes[:3] == ("tench", "goldfish", "great white shark")
    assert (len(data.train), len(data.test), data.image_size, data.channels) == (2000, 1000, 224, 3)
    assert data.train.labels.tolist() == [i // 2 for i in range(2000)] and data.backbone_classes == tuple(range(1000))
    assert data.mean == (0.485, 0.456, 0.406)
    for i in (0, 777, 1999):
        assert f"/train/{imagenet_wnids()[data.train.labels[i]]}/" in data.train.index.path(i)
    check_pictures(data.train, imagenet_wnids(), (0, 9, 777, 1999))
    check_pictures(data.test, imagenet_wnids(), (0, 5, 500, 999))
    odd = [2 * c + i for c, i in (CMYK,)] + [2 * 5 + 1]
    pixels = data.train.images([*odd, 0])
    assert pixels.shape == (3, 3, 224, 224) and (pixels.float().std((1, 2, 3)) > 5).all()
    assert GREY[1] >= 2  # with two images a class the grey one is not there; see test_modes


def test_modes(tmp_path):
    wnids = imagenet_wnids()[:10]
    base = build(tmp_path / "pets", train=3, wnids=wnids)
    from PIL import Image

    assert Image.open(base / "train" / wnids[CMYK[0]] / f"{wnids[CMYK[0]]}_{CMYK[1] + 1}.JPEG").mode == "CMYK"
    assert Image.open(base / "train" / wnids[GREY[0]] / f"{wnids[GREY[0]]}_{GREY[1] + 1}.JPEG").mode == "L"
    data = load_dataset(f"imagefolder:{base}", image_size=48)
    cmyk, plain = data.train.images([3 * CMYK[0] + CMYK[1], 3 * CMYK[0]]).float()
    assert (cmyk.mean((1, 2)) - plain.mean((1, 2))).abs().max() < 40  # not inverted
    grey = data.train.images([3 * GREY[0] + GREY[1]])[0]
    assert (grey[0] == grey[1]).all() and (grey[0] == grey[2]).all()


def test_truncated_file_is_named_or_skipped(tmp_path):
    wnids = imagenet_wnids()[:10]
    base = build(tmp_path / "pets", train=4, wnids=wnids, truncated=True)
    bad = base / "train" / wnids[TRUNCATED[0]] / f"{wnids[TRUNCATED[0]]}_{TRUNCATED[1] + 1}.JPEG"
    with pytest.raises(DataError) as error:
        load_dataset(f"imagefolder:{base}", image_size=80).train.images(range(40))
    assert error.value.where == str(bad)
    data = load_dataset(f"imagefolder:{base}", image_size=80, on_corrupt="skip")
    assert len(data.train) == 39 and data.notes["skipped"] == "1 corrupt in train"
    assert data.train.images(range(39)).float().mean((1, 2, 3)).min() > 20  # none is black


@pytest.mark.parametrize("labels", ["kaggle", "devkit", "devkit archive"])
def test_flat_val(whole, flat, linked, labels):
    tree = load_dataset("imagenet1k", str(whole.parent))
    copy, answer = flat, linked[1]
    with pytest.raises(MissingError, match="labels of its images are not there"):
        load_dataset("imagenet1k", str(copy.parent))
    if labels == "kaggle":
        write_kaggle(copy, answer)
    else:
        write_devkit(copy, answer, archive=labels == "devkit archive")
    data = load_dataset("imagenet1k", str(copy.parent))
    for i in range(1000):
        assert data.folders[data.test.labels[i]] == answer[data.test.index.names[i].split(".")[0]]
    assert data.digest == tree.digest  # the same images and labels, however they lie
    woof = load_dataset("imagewoof", str(copy.parent))
    assert len(woof.test) == 10 and woof.test.labels.tolist() == list(range(10))
    check_pictures(woof.test, woof.folders, range(10))


def test_kaggles_own_tree(flat, linked, tmp_path):
    answer = linked[1]
    inner = tmp_path / "kaggle" / "ILSVRC" / "Data" / "CLS-LOC"
    inner.parent.mkdir(parents=True)
    flat.rename(inner)
    write_kaggle(tmp_path / "kaggle", answer)
    for root in (tmp_path / "kaggle", inner):
        data = load_dataset("imagenet1k", str(root))
        assert [data.folders[c] for c in data.test.labels] == [
            answer[data.test.index.names[i][:-5]] for i in range(1000)
        ]


def test_unlabelled_and_missing_validation_files_are_named(flat, linked):
    answer = dict(sorted(linked[1].items())[:-1]) | {"ILSVRC2012_val_00001001": "n01440764"}
    write_kaggle(flat, answer)
    with pytest.raises(DataError, match="1 file.*without a label.*ILSVRC2012_val_00001000.*1 labelled.*00001001"):
        load_dataset("imagenet1k", str(flat.parent))


def test_missing_classes(copy):
    (copy / "train" / "n01440764").unlink()
    with pytest.raises(DataError, match="missing: n01440764"):
        load_dataset("imagenet1k", str(copy.parent))
    (copy / "train" / "n01440764").symlink_to(copy / "val" / "n01440764")
    (copy / "val" / "n02086240").unlink()
    with pytest.raises(DataError, match="missing: n02086240"):
        load_dataset("imagenet1k", str(copy.parent))
    with pytest.raises(MissingError, match="n02086240"):
        load_dataset("imagewoof", str(copy.parent))


@pytest.mark.parametrize(
    "name, folder", [("imagenette", "imagenette2-160"), ("imagewoof", "imagewoof2"), ("imageidc", "imageidc")]
)
def test_subset_in_both_layouts(whole, tmp_path, name, folder):
    wnids = subset_wnids(name)
    part = load_dataset(name, str(whole.parent))
    assert part.notes["layout"] == "imagenet1k" and part.train.labels.tolist() == [i // 2 for i in range(20)]
    build(tmp_path / folder, train=3, wnids=wnids, odd=False)
    own = load_dataset(name, str(tmp_path))
    assert own.notes["layout"] == "own" and own.digest != part.digest
    expected = tuple(imagenet_wnids().index(w) for w in wnids)
    for data in (part, own):
        assert data.folders == wnids and data.classes == class_names(wnids)
        assert data.backbone_classes == expected and sorted(set(data.train.labels)) == list(range(10))
        check_pictures(data.train, wnids, range(0, 20, 2))
        check_pictures(data.test, wnids, range(10))


def test_imagewoof_maps_to_the_backbones_dogs(whole):
    from torchvision.models._meta import _IMAGENET_CATEGORIES

    data = load_dataset("imagewoof", str(whole.parent))
    for name, backbone in zip(data.classes, data.backbone_classes):
        assert _IMAGENET_CATEGORIES[backbone].lower() == name.lower()


def test_rdeds_numbered_folders(tmp_path):
    wnids = subset_wnids("imagewoof")
    base = build(tmp_path / "imagenet-woof", wnids=wnids, odd=False)
    for part in ("train", "val"):
        for i, wnid in enumerate(wnids):
            (base / part / wnid).rename(base / part / f"{i:05d}")
    data = load_dataset("imagewoof", str(tmp_path))
    assert data.folders == wnids and data.notes["layout"] == "own"
    check_pictures(data.train, wnids, range(0, 20, 3))


def test_imagenet100(whole, tmp_path):
    data = load_dataset("imagenet100", str(whole.parent))
    assert len(data.train) == 200 and len(data.classes) == 100 and list(data.folders) == sorted(cmc_list())
    check_pictures(data.train, data.folders, range(0, 200, 23))
    build(tmp_path / "imagenet-100", train=1, wnids=sorted(cmc_list()), odd=False)
    own = load_dataset("imagenet100", str(tmp_path))
    assert (
        own.notes["layout"] == "own" and own.folders == data.folders and own.train.labels.tolist() == list(range(100))
    )
    assert own.backbone_classes == data.backbone_classes and own.digest != data.digest
    check_pictures(own.train, own.folders, range(0, 100, 17))
    check_pictures(own.test, own.folders, range(0, 100, 31))


# wnid and ImageNet label: the first three rows of ds_inf/tiny-imagenet-mapping.txt in lin-zhao-resoLve/D3HR.
TINY_LABELS = {"n02124075": 285, "n04067472": 758, "n04540053": 890}


def tiny(base, *, unpacked=True):
    """200 classes of the real list's kind, in Stanford's layout; ``wnids.txt`` is not sorted there either."""
    wnids = [*TINY_LABELS, *[w for w in imagenet_wnids()[::5] if w not in TINY_LABELS][:197]]
    position = {w: i for i, w in enumerate(imagenet_wnids())}
    (base / "val" / "images").mkdir(parents=True)
    (base / "wnids.txt").write_text("\n".join(wnids) + "\n")
    rows = []
    for n, wnid in enumerate(wnids):
        folder = base / "train" / wnid / "images"
        folder.mkdir(parents=True)
        picture(position[wnid], 0).save(folder / f"{wnid}_0.JPEG", quality=90)
        (folder.parent / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t10\t63\t58\n")
        picture(position[wnid], 1).save(base / "val" / "images" / f"val_{n}.JPEG", quality=90)
        rows.append(f"val_{n}.JPEG\t{wnid}\t0\t32\t44\t62\n")
    (base / "val" / "val_annotations.txt").write_text("".join(rows))
    (base / "words.txt").write_text("n00001740\tentity\n")
    return wnids


def test_tinyimagenet(tmp_path):
    base = tmp_path / "tiny-imagenet-200"
    wnids = tiny(base)
    data = load_dataset("tinyimagenet", str(tmp_path))
    assert list(data.folders) == sorted(wnids) and (data.image_size, data.channels) == (64, 3)
    mapped = dict(zip(data.folders, data.backbone_classes))
    assert {wnid: mapped[wnid] for wnid in TINY_LABELS} == TINY_LABELS
    for split, seed in ((data.train, 0), (data.test, 1)):
        assert split.labels.tolist() == list(range(200))
        for i in (0, 60, 199):
            expected = np.asarray(picture(data.backbone_classes[i], seed), float)
            assert np.abs(split.images([i])[0].permute(1, 2, 0).numpy() - expected).mean() < 12
    # Many people sort val into class folders.
    for n, wnid in enumerate(wnids):
        (base / "val" / wnid).mkdir()
        (base / "val" / "images" / f"val_{n}.JPEG").rename(base / "val" / wnid / f"val_{n}.JPEG")
    (base / "val" / "images").rmdir()
    loading._load.cache_clear()
    sorted_too = load_dataset("tinyimagenet", str(tmp_path))
    assert sorted_too.digest == data.digest


def test_tinyimagenet_faults(tmp_path):
    base = tmp_path / "tiny-imagenet-200"
    wnids = tiny(base)
    (base / "val" / "images" / "val_7.JPEG").unlink()
    with pytest.raises(DataError, match="val_7.JPEG"):
        load_dataset("tinyimagenet", str(tmp_path))
    shutil.rmtree(base / "train" / wnids[4])
    with pytest.raises(DataError, match=f"missing: {wnids[4]}"):
        load_dataset("tinyimagenet", str(tmp_path))
    (base / "wnids.txt").write_text("\n".join(wnids[:150]))
    with pytest.raises(DataError, match="150 classes"):
        load_dataset("tinyimagenet", str(tmp_path))
