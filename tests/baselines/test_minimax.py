"""Minimax: criteria and memories, the variational bound, the adapter and its folding, resuming.

The authors' loop (their DiT, ``training_losses``, criteria, memories, averaging) was run for 20 steps beside this code
on diffusers' DiT with the same weights, batches and noise: the same number of trained parameters, criteria within
7e-8, diffusion loss within 2.1e-5, folded averaged model within 8e-7. (diffusers' time features differ a little from
DiT's own, ``downscale_freq_shift`` 1 instead of 0; for that comparison they were made equal.)
"""

import copy
import math

import pytest
import torch
from diffusers import DiTTransformer2DModel
from torch.distributions import Normal, kl_divergence

from baselines.minimax.adapter import TABLE, Adapter, fold
from baselines.minimax.criteria import Memories, criteria
from baselines.minimax.tuning import Settings, Tuning
from baselines.minimax.variational import Bound
from benchmark.core.compute import Precision
from benchmark.testing.bench import Bench

torch.set_num_threads(1)
SETTINGS = Settings(4, 1e-2, 0.002, 0.008, 3, 0.9, 0.1)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("minimax"))


@pytest.fixture
def dit():
    torch.manual_seed(0)
    dit = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=4, in_channels=2, out_channels=4, num_layers=5, sample_size=4,
        num_embeds_ada_norm=3,
    )  # fmt: skip
    for parameter in dit.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    for block in dit.transformer_blocks:
        block.norm1.emb.class_embedder.dropout_prob = 0.0
    return dit.eval().requires_grad_(False)


def run(dit):
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(3, 2, 4, 4, generator=draw)
    return dit(x, timestep=torch.tensor([0, 500, 999]), class_labels=torch.tensor([0, 2, 3])).sample


def test_criteria_and_memories_by_hand():
    draw = torch.Generator().manual_seed(0)
    memories, real, predicted = Memories(3), {0: [], 1: []}, {0: [], 1: []}
    for _ in range(6):
        labels = torch.randint(0, 2, (4,), generator=draw)
        clean, guess = torch.randn(4, 2, 3, 3, generator=draw), torch.randn(4, 2, 3, 3, generator=draw)
        found = criteria(guess, clean, labels, memories)
        least = most = 0.0
        present = sorted(set(labels.tolist()))
        for c in present:
            mine = [guess[i].flatten() for i in range(4) if labels[i] == c]
            if predicted[c]:
                cosine = torch.nn.functional.cosine_similarity
                least += 1 - min(float(cosine(a, b.flatten(), dim=0)) for a in mine for b in real[c])
                most += max(float(cosine(a, b.flatten(), dim=0)) for a in mine for b in predicted[c])
            for i in range(4):
                if labels[i] == c:
                    real[c], predicted[c] = [*real[c], clean[i]][-3:], [*predicted[c], guess[i]][-3:]
        assert float(found[0]) == pytest.approx(least / len(present), abs=1e-6)
        assert float(found[1]) == pytest.approx(most / len(present), abs=1e-6)
        for c in present:
            assert torch.equal(memories.real[c], torch.stack(real[c]))
            assert torch.equal(memories.predicted[c], torch.stack(predicted[c]))


def test_memories_hold_no_gradients():
    memories = Memories(2)
    guess = torch.randn(2, 1, 2, 2, requires_grad=True)
    criteria(guess, torch.randn(2, 1, 2, 2), torch.zeros(2).long(), memories)
    assert not memories.predicted[0].requires_grad


def test_bound_is_the_divergence_of_the_posteriors():
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    alphas, draw = (1 - betas).cumprod(0), torch.Generator().manual_seed(0)
    clean, noisy, guess, raw = (torch.randn(3, 2, 2, 2, generator=draw) for _ in range(4))
    t = torch.tensor([1, 400, 999])
    found = Bound(alphas)(clean, noisy, guess, raw.tanh(), t)
    for i, level in enumerate(t.tolist()):
        total, before, beta = alphas[level], alphas[level - 1], betas[level]

        def mean(x0, i=i, total=total, before=before, beta=beta):
            return (before.sqrt() * beta * x0[i] + (1 - beta).sqrt() * (1 - before) * noisy[i]) / (1 - total)

        variance = beta * (1 - before) / (1 - total)
        share = (raw[i].tanh().double() + 1) / 2
        learned = (share * beta.log() + (1 - share) * variance.log()).exp()
        kl = kl_divergence(Normal(mean(clean), variance.sqrt()), Normal(mean(guess), learned.sqrt()))
        assert float(found[i]) == pytest.approx(float(kl.mean()) / math.log(2), rel=2e-4)


def test_bound_moves_the_variance_only():
    bound = Bound((1 - torch.linspace(1e-4, 0.02, 1000)).cumprod(0))
    clean, noisy = torch.randn(2, 1, 2, 2), torch.randn(2, 1, 2, 2)
    guess, raw = torch.randn(2, 1, 2, 2, requires_grad=True), torch.zeros(2, 1, 2, 2, requires_grad=True)
    bound(clean, noisy, guess, raw, torch.tensor([5, 300])).sum().backward()
    assert guess.grad is None and raw.grad.abs().min() > 0


def test_the_adapter_changes_nothing_at_the_start(dit):
    adapter = Adapter(dit)
    torch.testing.assert_close(run(adapter.dit), run(dit))
    torch.testing.assert_close(run(fold(dit, adapter.values())), run(dit))


def test_what_is_trained_is_what_the_paper_trains(dit):
    adapter = Adapter(dit)
    learning = {n for n, p in adapter.dit.named_parameters() if p.requires_grad}
    assert all(n.endswith(("bias", ".shift")) for n in learning)  # and the scales, which hang on hooks
    d, blocks = 8, 2  # width; blocks with scales: the first half of 5
    shape = {k: tuple(v.shape) for k, v in adapter.trained.items()}
    assert shape["shift:" + TABLE] == (4, d)  # three classes and the unconditional row
    scales = [k for k in shape if k.startswith("scale:")]
    assert len(scales) == 6 * blocks and all(shape[k] == (d,) for k in scales)
    assert sum(k.startswith("shift:") for k in shape) == 3
    assert not any("timestep_embedder" in k for k in shape if k.startswith("bias:"))


def test_the_copies_of_a_table_move_together(dit):
    adapter = Adapter(dit)
    with torch.no_grad():
        adapter.trained["shift:" + TABLE].add_(1.0)
    tables = [b.norm1.emb.class_embedder.embedding_table.weight for b in adapter.dit.transformer_blocks]
    own = [b.norm1.emb.class_embedder.embedding_table.weight for b in dit.transformer_blocks]
    assert all(torch.allclose(a, b + 1) for a, b in zip(tables, own))


def test_folding_gives_the_trained_model_as_a_plain_one(dit):
    adapter = Adapter(dit)
    with torch.no_grad():
        for parameter in adapter.trained.values():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    plain = fold(dit, adapter.values())
    assert plain.state_dict().keys() == dit.state_dict().keys()
    torch.testing.assert_close(run(plain), run(adapter.dit), rtol=1e-4, atol=1e-5)
    assert (run(plain) - run(dit)).abs().max() > 0.1


def make(bench, count=12):
    draw = torch.Generator().manual_seed(3)
    latents = torch.randn(count, *bench.backbone.latent_shape, generator=draw)
    return Tuning(bench.backbone, latents, torch.arange(count) % 3, SETTINGS, "test")


def test_a_checkpoint_continues_exactly(bench):
    whole = make(bench)
    for i in range(6):
        whole.step(i)
    first, second = make(bench), make(bench)
    for i in range(3):
        first.step(i)
    second.load({k: v.clone() for k, v in first.tensors().items()})
    for i in range(3, 6):
        second.step(i)
    one, other = whole.tensors(), second.tensors()
    assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_an_image_is_unconditional_in_every_block_or_in_none(bench):
    tuning = make(bench)
    shown = torch.cat([tuning.batch(i)[2] for i in range(100)])
    share = float((shown == bench.backbone.null_class).float().mean())
    assert 0.05 < share < 0.16


def test_steps_lower_the_loss_on_what_is_seen(bench):
    tuning = make(bench, count=4)
    fixed = tuning.batch(0)

    def total():
        tuning.memories = copy.deepcopy(memories)
        d, r, v = tuning.losses(*fixed)
        return d + SETTINGS.representativeness * r + SETTINGS.diversity * v

    tuning.losses(*fixed)
    memories = copy.deepcopy(tuning.memories)
    before = float(total().detach())
    for _ in range(8):
        tuning.optimizer.zero_grad()
        total().backward()
        tuning.optimizer.step()
    assert float(total().detach()) < before


def test_a_fine_tuning_serves_every_seed_and_ipc(bench, monkeypatch):
    bench.images("minimax", 1, store="once")
    monkeypatch.setattr(Tuning, "step", lambda self, index: pytest.fail("trained again"))
    bench.images("minimax", 2, seed=5, store="once")


def test_a_unit_is_a_phase_of_classes(bench):
    method, task, units = bench.task("minimax", 2, phase=3)
    assert [sorted({c for c, _ in u.cells}) for u in units] == [[0, 1, 2], [3]]
    assert len(method.stages(task)) == 2


def test_the_tuned_backbone_is_compiled_like_the_first(bench, monkeypatch):
    compiled = []
    monkeypatch.setattr("benchmark.backbones.backbone.compile_blocks", compiled.append)
    method, task, units = bench.task("minimax", 1, store="compiled")
    task.precision = Precision.named("fp32+compile")
    method.distill(task, units[0])
    assert compiled == [method._tuned[1].dit] and compiled[0] is not bench.backbone.dit
