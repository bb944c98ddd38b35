"""`doctor` on faults of a tree of 1000 classes: what it says to do, done, ends in "Ready"."""

import os
import shutil
import subprocess
import tarfile

import pytest
from click.testing import CliRunner
from imagenet_tree import build

from benchmark.cli.doctor import doctor
from benchmark.data import loading
from benchmark.data.wordnet import imagenet_wnids
from benchmark.testing.bench import write_backbone

FIRST, SECOND, LAST = (imagenet_wnids()[i] for i in (0, 1, 999))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A data root with the tree, and a backbone; every test mends what it broke."""
    root = tmp_path_factory.mktemp("doctor")
    build(root / "data" / "imagenet1k", train=1, val=1)
    write_backbone(root / "backbone", classes=1000)
    weights = root / "torch" / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"x")
    return root


@pytest.fixture
def said(place, monkeypatch):
    """Runs `doctor`: the actions it gives, none where it says "Ready"."""
    monkeypatch.setenv("DDBENCH_CACHE", str(place / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(place / "torch"))
    monkeypatch.delenv("DDBENCH_DATA", raising=False)

    def run(data=place / "data"):
        loading._load.cache_clear()
        options = ["--dataset", "imagenet1k", "--data-root", str(data), "--backbone", str(place / "backbone")]
        result = CliRunner().invoke(doctor, [*options, "--device", "cpu"], standalone_mode=False)
        assert result.exception is None, result.exception
        assert (result.return_value == 0) == ("Ready:" in result.output), result.output
        return [line.strip().partition(". ")[2] for line in result.output.partition("What to do:\n")[2].splitlines()]

    yield run
    loading._load.cache_clear()


def test_class_tars_beside_unpacked_classes(place, said):
    train = place / "data" / "imagenet1k" / "train"
    for wnid in (FIRST, LAST):
        with tarfile.open(train / f"{wnid}.tar", "w") as tar:
            for file in (train / wnid).iterdir():
                tar.add(file, file.name)
        shutil.rmtree(train / wnid)
    (action,) = said()
    subprocess.run(action, shell=True, check=True)
    assert not said()
    for wnid in (FIRST, LAST):
        (train / f"{wnid}.tar").unlink()


@pytest.mark.parametrize("part", ["train", "val"])
def test_folders_that_do_not_belong(place, said, part):
    shutil.copytree(place / "data" / "imagenet1k" / part / FIRST, place / "data" / "imagenet1k" / part / "n99999999")
    (action,) = said()
    subprocess.run(action, shell=True, check=True)
    assert not said()
    shutil.rmtree(place / "data" / "imagenet1k" / "unused")


def test_a_link_to_nowhere(place, said):
    folder, elsewhere = place / "data" / "imagenet1k" / "train" / SECOND, place / "elsewhere"
    shutil.move(folder, elsewhere)
    os.symlink(place / "unmounted", folder)
    (action,) = said()
    assert action.startswith(f"{folder} is a link to {place / 'unmounted'}, which is not there")
    elsewhere.rename(place / "unmounted")
    assert not said()


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_class_missing_or_empty(place, said, part):
    folder, aside = place / "data" / "imagenet1k" / part / LAST, place / "aside"
    shutil.move(folder, aside)
    (action,) = said()
    assert action.startswith(f"put the missing class folders into {folder.parent}")
    folder.mkdir()
    (action,) = said()
    assert action.startswith("put the class's images there")
    shutil.copytree(aside, folder, dirs_exist_ok=True)
    shutil.rmtree(aside)
    assert not said()


def test_the_data_root_is_a_split(place, said):
    actions = said(place / "data" / "imagenet1k" / "train")
    assert f"give the folder above: --data-root {place / 'data' / 'imagenet1k'}" in actions
    assert not said(place / "data" / "imagenet1k")
