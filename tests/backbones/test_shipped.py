"""The digits backbone and teacher that come with the package are those of today's recipe, and as good as their card."""

import json

import numpy as np
import pytest
import torch

from benchmark.backbones import folder as folders
from benchmark.backbones import load_backbone, train_backbone
from benchmark.backbones.dit import Moments, validation_error
from benchmark.backbones.settings import settings
from benchmark.backbones.stages import backbone_stage_of, hold_out
from benchmark.core.compute import prepared
from benchmark.core.store import Store
from benchmark.data import load_dataset
from benchmark.evaluation.protocols import load_protocol
from benchmark.teachers import get_teacher, teacher_stage


@pytest.fixture
def digits(monkeypatch):
    monkeypatch.setenv("DDBENCH_SHIPPED", "1")
    return load_dataset("digits")


def stages(dataset):
    chosen = settings(dataset, "tiny")
    teacher = load_protocol("soft").teacher_of(dataset)
    return chosen, teacher, backbone_stage_of(dataset, chosen), teacher_stage(dataset, teacher)


def test_the_recipe_is_the_shipped_one(digits, store, monkeypatch):
    """A recipe that changes has another key: then the shipped networks must be made again."""
    _, _, backbone, teacher = stages(digits)
    assert store.has(backbone) and store.has(teacher)
    monkeypatch.setenv("DDBENCH_SHIPPED", "0")
    assert not store.has(backbone) and store.open(teacher) is None


def test_a_damaged_copy_is_brought_in_again(digits, store, capsys):
    _, _, _, teacher = stages(digits)
    file = store.open(teacher) / "report.json"
    file.write_text("{}")
    again = Store(store.root)
    assert again.open(teacher) is None and "set aside" in capsys.readouterr().err
    assert json.loads((again.open(teacher) / "report.json").read_text())["accuracy"] > 98


def test_shipped_networks_are_as_good_as_their_card(digits, store):
    """Validation loss of the backbone, recognised images of the teacher: computed again, not read."""
    chosen, name, stage, _ = stages(digits)
    with prepared("backbone"):
        folder = train_backbone(store, digits, "tiny")  # brought in, not trained
        backbone = load_backbone(folder, digits, "cpu", chosen.policy, stage.key)
        held = hold_out(digits)
        mean, std = backbone.moments(digits.train.images(held, backbone.content_size, backbone.channels))
        order = np.argsort(digits.train.labels[held], kind="stable")  # the card's: class by class
        labels = torch.from_numpy(digits.train.labels[held])
        alphas = backbone.scheduler.alphas_cumprod
        found = validation_error(
            backbone.dit, Moments(mean[order], std[order], labels[order]), alphas, chosen.policy, "cpu", limit=512
        )
    card = folders.report(folder)
    loss = sum(error for _, error in found) / len(found)
    assert loss == pytest.approx(card["validation"]["loss"], rel=1e-3)
    assert card["samples"]["recognised_guidance_4"] > 95
    images = digits.train.images(held)
    right = (get_teacher(store, digits, name).logits(images).argmax(1) == labels).float().mean()
    assert float(right) > 0.97


@pytest.mark.retrain
def test_training_again_gives_the_shipped_networks(digits, tmp_path, monkeypatch):
    """Bit for bit on the kind of processor that made them, else a card within its sampling error."""
    _, _, stage, _ = stages(digits)
    brought = Store(tmp_path / "a").open(stage)
    monkeypatch.setenv("DDBENCH_SHIPPED", "0")
    monkeypatch.delenv("DDBENCH_THREADS", raising=False)
    made = train_backbone(Store(tmp_path / "b"), digits, "tiny")
    print(folders.difference(brought, made))
    old, new = folders.report(brought), folders.report(made)
    assert new["validation"]["loss"] == pytest.approx(old["validation"]["loss"], rel=0.03)
    for guidance in (1, 2, 4):
        name = f"recognised_guidance_{guidance}"
        assert new["samples"][name] == pytest.approx(old["samples"][name], abs=6)


def test_retrain_uses_nothing_that_the_package_brings_and_compares(digits, tmp_path, monkeypatch):
    """The command trains in a store of its own (here: finds there what it would train) and says how far weights are."""
    import shutil

    from click.testing import CliRunner
    from safetensors.torch import load_file, save_file

    from benchmark.cli.backbone import backbone

    _, _, stage, _ = stages(digits)
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))
    made = tmp_path / "made"
    shutil.copytree(Store(tmp_path / "a").open(stage), made)
    asked = []

    def train(store, dataset, preset, device, *, run):
        asked.append((store.root, store.has(stage)))
        return made

    monkeypatch.setattr("benchmark.backbones.training.train_backbone", train)
    command = ["train", "--dataset", "digits", "--device", "cpu", "--retrain"]
    first = CliRunner().invoke(backbone, command, catch_exceptions=False)
    assert asked == [(tmp_path / "cache" / "retrained", False)] and "equal bit for bit" in first.output
    file = made / "vae/diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    next(iter(weights.values()))[0] += 0.5
    save_file(weights, file)
    monkeypatch.setenv("DDBENCH_SHIPPED", "1")
    assert "differ by up to 0.5" in CliRunner().invoke(backbone, command, catch_exceptions=False).output
