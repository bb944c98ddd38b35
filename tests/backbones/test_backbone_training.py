"""Training: one label for all blocks, exact resume, the folder's format, settings."""

import json
import os
from pathlib import Path

import pytest
import torch
from diffusers import DiTPipeline
from safetensors.torch import load_file, save_file
from toy_backbones import TINY, Killed, make_dataset

from benchmark.backbones import backbone_stage, load_backbone, train_backbone
from benchmark.backbones.dit import (
    Denoising,
    Moments,
    build_dit,
    drop_labels,
    label_tables,
    loss_weights,
    make_scheduler,
)
from benchmark.backbones.dit import noise_levels as draw_levels
from benchmark.backbones.latents import Rows, mapped
from benchmark.backbones.settings import Settings, default_padding, settings
from benchmark.backbones.vae import build_vae, normalise
from benchmark.core.compute import Precision, generator
from benchmark.core.errors import UsageError
from benchmark.core.store import Stage
from benchmark.training import loop as loop_module
from benchmark.training.loop import Averaged, batches, rate_at, train

SMALL = Settings(image_size=8, levels=2, width=16, heads=2, depth=3, vae_width=8)


def weights(folder):
    return {
        f"{part}/{k}": v
        for part in ("transformer", "vae")
        for k, v in load_file(folder / part / "diffusion_pytorch_model.safetensors").items()
    }


def test_all_blocks_see_the_same_label():
    """diffusers' own label dropout draws per block; here each image is conditional or unconditional throughout."""
    dit = build_dit(SMALL, 3).train()
    seen = []
    for table in label_tables(dit):
        table.embedding_table.register_forward_hook(lambda m, args, out: seen.append(args[0].clone()))
    task = Denoising(
        Moments(torch.randn(64, 4, 4, 4), torch.ones(64, 4, 4, 4), torch.randint(0, 3, (64,))),
        3,
        0.5,
        5.0,
        make_scheduler(),
        Precision(),
        "cpu",
        ("t",),
    )
    task.loss(dit, 0, 64)
    assert len(seen) == 4  # three blocks, and the first one's once more for the output layer
    assert all(torch.equal(seen[0], other) for other in seen)
    dropped = float((seen[0] == 3).float().mean())
    assert 0.2 < dropped < 0.8
    assert len({int(label) for label in seen[0]}) == 4


def test_dropping_labels():
    labels = torch.tensor([0, 1, 2, 0])
    found = drop_labels(labels, 3, 0.5, torch.tensor([0.4, 0.6, 0.49, 0.5]))
    assert found.tolist() == [3, 1, 3, 0]


def test_noise_levels_cover_evenly():
    levels = draw_levels(50, generator("x"))
    assert sorted(int(t) // 20 for t in levels) == list(range(50))


def test_min_snr_weights():
    alphas = torch.tensor([0.99, 0.5, 0.01])  # snr 99, 1, 1/99
    torch.testing.assert_close(loss_weights(alphas, 5.0), torch.tensor([5 / 99, 1.0, 1.0]))
    assert loss_weights(alphas, 0.0).tolist() == [1, 1, 1]


def test_untrained_dit_predicts_zero():
    """adaLN-zero: blocks are the identity and the output layer is zero."""
    output = build_dit(SMALL, 3)(torch.randn(2, 4, 4, 4), torch.tensor([1, 2]), torch.tensor([0, 1])).sample
    assert float(output.detach().abs().max()) == 0


def test_normalised_latents_decode_to_the_same_image():
    torch.manual_seed(0)
    vae = build_vae(SMALL, 1).eval()
    images = torch.randint(0, 256, (64, 1, 8, 8), dtype=torch.uint8)
    pixels = images.float() / 127.5 - 1
    with torch.no_grad():
        before = vae.decode(vae.encode(pixels).latent_dist.mean).sample
        normalise(vae, images, "cpu")
        found = vae.encode(pixels).latent_dist
        after = vae.decode(found.mean).sample
        draws = torch.cat([found.sample(generator("n", i)) for i in range(40)])
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(draws.mean(dim=(0, 2, 3)), torch.zeros(4), rtol=0, atol=0.05)
    torch.testing.assert_close(draws.std(dim=(0, 2, 3)), torch.ones(4), rtol=0, atol=0.05)


def test_batches_visit_every_image_once_an_epoch():
    seen = torch.cat([batches(10, 4, step, "s") for step in range(5)])
    assert sorted(seen[:10].tolist()) == sorted(seen[10:].tolist()) == list(range(10))
    assert seen[:10].tolist() != seen[10:].tolist()


def test_learning_rate():
    assert rate_at(0, 100, 0.1) == pytest.approx(0.1)
    assert rate_at(9, 100, 0.1) == pytest.approx(1)
    assert rate_at(99, 100, 0.1) < 0.01


def fit(store, die_at=None, total=60):
    """A small regression by the resumable loop; returns weights, their average, and the curve."""
    torch.manual_seed(3)
    model = torch.nn.Linear(4, 2)
    state = Averaged(model, 1e-2, 0.01, 0.05)

    def step(index):
        if index == die_at:
            raise Killed
        x = torch.randn(8, 4, generator=generator("fit", index))
        loss = (model(x) - x[:, :2]).square().mean()
        loss.backward()
        state.step(index, rate_at(index, total, 0.1))
        return float(loss.detach())

    curve = train(store, Stage("test.fit", 1), "fit", total, state, step, lambda: float(model.weight.detach().sum()))
    return [p.detach().clone() for p in model.parameters()], state.average, [(r[0], r[2], r[3]) for r in curve]


def test_kill_and_resume_gives_equal_weights(store, tmp_path, monkeypatch):
    from benchmark.core.store import Store

    whole = fit(Store(tmp_path / "undisturbed"))
    for die_at in (27, 41):
        with pytest.raises(Killed):
            fit(store, die_at)
    resumed = fit(store)
    for one, other in zip(whole[0] + whole[1], resumed[0] + resumed[1]):
        assert torch.equal(one, other)
    assert whole[2] == resumed[2]
    begun = sum(json.loads(line)["steps"] for line in (store.root / "work.jsonl").read_text().splitlines())
    assert begun > 60  # kills cost something, and it is counted


def test_average_forgets_the_start(store):
    """The power-function average of a ramp lags by a fixed share of the run."""
    weight = torch.nn.Linear(1, 1, bias=False)
    state = Averaged(weight, 0.0, 0.0, 0.05)
    for index in range(1000):
        weight.weight.data.fill_(index / 1000)
        weight(torch.zeros(1, 1)).sum().backward()
        state.step(index, 0.0)
    gamma = loop_module._gamma(0.05)
    assert float(state.average[0]) == pytest.approx((gamma + 1) / (gamma + 2), abs=2e-3)
    assert gamma == pytest.approx(16.97, abs=0.01)  # arXiv 2312.02696, table 5


def test_train_backbone_kill_and_resume(store, toy, judge, tmp_path, monkeypatch):
    from benchmark.core.store import Store

    monkeypatch.setattr(loop_module, "FIRST_INTERVAL", 5)
    monkeypatch.setattr(loop_module, "INTERVAL_SECONDS", 0.02)
    whole = train_backbone(Store(tmp_path / "undisturbed"), toy, "tiny", "cpu", **TINY)
    real, count = Averaged.step, [0]

    def dying(self, done, rate):
        count[0] += 1
        if count[0] in (6, 25):
            raise Killed
        real(self, done, rate)

    monkeypatch.setattr(Averaged, "step", dying)
    for _ in range(2):
        with pytest.raises(Killed):
            train_backbone(store, toy, "tiny", "cpu", **TINY)
    resumed = train_backbone(store, toy, "tiny", "cpu", **TINY)
    one, other = weights(whole), weights(resumed)
    assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
    assert resumed.name == backbone_stage(toy, "tiny", **TINY).key
    # the folder: diffusers' own, with what ddbench adds
    assert isinstance(DiTPipeline.from_pretrained(resumed, low_cpu_mem_usage=False), DiTPipeline)
    card = json.loads((resumed / "report.json").read_text())
    assert len(card["validation"]["levels"]) == 10 and card["samples"]["count"] == 30
    assert {"recognised_guidance_1", "recognised_guidance_4"} <= card["samples"].keys()
    assert (resumed / "report.png").stat().st_size > 1000
    curve = json.loads((resumed / "curve.json").read_text())["dit"]
    assert curve[-1][0] == 30 and curve[-1][3] < 1.05
    backbone = load_backbone(resumed, toy, "cpu", Precision(), resumed.name)
    assert backbone.report == card and backbone.vae.config.scaling_factor == 1.0
    latents = backbone.encode(toy.train.images(range(75)))
    assert 0.8 < float(latents.std()) < 1.2
    # the VAE is shared by other DiTs: its stage does not depend on theirs
    calls = []
    monkeypatch.setattr("benchmark.backbones.training.train_vae", lambda *a: calls.append(a))
    train_backbone(store, toy, "tiny", "cpu", **{**TINY, "depth": 1, "dit_steps": 2})
    assert not calls


def test_settings_errors(toy):
    with pytest.raises(UsageError, match="did you mean 'dit_steps'"):
        settings(toy, "tiny", dit_step=3)
    with pytest.raises(UsageError, match="unknown backbone 'tin'"):
        settings(toy, "tin")
    with pytest.raises(UsageError, match="must be int"):
        settings(toy, "tiny", dit_steps="many")
    with pytest.raises(UsageError, match="does not divide"):
        settings(toy, "tiny", image_size=10, levels=2)
    with pytest.raises(UsageError, match="at least 1"):
        settings(toy, "tiny", dit_steps=0)


@pytest.mark.parametrize(
    ("size", "working", "padding"), [(28, 32, 2), (32, 32, 0), (20, 32, 0), (27, 32, 0), (8, 16, 0)]
)
def test_padding_for_images_a_little_too_small(size, working, padding):
    assert default_padding(size, working) == padding


def test_stage_follows_settings_and_data(toy):
    keys = {
        backbone_stage(toy, "tiny").key,
        backbone_stage(toy, "small").key,
        backbone_stage(toy, "tiny", dit_steps=3).key,
        backbone_stage(make_dataset(each=30), "tiny").key,
    }
    assert len(keys) == 4
    assert backbone_stage(toy, "tiny", dit_steps="3").key in keys


def test_moments_stay_on_disk(tmp_path):
    """Rows of mapped files equal the loaded tensors; reading all of them takes no memory of the process's own."""

    def own_memory():
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(status["RssAnon"].split()[0]) << 10

    def write(index, count, kind):
        tensors = {
            "std": torch.randn(count, 4, 32, 32, generator=generator("s", index)).to(kind),
            "mean": torch.randn(count, 4, 32, 32, generator=generator("m", index)).to(kind),
        }
        save_file(tensors, tmp_path / f"{index}.safetensors", metadata={"a": "b"})
        return tensors["mean"]

    for kind in (torch.float16, torch.float32):
        whole = torch.cat([write(i, n, kind) for i, n in enumerate((256, 44, 1, 256))])
        means = Rows([mapped(tmp_path / f"{i}.safetensors")["mean"] for i in range(4)])
        chosen = torch.tensor([556, 0, 255, 256, 299, 300, 301, 0])
        assert len(means) == 557 and torch.equal(means[chosen], whole[chosen])
        kept = means.take(torch.arange(557) % 2 == 1)
        assert len(kept) == 278 and torch.equal(kept[torch.tensor([0, 277, 3])], whole[torch.tensor([1, 555, 7])])
    for index in range(8):
        write(index, 512, torch.float32)
    before, files = own_memory(), len(os.listdir("/proc/self/fd"))
    means = Rows([mapped(tmp_path / f"{i}.safetensors")["mean"] for i in range(8)])  # 64 MB
    for step in range(64):
        means[batches(len(means), 64, step, "rows")]
    assert own_memory() - before < 16 << 20
    assert len(os.listdir("/proc/self/fd")) == files  # ImageNet-1K has more files than a process may have open
