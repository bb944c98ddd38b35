"""SRe2L and CDA: losses, one optimisation step, crops and published settings.

The authors' ``get_images`` (CIFAR, ImageNet and CDA scripts) was run beside this code with the same start, crops and
shifts: images after 20 steps agree within 2e-13 in float64; each layer's distance is equal.
"""

import math

import numpy as np
import pytest
import torch
from torch import nn

from baselines.crops import random_resized_crops, seeded
from baselines.sre2l import recover as module
from baselines.sre2l.method import CDA, SRe2L
from baselines.sre2l.recover import Settings, batchnorm_distances, constant_crop, curriculum_crop, loss, recover
from benchmark.core.errors import UsageError
from benchmark.core.store import Store
from benchmark.pipeline.plan import make_plan
from benchmark.pipeline.request import Request
from benchmark.testing.bench import Bench

torch.set_num_threads(1)
PLAIN = Settings(iterations=3, lr=0.25, r_bn=0.01, first_bn=10.0, jitter=0, flip=True, smallest_crop=None)


@pytest.fixture
def net():
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(64, 5)).double()
    model(torch.randn(40, 2, 8, 8, dtype=torch.float64) * 1.5)
    return model.eval().requires_grad_(False)


@pytest.fixture
def start():
    return torch.randn(6, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def distance(layer, values):
    """By NumPy: ‖running variance - variance‖ + ‖running mean - mean‖ over channels."""
    columns = values.detach().numpy().transpose(1, 0, 2, 3).reshape(values.shape[1], -1)
    return np.linalg.norm(layer.running_var.numpy() - columns.var(1)) + np.linalg.norm(
        layer.running_mean.numpy() - columns.mean(1)
    )


def test_distances_of_each_layer(net, start):
    with batchnorm_distances(net) as found:
        net(start)
    expected = [distance(net[1], net[:1](start)), distance(net[4], net[:4](start))]
    np.testing.assert_allclose([float(f) for f in found], expected, rtol=1e-12)


def test_hooks_are_gone_afterwards(net, start):
    with batchnorm_distances(net) as found:
        net(start)
    kept = list(found)
    net(start * 2)
    assert all(a is b for a, b in zip(kept, found))


def test_loss_weights_the_first_layer_more():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    cross_entropy = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-1))) / 2
    distances = [torch.tensor(3.0), torch.tensor(5.0), torch.tensor(7.0)]
    found = loss(logits, torch.tensor([0, 1]), distances, 0.01, 10.0)
    assert float(found) == pytest.approx(cross_entropy + 0.01 * (10 * 3 + 5 + 7), rel=1e-6)


def test_three_steps_by_hand(net, start):
    """Adam (0.5, 0.9) at 0.25 on a cosine, clipped to 0..1 after each step, written out."""
    mean, std, targets = torch.tensor([0.4, 0.5]).view(1, 2, 1, 1), torch.tensor([0.2, 0.3]).view(1, 2, 1, 1), None
    targets = torch.tensor([0, 1, 2, 3, 4, 0])
    x, m, v = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    for step in range(3):
        x.requires_grad_(True)
        first = net[:1](x)
        second = net[:4](x)
        total = nn.functional.cross_entropy(net(x), targets)
        for weight, layer, values in ((0.1, net[1], first), (0.01, net[4], second)):
            variance, average = values.var((0, 2, 3), unbiased=False), values.mean((0, 2, 3))
            total = total + weight * ((layer.running_var - variance).norm() + (layer.running_mean - average).norm())
        (g,) = torch.autograd.grad(total, x)
        m, v = 0.5 * m + 0.5 * g, 0.9 * v + 0.1 * g * g
        rate = 0.25 * (1 + math.cos(math.pi * step / 3)) / 2
        x = x.detach() - rate * (m / (1 - 0.5 ** (step + 1))) / ((v / (1 - 0.9 ** (step + 1))).sqrt() + 1e-8)
        x = torch.maximum(torch.minimum(x, (1 - mean) / std), -mean / std)
    found = recover(net, start, targets, mean, std, PLAIN, seed=0)
    torch.testing.assert_close(found, x, rtol=1e-9, atol=1e-9)


def test_the_batch_is_shifted_together(start, monkeypatch):
    settings = Settings(10, 0.1, 0.0, 1.0, 3, True, None)
    seen = set()
    with seeded(0):
        for step in range(60):
            moved = module.augment(start, settings, step)
            (shift,) = [(a, b) for a in range(4) for b in range(4) if torch.equal(start.roll((a, b), (2, 3)), moved)]
            seen.add(shift)
    assert {a for a, _ in seen} == {b for _, b in seen} == {0, 1, 2, 3}


def test_one_crop_for_the_whole_batch():
    ramp = torch.arange(64.0).view(1, 1, 8, 8).expand(3, 1, 8, 8)
    settings = Settings(10, 0.1, 0.0, 1.0, 0, True, constant_crop)
    with seeded(0):
        cropped = [module.augment(ramp, settings, 0) for _ in range(5)]
    assert all(torch.equal(x[0], x[1]) and torch.equal(x[0], x[2]) for x in cropped)
    assert not torch.equal(cropped[0], cropped[1])


def test_curriculum_goes_from_whole_images_to_small_crops():
    shares = [curriculum_crop(step, 100) for step in range(100)]
    assert (
        shares[0] == pytest.approx(1.0)
        and shares[50] == pytest.approx(0.54)
        and shares[-1] == pytest.approx(0.08, abs=1e-3)
    )
    assert all(a >= b for a, b in zip(shares, shares[1:])) and constant_crop(7, 100) == 0.08


def test_seeded_crops_leave_the_global_state_alone_and_repeat():
    image = torch.rand(3, 20, 20)
    before = torch.random.get_rng_state()
    found = []
    for _ in range(2):
        with seeded(4):
            found.append(random_resized_crops(image, 8, 3, (0.08, 1.0), (1.0, 1.0)))
    assert torch.equal(*found) and torch.equal(before, torch.random.get_rng_state()) and found[0].shape == (3, 3, 8, 8)


@pytest.mark.parametrize(
    "cls, size, expected",
    [
        (SRe2L, 224, (4000, 0.25, 0.01, 32, True)),  # recover.sh
        (SRe2L, 64, (4000, 0.1, 1.0, 4, True)),  # recover_tiny.sh
        (SRe2L, 32, (1000, 0.25, 0.01, 4, False)),  # recover_cifar.sh
        (SRe2L, 28, (1000, 0.25, 0.01, 3, False)),
        (SRe2L, 8, (1000, 0.25, 0.01, 1, False)),
        (CDA, 224, (4000, 0.25, 0.01, 32, True)),  # CDA/README.md
        (CDA, 64, (4000, 0.4, 0.05, 4, True)),
        (CDA, 32, (1000, 0.25, 0.01, 4, True)),
    ],
)
def test_published_settings(cls, size, expected):
    s = cls(cls.Params()).settings(size)
    assert (s.iterations, s.lr, s.r_bn, s.jitter, s.smallest_crop is not None) == expected and s.first_bn == 10.0


def test_in_half_precision_statistics_keep_theirs():
    model = nn.Sequential(nn.BatchNorm2d(2)).eval()
    x = torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0)).bfloat16() + 100
    with batchnorm_distances(model) as found:
        model(x.float())
        wanted = float(found[0])
        model[0].forward = lambda x: x
        model(x)
    assert float(found[0]) == wanted


@pytest.mark.parametrize("name", ["sre2l", "cda", "minimax"])
def test_float16_is_refused_before_any_work_where_gradients_are_not_scaled(name, tmp_path):
    request = Request("digits", (name,), precision="fp16")
    with pytest.raises(UsageError, match=f"{name} is not optimised in fp16"):
        make_plan([request], Store(tmp_path / "store"), tmp_path)
    assert make_plan([Request("digits", ("random",), precision="fp16")], Store(tmp_path / "store"), tmp_path).jobs


def test_own_settings_win():
    s = SRe2L(SRe2L.Params(iterations=7, lr=0.5, r_bn=0.0, jitter=0, crop="on")).settings(32)
    assert (s.iterations, s.lr, s.r_bn, s.jitter) == (7, 0.5, 0.0, 0) and s.smallest_crop is constant_crop


def test_a_unit_is_a_batch_of_classes_at_one_index(tmp_path):
    _, _, units = Bench(tmp_path).task("sre2l", 2, batch=3)
    assert [u.cells for u in units] == [
        ((0, 0), (1, 0), (2, 0)), ((3, 0),), ((0, 1), (1, 1), (2, 1)), ((3, 1),),
    ]  # fmt: skip


def test_a_classifier_without_batchnorm_is_refused(tmp_path):
    bench = Bench(tmp_path)
    bench.teacher.model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    with pytest.raises(UsageError, match="no BatchNorm2d"):
        bench.images("sre2l", 1)


def test_a_squeezed_classifier_of_its_own_is_part_of_the_key(tmp_path):
    from benchmark.data import load_dataset
    from benchmark.teachers import teacher_key

    dataset = Bench(tmp_path).dataset
    method = SRe2L(SRe2L.Params(squeeze="resnet18"))
    assert not method.needs().teacher and method.classifiers(dataset) == {"squeeze": "resnet18"}
    assert SRe2L(SRe2L.Params()).needs().teacher and not SRe2L(SRe2L.Params()).classifiers(dataset)
    request = Request("digits", ("sre2l",), ipc=(1,), sets={"sre2l.squeeze": "resnet18"})
    plan = make_plan([request], Store(tmp_path / "store"), tmp_path)
    made = plan.of_kind("distill")[0]
    key = teacher_key(load_dataset("digits"), "resnet18")
    assert made.inputs["squeeze"] == key and made.needs == (key,)
    assert key in [job.key for job in plan.of_kind("teacher")]  # trained by a job of its own, before


def test_digits_are_not_mirrored():
    assert SRe2L.defaults("digits") == SRe2L.defaults("digits@val") == {"flip": False}
    assert not SRe2L.defaults("cifar10")
