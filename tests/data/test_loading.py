import shlex
import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from benchmark.core.errors import DataError, MissingError, UsageError
from benchmark.data import digits, holdout, load_dataset, loading
from benchmark.data.registered import DATASETS
from benchmark.plugins.registry import registry


def test_digits_are_sklearns_in_a_fixed_stratified_split():
    data, bunch = load_dataset("digits"), load_digits()
    assert (len(data.train), len(data.test), data.image_size, data.channels) == (1347, 450, 8, 1)
    assert data.digest == digits.DIGEST
    known = {image.tobytes(): label for image, label in zip(bunch.images.astype(np.uint8), bunch.target)}
    seen = set()
    for split in (data.train, data.test):
        pixels = split.images(range(len(split))).numpy()
        assert pixels.shape == (len(split), 1, 8, 8) and pixels.max() == 255
        for image, label in zip(pixels[:, 0], split.labels):
            raw = np.rint(image.astype(float) * 16 / 255).astype(np.uint8).tobytes()
            assert known[raw] == label
            seen.add(raw)
    assert len(seen) == len(known)  # nothing lost, nothing in both splits
    shares = [len(test) / (len(test) + len(train)) for test, train in zip(data.test.by_class, data.train.by_class)]
    assert len(shares) == 10 and max(abs(share - 0.25) for share in shares) < 0.01
    floats = data.train.images(range(len(data.train))).numpy() / 255
    assert data.mean[0] == pytest.approx(floats.mean()) and data.std[0] == pytest.approx(floats.std())


def test_another_digits_release_is_refused(monkeypatch):
    import sklearn.datasets

    bunch = load_digits()
    bunch.images[17, 3, 3] += 1
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda: bunch)
    with pytest.raises(DataError, match="not those this benchmark knows"):
        load_dataset("digits")


def test_loaded_once_a_process():
    assert load_dataset("digits") is load_dataset("digits")
    assert load_dataset("digits@val") is load_dataset("digits@val")


def test_holdout_cuts_the_training_split_only():
    whole, cut = load_dataset("digits"), load_dataset("digits@val")
    assert cut.name == "digits@val" and cut.digest != whole.digest
    kept, held = cut.train.indices, cut.test.indices
    assert cut.train._parent is whole.train and cut.test._parent is whole.train
    assert sorted([*kept, *held]) == list(range(len(whole.train)))
    assert len(held) == pytest.approx(0.2 * len(whole.train), abs=5)
    np.testing.assert_array_equal(cut.test.labels, whole.train.labels[held])
    np.testing.assert_array_equal(cut.test.images([0, 5]).numpy(), whole.train.images(held[[0, 5]]).numpy())
    assert cut.train.pil(3).tobytes() == whole.train.pil(int(kept[3])).tobytes()


def test_holdout_depends_on_fraction_and_seed():
    whole = load_dataset("digits")
    a, b, c = holdout(whole, 0.2, 0), holdout(whole, 0.2, 1), holdout(whole, 0.3, 0)
    assert len({a.digest, b.digest, c.digest}) == 3
    assert a.digest == holdout(whole, 0.2, 0).digest
    assert set(a.test.indices) != set(b.test.indices)
    assert all(len(members) >= 1 for members in holdout(whole, 0.001).test.by_class)


def test_unknown_name_says_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'cifar10'"):
        load_dataset("cifr10")


def test_unknown_option_and_bad_value():
    with pytest.raises(UsageError, match="did you mean 'image_size'"):
        load_dataset("imagefolder:x", imagesize=32)
    with pytest.raises(UsageError, match="image_size cannot be 2"):
        load_dataset("imagefolder:x", image_size=2)
    with pytest.raises(UsageError, match="on_corrupt cannot be 'ignore'"):
        load_dataset("imagefolder:x", on_corrupt="ignore")
    with pytest.raises(UsageError, match="no option 'image_size'"):
        load_dataset("digits", image_size=32)


@pytest.mark.parametrize(
    "info", [i for i in DATASETS if i.name not in ("digits", "imagefolder:")], ids=lambda i: i.name
)
def test_missing_data_says_where_and_how(info, tmp_path, monkeypatch):
    from benchmark.data import idx

    monkeypatch.setattr(idx, "DEBIAN", tmp_path / "debian")
    assert registry().get("dataset", f"{info.name}@val") is registry().get("dataset", info.name)
    with pytest.raises(MissingError) as none:
        load_dataset(info.name)
    assert "--data-root" in none.value.hint and "DDBENCH_DATA" in none.value.where
    with pytest.raises(MissingError) as empty:
        load_dataset(info.name, str(tmp_path))
    assert str(tmp_path) in empty.value.where and empty.value.exit_code == 3
    assert not (tmp_path / "cache").exists()  # nothing half-written
    monkeypatch.setenv("DDBENCH_DATA", str(tmp_path))
    with pytest.raises(MissingError, match=str(tmp_path)):
        load_dataset(info.name)


def test_a_class_is_known_by_its_own_training_images(tmp_path):
    """Not by other classes, the test split, the order of classes or the size at which images are read."""
    rng = np.random.default_rng(0)

    def write(root, split, name, count):
        (root / split / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(root / split / name / f"{i}.png")

    for split in ("train", "val"):
        for name in ("bee", "cow", "dog"):
            write(tmp_path / "all", split, name, 3)

    def digests(root, **options):
        loading._load.cache_clear()  # datasets are loaded once a process
        data = loading.load_dataset(f"imagefolder:{root}", **options)
        return {name: data.train.class_digest(c) for c, name in enumerate(data.classes)}, data.digest

    first, whole = digests(tmp_path / "all")
    assert len(set(first.values())) == 3
    assert digests(tmp_path / "all", image_size=8)[0] == first
    shutil.copytree(tmp_path / "all", tmp_path / "part")
    for split in ("train", "val"):
        shutil.rmtree(tmp_path / "part" / split / "bee")
    (tmp_path / "part" / "val" / "cow" / "0.png").unlink()
    part, other = digests(tmp_path / "part")
    assert part == {k: first[k] for k in ("cow", "dog")} and other != whole
    (tmp_path / "all" / "train" / "bee" / "1.png").unlink()
    after, _ = digests(tmp_path / "all")
    assert {k for k in first if after[k] != first[k]} == {"bee"}


def test_commands_in_hints_quote_the_data_root(tmp_path):
    root = tmp_path / "my data; touch x"
    root.mkdir()
    with pytest.raises(MissingError) as none:
        load_dataset("cifar10", root=root)
    words = shlex.split(none.value.hint.partition("   ")[0])
    assert str(root) in words and "x" not in words, none.value.hint
