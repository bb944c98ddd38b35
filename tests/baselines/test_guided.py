"""MGD3 and CaO2 against figures of the authors' code, and the sampler's hook that carries them.

The figures were made by running the fork of MGD3 (wenqi-cai297/earlyfusion-for-dd 6d933d8,
``p_sample_loop_with_mode_guidance``) and CaO2's loop (hatchetProject/CaO2 6381e50, ``sample_imagenet.py``) on the tiny
backbone below with its ``forward_with_cfg``, both fed the noise of the generators here. Ours was 4.9e-7 (50 guided
steps) and 8.2e-7 (of the move in 5 refinement steps) apart, relative to the norm.
"""

import pytest
import torch
from diffusers import DiTTransformer2DModel

from baselines.cao2 import CaO2Params, ranked, refine, refinement_loss
from baselines.mgd3 import centres, towards
from benchmark.backbones import sample, sampling_levels
from benchmark.backbones.backbone import Backbone
from benchmark.backbones.dit import fix_label_dropout, make_scheduler
from benchmark.core.compute import Precision
from benchmark.core.errors import UsageError
from benchmark.methods import Needs, make_params
from benchmark.plugins import registry
from benchmark.testing.bench import Bench

torch.set_num_threads(1)
CLASSES = torch.tensor([1, 2, 4])


def seeded(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def draws(count: int = 3) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(i) for i in range(count)]


def tiny(learned_sigma: bool = True) -> Backbone:
    """A random DiT of 4x4x4 latents and 5 classes."""
    torch.manual_seed(0)
    dit = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8 if learned_sigma else 4,
        num_layers=2,
        sample_size=4,
        patch_size=2,
        num_embeds_ada_norm=5,
    )
    for parameter in dit.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    fix_label_dropout(dit)
    return Backbone(
        vae=None,
        dit=dit.eval().requires_grad_(False),
        scheduler=make_scheduler(),
        device="cpu",
        precision=Precision(),
        image_size=32,
        latent_shape=(4, 4, 4),
        num_classes=5,
        null_class=5,
        learned_sigma=learned_sigma,
        class_map=torch.arange(5),
        key="",
        vae_key="",
    )


@pytest.fixture(scope="module")
def backbone():
    return tiny()


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("guided"))


# -- the sampler and its hook -----------------------------------------------------------------------------------------


def test_levels_are_those_of_the_two_samplers():
    ddpm = sampling_levels(make_scheduler(), 50, "ddpm")
    assert (ddpm[0], ddpm[1], ddpm[-26], ddpm[-2:]) == (999, 979, 510, [20, 0])
    assert sampling_levels(make_scheduler(), 50)[:2] == [980, 960]
    with pytest.raises(UsageError, match="at least 2 steps"):
        sampling_levels(make_scheduler(), 1, "ddpm")


def test_the_guided_loop_is_the_authors(backbone):
    """Norms of the latents; without the pull, and with guidance on all channels, they are others."""
    modes, above = seeded(9, 3, 4, 4, 4), sampling_levels(make_scheduler(), 50, "ddpm")[::-1][25]
    found = sample(backbone, CLASSES, 50, 4.0, draws(), form="ddpm", channels=3, hook=towards(modes, 0.1, above))
    figures = [65.38313, 60.73337, 49.39907]
    assert found.flatten(1).norm(dim=1).tolist() == pytest.approx(figures, rel=1e-4)
    assert found.mean().item() == pytest.approx(-0.9270846, rel=1e-4)
    others = [
        sample(backbone, CLASSES, 50, 4.0, draws(), form="ddpm", channels=3),
        sample(backbone, CLASSES, 50, 4.0, draws(), form="ddpm", hook=towards(modes, 0.1, above)),
    ]
    for other in others:
        assert other.flatten(1).norm(dim=1).tolist() != pytest.approx(figures, rel=1e-3)


def test_the_ddim_form_is_algorithm_1():
    """Written out in float64 from the paper, for a network whose prediction is known."""
    backbone, modes = tiny(), seeded(9, 2, 4, 4, 4)
    backbone.predict = lambda x, *_: (0.3 * x, None)  # type: ignore[method-assign]
    found = sample(backbone, CLASSES[:2], 10, 1.0, draws(2), hook=towards(modes, 0.1, 500))
    power = make_scheduler().alphas_cumprod.double()
    x = torch.stack([torch.randn(4, 4, 4, generator=g) for g in draws(2)]).double()
    for t in range(900, -1, -100):
        noise = 0.3 * x
        x0 = (x - (1 - power[t]).sqrt() * noise) / power[t].sqrt()
        if t > 500:
            noise = noise - (1 - power[t]).sqrt() * 0.1 * (modes - x0)
            x0 = (x - (1 - power[t]).sqrt() * noise) / power[t].sqrt()
        before = power[t - 100] if t else torch.tensor(1.0)
        x = before.sqrt() * x0 + (1 - before).sqrt() * noise
    torch.testing.assert_close(found.double(), x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["ddim", "ddpm"])
@pytest.mark.parametrize("learned", [True, False])
def test_an_image_depends_on_its_own_generator_and_a_hook_knows_which_it_is(form, learned):
    backbone, seen = tiny(learned), []

    def hook(x0, level, index):
        seen.append((level, index.tolist()))
        return None

    whole = sample(backbone, CLASSES, 5, 2.0, draws(), form=form)
    parts = sample(backbone, CLASSES, 5, 2.0, draws(), 2, form=form, hook=hook)
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-4)
    assert [index for _, index in seen[::5]] == [[0, 1], [2]]
    assert [level for level, _ in seen[:5]] == sampling_levels(backbone.scheduler, 5, form)


@pytest.mark.parametrize("form", ["ddim", "ddpm"])
def test_a_pull_moves_samples_towards_its_target(form):
    """The exact prediction for standard normal latents: plain samples are like them, pulled ones lie nearer 1."""
    backbone, power = tiny(False), make_scheduler().alphas_cumprod
    backbone.predict = lambda x, t, *_: ((1 - power[t]).sqrt() * x, None)  # type: ignore[method-assign]
    options = {"backbone": backbone, "classes": torch.zeros(20), "steps": 50, "guidance": 1.0, "form": form}
    plain = sample(generators=draws(20), **options)
    pulled = sample(generators=draws(20), hook=towards(torch.ones(20, 4, 4, 4), 1.0, -1), **options)
    assert abs(plain.mean()) < 0.1 and abs(plain.std() - 1) < 0.1
    assert pulled.mean() > 0.5 and pulled.std() < 0.6


# -- MGD3 -------------------------------------------------------------------------------------------------------------


def test_modes_are_the_means_of_separate_clusters():
    offsets = torch.tensor([-20.0, 0.0, 20.0]).view(3, 1, 1, 1)
    latents = seeded(0, 60, 1, 2, 2) * 0.1 + offsets[torch.arange(60) % 3]
    found = centres(latents, 3, seed=0)
    wanted = torch.stack([latents[i::3].mean(0) for i in range(3)])
    torch.testing.assert_close(found[found.flatten(1).mean(1).argsort()], wanted, rtol=1e-5, atol=1e-5)


def test_mgd3_uses_modes_of_the_class_and_stops_where_it_is_told(bench, monkeypatch):
    plain = bench.images("mgd3", 2, scale=0.0)
    assert any(not torch.equal(image, plain[cell]) for cell, image in bench.images("mgd3", 2).items())
    late = bench.images("mgd3", 2, stop=2)  # of 4 steps only the first is pulled
    assert any(not torch.equal(image, late[cell]) for cell, image in bench.images("mgd3", 2).items())
    with pytest.raises(UsageError, match="stop = 50 leaves no step"):
        cls = registry().get("method", "mgd3").load()
        make_params(cls, "mgd3", "digits", {"stop": 50})


# -- CaO2 -------------------------------------------------------------------------------------------------------------


def test_the_refinement_is_the_authors(backbone):
    """Five steps of three latents: lengths and sums of the moves, and the loss at the last step."""
    latents, bank = seeded(3, 3, 4, 4, 4), seeded(42, 16, 4, 4, 4)
    drawn = torch.tensor([[3, 7, 11], [1, 2, 5], [9, 9, 4], [2, 10, 6], [11, 1, 8]])
    noise, levels = bank[[0, 5, 2]], sampling_levels(backbone.scheduler, 50, "ddpm")[::-1]
    null = torch.full((3,), 5)
    moved = refine(backbone, latents, null, noise, drawn, levels, CaO2Params()) - latents
    assert moved.flatten(1).norm(dim=1).tolist() == pytest.approx([0.02156573, 0.02126657, 0.02194332], rel=1e-4)
    assert moved.flatten(1).sum(1).tolist() == pytest.approx([-0.02727731, -0.02601550, 0.01892505], rel=1e-3)
    before = refine(backbone, latents, null, noise, drawn[:4], levels, CaO2Params())
    share = backbone.scheduler.alphas_cumprod[torch.tensor(levels)[drawn[4]]].view(-1, 1, 1, 1)
    noised = share.sqrt() * before + (1 - share).sqrt() * noise
    losses = refinement_loss(noise, backbone.predict(noised, drawn[4], null, 1.0)[0], 10.0)
    assert losses.tolist() == pytest.approx([37.67482, 30.20479, 30.69494], rel=1e-4)
    told = refine(backbone, latents, null, noise, drawn, levels, CaO2Params(told="level")) - latents
    assert not torch.allclose(told, moved, rtol=1e-2)


def test_candidates_are_ranked_as_the_authors_scripts_do():
    """``sample_imagenet.py`` and ``sample_imagenet100.py`` here: right ones first, then by confidence."""
    share = torch.tensor([[0.6, 0.4], [0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.5, 0.5]])
    assert ranked(share.log(), 0, "confident").tolist() == [2, 0, 4, 1, 3]
    assert ranked(share.log(), 0, "unsure").tolist() == [4, 0, 2, 3, 1]


def test_each_part_of_cao2_can_be_switched_off(bench):
    method, task, units = bench.task("cao2", 2, select="none", refine_steps=0)
    assert method.needs() == Needs(backbone=True) and [w.stage for w in method.work(0, 4, 2)] == ["sample", "decode"]
    plain = bench.images("cao2", 2, select="none", refine_steps=0)
    assert set(bench.images("cao2", 2, select="none")) == set(plain)
    refined = bench.images("cao2", 2, select="none")
    chosen = bench.images("cao2", 2, refine_steps=0)
    for other in (refined, chosen):
        assert any(not torch.equal(other[cell], plain[cell]) for cell in plain)
    # what is selected is among the candidates: those of twice the IPC without selection
    pool = {image.numpy().tobytes() for image in bench.images("cao2", 4, select="none", refine_steps=0).values()}
    assert all(image.numpy().tobytes() in pool for image in chosen.values())


def test_a_backbone_without_a_null_class_is_named(bench, monkeypatch):
    monkeypatch.setattr(bench.backbone, "null_class", None)
    options = {"select": "none", "guidance": 1.0}
    with pytest.raises(UsageError, match="null class"):
        bench.images("cao2", 1, store="no-null", **options)
    assert bench.images("cao2", 1, store="no-null", condition="class", **options)
