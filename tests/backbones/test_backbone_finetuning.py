"""Fine-tuning: new label tables, what is trained, exact resume, report card before and after."""

import json

import pytest
import torch
from safetensors.torch import load_file
from toy_backbones import Killed, make_dataset, write_folder

from benchmark.backbones import external_key, load_backbone
from benchmark.backbones.backbone import load_parts
from benchmark.backbones.dit import label_tables
from benchmark.backbones.finetuning import FinetuneSettings, finetune_backbone, finetune_stage, known_rows, relabel
from benchmark.core.compute import Precision
from benchmark.core.errors import DataError, UsageError
from benchmark.core.store import Store
from benchmark.training import loop as loop_module
from benchmark.training.loop import Averaged

QUICK = {"steps": 12, "batch": 8, "lr": 1e-3}


def transformer(folder):
    return load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def four():
    return make_dataset(("a", "b", "c", "d"), name="four")


@pytest.mark.parametrize("learned_sigma", [False, True])
def test_light_leaves_every_other_parameter_equal(tmp_path, four, store, judge, learned_sigma):
    source = write_folder(tmp_path / "s", learned_sigma=learned_sigma)
    chosen = FinetuneSettings(parameters="light", **QUICK)
    folder = finetune_backbone(store, source, four, chosen)
    before, after = transformer(source), transformer(folder)
    assert before.keys() == after.keys()
    trained = {k for k in before if before[k].shape != after[k].shape or not torch.equal(before[k], after[k])}
    assert all(k.endswith("bias") or "embedding_table" in k for k in trained)
    assert any(k.endswith("ff.net.2.bias") for k in trained)
    assert load_file(source / "vae/diffusion_pytorch_model.safetensors").keys() == (
        load_file(folder / "vae/diffusion_pytorch_model.safetensors").keys()
    )
    backbone = load_backbone(folder, four, "cpu", Precision(), folder.name)
    assert backbone.num_classes == 4 and backbone.null_class == 4 and backbone.learned_sigma == learned_sigma
    assert folder.name == finetune_stage(four, external_key(source), chosen).key


def test_full_trains_the_weights_and_reports_before_and_after(folder, four, store, judge):
    made = finetune_backbone(store, folder, four, FinetuneSettings(steps=60, batch=8, lr=3e-3))
    before, after = transformer(folder), transformer(made)
    assert not torch.equal(before["proj_out_2.weight"], after["proj_out_2.weight"])
    card = json.loads((made / "report.json").read_text())
    assert card["validation"]["loss"] < card["before"]["validation"]["loss"]


def test_kill_and_resume_gives_equal_weights(folder, four, store, judge, tmp_path, monkeypatch):
    monkeypatch.setattr(loop_module, "FIRST_INTERVAL", 3)
    monkeypatch.setattr(loop_module, "INTERVAL_SECONDS", 0.01)
    chosen = FinetuneSettings(accumulate=2, **QUICK)
    whole = finetune_backbone(Store(tmp_path / "undisturbed"), folder, four, chosen)
    real = Averaged.step

    def dying(self, done, rate):
        if done == 8:
            raise Killed
        real(self, done, rate)

    with monkeypatch.context() as patch:
        patch.setattr(Averaged, "step", dying)
        with pytest.raises(Killed):
            finetune_backbone(store, folder, four, chosen)
    one, other = transformer(whole), transformer(finetune_backbone(store, folder, four, chosen))
    assert all(torch.equal(one[k], other[k]) for k in one)


def test_a_flipped_byte_is_noticed_and_made_again(folder, four, store, judge, capsys):
    chosen = FinetuneSettings(**QUICK)
    made = finetune_backbone(store, folder, four, chosen)
    before, key = {k: v.clone() for k, v in transformer(made).items()}, external_key(made)  # files are mapped, not read
    weights = made / "transformer" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)
    with pytest.raises(DataError, match="does not have the digest it was written with"):
        external_key(made)
    again = finetune_backbone(Store(store.root), folder, four, chosen)
    assert "set aside" in capsys.readouterr().err and external_key(again) == key
    assert all(torch.equal(before[k], tensor) for k, tensor in transformer(again).items())


def test_known_classes_keep_their_rows(folder):
    _, dit, _ = load_parts(folder, torch.float32)
    old = [t.embedding_table.weight.detach().clone() for t in label_tables(dit)]
    relabel(dit, {"a": 0, "b": 1, "c": 2}, ("c", "new", "a"), 0)
    for before, table in zip(old, label_tables(dit)):
        after = table.embedding_table.weight
        assert torch.equal(after[0], before[2]) and torch.equal(after[2], before[0])
        assert torch.equal(after[3], before[3])  # the unconditional row stays last
        assert not torch.equal(after[1], before[3])
        assert table.dropout_prob == 0 and after.requires_grad
    assert dit.config.num_embeds_ada_norm == 3


def test_imagenets_rows_are_kept_for_datasets_of_its_classes():
    from types import SimpleNamespace as Made

    hub, small = Made(config=Made(num_embeds_ada_norm=1000)), Made(config=Made(num_embeds_ada_norm=2))
    two = Made(classes=("tench", "church"), backbone_classes=(0, 497))
    own = Made(classes=("a", "b"), backbone_classes=None)
    assert known_rows(hub, None, two) == {"tench": 0, "church": 497}
    assert known_rows(hub, None, own) == {} and known_rows(small, None, own) == {"a": 0, "b": 1}
    assert known_rows(small, ["b", "c"], own) == {"b": 0, "c": 1}


def test_wrong_settings():
    with pytest.raises(UsageError, match="'half'"):
        FinetuneSettings(parameters="half")
    with pytest.raises(UsageError, match="does not divide"):
        FinetuneSettings(batch=10, accumulate=3)
    with pytest.raises(UsageError, match="at least 1"):
        FinetuneSettings(steps=0)
    with pytest.raises(UsageError, match="not trained in fp16"):
        FinetuneSettings(precision="fp16")
