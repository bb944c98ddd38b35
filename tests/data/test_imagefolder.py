import os

import numpy as np
import pytest
from PIL import Image

from benchmark.core.errors import DataError, MissingError, UsageError
from benchmark.data import load_dataset, loading
from benchmark.data.decode import open_image

CLASSES = ("ant", "bee", "cow")


def noise(seed, size=(20, 20), mode="RGB"):
    shape = (size[1], size[0]) + ((3,) if mode == "RGB" else ())
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def tree(base, *, test="val", size=(20, 20), mode="RGB", suffix=".png", train=3):
    for part, count in (("train", train), (test, 2)):
        for c, name in enumerate(CLASSES):
            (base / part / name).mkdir(parents=True)
            for i in range(count):
                noise([c, i, len(part)], size, mode).save(base / part / name / f"{i}{suffix}")
    return base


def load(base, **options):
    return load_dataset(f"imagefolder:{base}", **options)


@pytest.mark.parametrize("test", ["val", "validation", "test"])
def test_native_size_labels_and_pixels(tmp_path, test):
    data = load(tree(tmp_path / "pets", test=test))
    assert data.classes == CLASSES and (data.image_size, data.channels) == (20, 3)
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2] and data.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    expected = np.asarray(noise([1, 2, 5])).transpose(2, 0, 1)
    np.testing.assert_array_equal(data.train.images([5])[0].numpy(), expected)
    assert data.train.images([5, 0], size=10, channels=1).shape == (2, 1, 10, 10)
    assert data.notes["format"] == "png"


def test_val_is_preferred_to_test(tmp_path):
    base = tree(tmp_path / "pets", test="test")
    for name in CLASSES:
        (base / "val" / name).mkdir(parents=True)
        noise(1).save(base / "val" / name / "only.png")
    assert len(load(base).test) == 3


def test_grey_trees_have_one_channel_and_large_images_become_224(tmp_path):
    assert load(tree(tmp_path / "grey", mode="L")).channels == 1
    large = load(tree(tmp_path / "large", size=(90, 70)))
    assert large.image_size == 224 and large.train.images([0]).shape == (1, 3, 224, 224)
    assert load(tmp_path / "large", image_size=32).train.images([0]).shape == (1, 3, 32, 32)
    mixed = tree(tmp_path / "mixed")
    noise(0, (21, 20)).save(mixed / "train" / "ant" / "0.png")
    assert load(mixed).image_size == 224


def test_found_below_the_data_root(tmp_path):
    tree(tmp_path / "data" / "pets")
    assert len(load_dataset("imagefolder:pets", str(tmp_path / "data")).train) == 9


def test_every_mode_is_decoded(tmp_path):
    base = tree(tmp_path / "modes")
    rgb = noise(7)
    for i, mode in enumerate(("L", "P", "CMYK", "RGBA", "1", "LA")):
        rgb.convert(mode).save(base / "train" / "ant" / f"m{i}.{'jpg' if mode == 'CMYK' else 'png'}")
    data = load(base)
    pixels = data.train.images(range(len(data.train)))
    assert pixels.shape == (15, 3, 20, 20) and data.channels == 3
    assert all(image.float().std() > 20 for image in pixels)  # none is black or flat


def test_sixteen_bits_are_scaled_and_transparency_is_white(tmp_path):
    ramp = (np.arange(400, dtype=np.uint32) * 65535 // 399).astype(np.uint16).reshape(20, 20)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    got = np.asarray(open_image(tmp_path / "deep.png"))
    np.testing.assert_allclose(got, ramp / 257, atol=0.51)
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert np.asarray(open_image(tmp_path / "clear.png", "RGB")).min() == 255


def test_jpeg_decoded_small_is_close_to_the_whole(tmp_path):
    smooth = Image.fromarray(
        np.kron(np.random.default_rng(0).integers(0, 256, (12, 12, 3)), np.ones((80, 80, 1))).astype("uint8")
    )
    smooth.resize((960, 960), Image.Resampling.BICUBIC).save(tmp_path / "big.jpg", quality=95)
    whole, draft = open_image(tmp_path / "big.jpg"), open_image(tmp_path / "big.jpg", size=64)
    assert min(draft.size) >= 128 and draft.size < whole.size
    a, b = (np.asarray(im.resize((64, 64), Image.Resampling.BICUBIC), float) for im in (whole, draft))
    assert np.abs(a - b).mean() < 1.5


def truncate(path):
    path.write_bytes(path.read_bytes()[:-200])
    return path


@pytest.mark.parametrize("size", [(20, 20), (90, 70)])
def test_truncated_image_is_an_error_with_its_path(tmp_path, size):
    base = tree(tmp_path / "pets", size=size, suffix=".jpg")
    bad = truncate(base / "train" / "cow" / "1.jpg")
    with pytest.raises(DataError) as error:
        load(base).train.images(range(9))
    assert error.value.where == str(bad) and "--on-corrupt skip" in error.value.hint


def test_not_an_image_at_all(tmp_path):
    base = tree(tmp_path / "pets")
    (base / "val" / "bee" / "0.png").write_text("<html>404</html>")
    with pytest.raises(DataError, match="bee/0.png"):
        load(base).test.images(range(6))
    with pytest.raises(DataError, match="gone.png"):
        open_image(tmp_path / "gone.png")


def test_skipping_corrupt_files_counts_them_and_changes_the_digest(tmp_path):
    base = tree(tmp_path / "pets", suffix=".jpg")
    whole = load(base).digest
    truncate(base / "train" / "cow" / "1.jpg")
    truncate(base / "val" / "ant" / "0.jpg")
    data = load(base, on_corrupt="skip")
    assert data.notes["skipped"] == "1 corrupt in train, 1 corrupt in test"
    assert "cow/1.jpg" in data.notes["skipped files"]
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2] and data.test.labels.tolist() == [0, 1, 1, 2, 2]
    expected = np.asarray(open_image(base / "train" / "cow" / "2.jpg")).transpose(2, 0, 1)
    np.testing.assert_array_equal(data.train.images([7])[0].numpy(), expected)
    for path in ("train/cow/1.jpg", "val/ant/0.jpg"):
        (base / path).unlink()
    from benchmark.data import loading

    loading._load.cache_clear()
    assert data.digest == load(base).digest != whole  # as if the files were not there
    truncate(base / "val" / "ant" / "1.jpg")
    loading._load.cache_clear()
    with pytest.raises(DataError, match="no readable image left"):
        load(base, on_corrupt="skip")


@pytest.mark.parametrize("large", [False, True])
def test_a_link_without_a_target_is_a_corrupt_file(tmp_path, monkeypatch, large):
    from benchmark.data import external, files, loading

    if large:  # identified by names and sizes, the listing kept in the store
        monkeypatch.setattr(external, "CONTENT_FILES", 5)
        monkeypatch.setattr(files, "CACHED_FROM", 1)
    monkeypatch.setattr("benchmark.data.trees.SAMPLE", 2)  # so that the first look at the images misses it
    base = tree(tmp_path / "pets")
    link = base / "train" / "bee" / "2.png"
    target = link.rename(tmp_path / "elsewhere.png")
    link.symlink_to(tmp_path / "moved.png")
    with pytest.raises(DataError, match="No such file") as error:
        load(base)
    assert error.value.where == str(link) and "--on-corrupt skip" in error.value.hint
    data = load(base, on_corrupt="skip")
    assert data.notes["skipped"] == "1 corrupt in train" and len(data.train) == 8
    target.rename(tmp_path / "moved.png")
    loading._load.cache_clear()
    assert len(load(base).train) == 9


def test_a_folder_that_cannot_be_listed_is_named(tmp_path):
    from benchmark.data import files

    (tmp_path / "file").write_text("")
    for listing in (files.class_folders, files._list_folder, lambda path: files.list_folders(path, ["x"])):
        with pytest.raises(DataError, match="Not a directory") as error:
            listing(str(tmp_path / "file"))
        assert str(tmp_path / "file") in error.value.where


@pytest.mark.parametrize(
    "spoil, kind, message",
    [
        (lambda b: (b / "val" / "bee").rename(b / "bee"), DataError, "missing: bee"),
        (lambda b: (b / "val" / "dog").mkdir(), DataError, "not expected: dog"),
        (lambda b: (b / "val" / "bee").rename(b / "val" / "wasp"), DataError, "missing: bee; not expected: wasp"),
        (lambda b: [f.unlink() for f in (b / "train" / "bee").iterdir()], DataError, "without images: bee"),
        (
            lambda b: (b / "val").rename(b / "holdout"),
            MissingError,
            "no folder val/, validation/, valid/, test/ or testing/",
        ),
        (lambda b: (b / "train").rename(b / "learn"), MissingError, "no folder train/"),
        (lambda b: b.rename(b.parent / "moved"), MissingError, "no folder "),
    ],
)
def test_bad_trees(tmp_path, spoil, kind, message):
    base = tree(tmp_path / "pets")
    spoil(base)
    with pytest.raises(kind, match=message) as error:
        load(base)
    assert str(base) in str(error.value) and error.value.exit_code == 3
    assert not (tmp_path / "cache").exists()


def test_digest_is_of_content_not_of_place(tmp_path):
    import shutil

    from benchmark.data import loading

    base = tree(tmp_path / "pets")
    first = load(base).digest
    shutil.copytree(base, tmp_path / "copy")
    assert load(tmp_path / "copy").digest == first
    noise(99).save(base / "train" / "ant" / "0.png")
    loading._load.cache_clear()
    changed = load(base)
    assert changed.digest != first
    np.testing.assert_array_equal(changed.train.images([0])[0].numpy(), np.asarray(noise(99)).transpose(2, 0, 1))
    noise([0, 0, 5]).save(base / "train" / "ant" / "0.png")
    loading._load.cache_clear()
    assert load(base).digest == first
    shutil.move(base / "train" / "ant" / "2.png", base / "train" / "bee" / "-.png")  # the same order, another label
    loading._load.cache_clear()
    assert load(base).digest != first


def test_large_trees_are_identified_by_their_listing(tmp_path, monkeypatch):
    from benchmark.data import external, files, loading

    base = tree(tmp_path / "pets")
    monkeypatch.setattr(external, "CONTENT_FILES", 5)
    monkeypatch.setattr(files, "file_digest", lambda path: pytest.fail("a large tree was hashed"))
    first = load(base).digest
    noise(99, (40, 40)).save(base / "train" / "ant" / "0.png")
    loading._load.cache_clear()
    assert load(base).digest != first


def test_a_store_that_cannot_be_written_only_costs_time(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "file" / "below"))
    assert load(tree(tmp_path / "pets")).train.images(range(9)).shape == (9, 3, 20, 20)


def test_listing_is_cached_by_folder_times(tmp_path, monkeypatch):
    from benchmark.data import files

    base = tree(tmp_path / "pets")
    monkeypatch.setattr(files, "CACHED_FROM", 1)
    first = files.scan(base / "train", CLASSES)
    calls = []
    real = files._list_folder
    monkeypatch.setattr(files, "_list_folder", lambda path: calls.append(path) or real(path))
    again = files.scan(base / "train", CLASSES)
    assert not calls and [again.path(i) for i in range(9)] == [first.path(i) for i in range(9)]
    np.testing.assert_array_equal(again.mtimes, first.mtimes)
    noise(3).save(base / "train" / "bee" / "new.png")
    assert len(files.scan(base / "train", CLASSES)) == 10 and calls


def test_map_keeps_order_and_raises(tmp_path, monkeypatch):
    from benchmark.data import files, holdout

    monkeypatch.setattr(files, "BATCH", 2)
    base = tree(tmp_path / "pets", size=(90, 70), suffix=".jpg", train=5)
    data = load(base)
    chosen = [14, 3, 0, 7, 7]
    got = list(data.train.map(lambda image: image.tobytes(), chosen))
    assert got == [data.train.pil(i).tobytes() for i in chosen]
    part = holdout(data, 0.4).test
    assert list(part.map(lambda image: image.tobytes(), [2]))[0] == data.train.pil(int(part.indices[2])).tobytes()
    truncate(base / "train" / "ant" / "3.jpg")
    with pytest.raises(DataError, match="ant/3.jpg"):
        list(data.train.map(lambda image: image.size, chosen))


@pytest.mark.parametrize("name", ["imagefolder:", "imagefolder: "])
def test_no_path_at_all(name):
    with pytest.raises(UsageError, match="imagefolder: names no folder"):
        load_dataset(name)


def test_a_class_whose_name_is_no_text_is_refused(tmp_path):
    base = tree(tmp_path / "pets")
    for part in ("train", "val"):
        os.rename(base / part / "ant", os.fsencode(base / part) + b"/go\xff")
    with pytest.raises(DataError, match="is no name for a class"):
        load(base)


def test_a_fifo_among_the_images_is_skipped_or_named_and_never_waited_for(tmp_path):
    base = tree(tmp_path / "pets")
    os.mkfifo(base / "train" / "ant" / "z.png")
    with pytest.raises(DataError, match="no regular file"):
        load(base)
    assert "1 corrupt in train" in load(base, on_corrupt="skip").notes["skipped"]


def test_data_changed_under_equal_sizes_and_times_is_noticed_when_hashed_anew(tmp_path, monkeypatch):
    from benchmark.core.store.keys import hashing_anew
    from benchmark.data import external, loading

    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))
    base = tree(tmp_path / "pets", suffix=".bmp")
    first = load(base).digest
    file = base / "train" / "ant" / "0.bmp"
    stamp, content = file.stat(), bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    loading._load.cache_clear()
    assert load(base).digest == first  # sizes and times are equal
    external.changed.clear()
    with hashing_anew():
        fresh = load(base).digest
    assert fresh != first and "content" in external.changed
    loading._load.cache_clear()
    assert load(base).digest == fresh  # remembered


@pytest.mark.parametrize("names", [("train", "valid"), ("Training", "Testing")])
def test_other_names_of_the_splits(tmp_path, names):
    base = tree(tmp_path / "pets")
    for old, new in zip(("train", "val"), names):
        (base / old).rename(base / new)
    assert len(load(base).train) == 9


def test_files_that_are_not_read_are_counted(tmp_path):
    from click.testing import CliRunner

    from benchmark.cli.doctor import doctor

    base = tree(tmp_path / "pets")
    assert "not read" not in load(base).notes
    for i in range(3):
        noise(i).save(base / "train" / "ant" / f"{i}.tif")
    (base / "train" / "ant" / ".DS_Store").touch()
    (base / "val" / "ant" / "notes").mkdir()
    loading._load.cache_clear()
    assert load(base).notes["not read"] == "train: 3 (3 .tif); test: 1 (1 without extension)"
    shown = CliRunner().invoke(doctor, ["--dataset", f"imagefolder:{base}", "--device", "cpu"], standalone_mode=False)
    assert "3 .tif" in shown.output and "unread" in shown.output


def test_a_path_is_no_name(tmp_path):
    base = tree(tmp_path / "home" / "me" / "pets")
    named, path = load_dataset(f"animals={base}"), load(base)
    below, linked = load_dataset("imagefolder:pets", str(base.parent)), load_dataset("animals=pets", str(base.parent))
    assert named.name == linked.name == "animals" and path.name == below.name == "imagefolder:pets"
    assert len({data.digest for data in (named, path, below, linked)}) == 1
    assert load_dataset(f"animals={base}@val").name == "animals@val"
    assert load_dataset(f"animals=imagefolder:{base}", image_size=8).image_size == 8
    with pytest.raises(UsageError, match="'digits' is a dataset that is known"):
        load_dataset(f"digits={base}")
    with pytest.raises(MissingError, match="no folder nowhere") as error:
        load_dataset("animals=nowhere")
    assert "NAME=PATH" in error.value.hint
