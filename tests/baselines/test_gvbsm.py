"""G-VBSM and EDC: statistics and terms by hand, their loops against figures of the authors' code.

The authors' ``main_worker`` (G-VBSM 1ed80b0, EDC 80116a7) ran beside this code: it measured the same images, then
recovered from the two networks below with the same shifts, crops and dropped convolutions. In float64 the first loss
and gradient agree within 2e-14 relative (EDC's loss within 4e-8: its code adds a float32 zero), images after five steps
within 7e-15 (EDC) and 3e-7 (G-VBSM); in float32 the first gradient within 2e-7. `FIGURES` are theirs.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from baselines.gvbsm.method import EDC, GVBSM
from baselines.gvbsm.recover import recover, spread
from baselines.gvbsm.statistics import Distances, blocks, goals, measure, moved
from benchmark.testing.bench import Bench

torch.set_num_threads(1)
MEAN, STD = (
    torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))
)
SIDE, SEED, STEPS = 32, 5, 5
LABELS = [c for c in range(10) for _ in range(2)]


def networks() -> list[nn.Module]:
    """Two small ones; the second has no BatchNorm and halves the side, so blocks are resized."""
    torch.manual_seed(0)
    first = [nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1), nn.BatchNorm2d(4)]
    second = [nn.Conv2d(3, 4, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3)]
    models = []
    for layers in (first, second):
        model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.LazyLinear(10)).train()
        for _ in range(5):
            model(torch.randn(20, 3, SIDE, SIDE) * 1.3 + 0.2)
        models.append(model.double().eval().requires_grad_(False))
    return models


def pixels(count: int, seed: int) -> torch.Tensor:
    drawn = torch.rand(count, 3, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return (drawn - MEAN) / STD


def real() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Two batches of real images with their labels, thirty images in all."""
    return [(pixels(20, 1), torch.arange(20) % 10), (pixels(10, 2), torch.arange(10))]


def made(name: str) -> torch.Tensor:
    cls = {"gvbsm": GVBSM}.get(name, EDC)
    params = {"flatness": 0.25} if name == "edc-flat" else {}
    settings = replace(cls(cls.Params(**params)).settings(SIDE, 10), iterations=STEPS)
    models, targets = networks(), []
    for model in models:
        found = measure(model, iter(real()), 30, 10)
        targets.append(goals(model, found, LABELS, name != "gvbsm", name != "gvbsm"))
    groups = [torch.tensor([2 * c, 2 * c + 1]) for c in range(10)]
    labels = torch.tensor(LABELS)
    x = recover(models, targets, pixels(20, 3), labels, groups=groups, mean=MEAN, std=STD, settings=settings, seed=SEED)
    return x * STD + MEAN


FIGURES = {  # mean of the pixels, deviation of the fourth image, mean of the pixels weighted by their column
    "edc": (0.5094649217665203, 0.28886801679018936, 7.897897703074741),
    "edc-flat": (0.5094649210326415, 0.2888680165453349, 7.897897691905229),
    "gvbsm": (0.5054864415779821, 0.3038614191387263, 7.818408847402228),
}


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_images_are_those_of_the_authors_code(name):
    x = made(name)
    found = [float(v) for v in (x.mean(), x[3].std(), (x * torch.arange(SIDE)).mean())]
    assert found == pytest.approx(FIGURES[name], abs=1e-6 if name == "gvbsm" else 1e-11)


def test_blocks_of_positions():
    x = torch.randn(2, 3, 8, 12)
    found = blocks(x)
    assert found.shape == (2, 6, 3, 16)
    assert torch.equal(found[1, 4].view(3, 4, 4), x[1, :, 4:8, 4:8])  # the second row's second block
    assert blocks(torch.randn(1, 2, 9, 3)).shape == (1, 3, 2, 16)


def test_real_statistics_by_hand():
    """Means over batches by their size of the whole, of each class over its images alone."""
    model = networks()[0]
    found, (first, second) = measure(model, iter(real()), 30, 10), real()
    x, y = first[0].numpy(), second[0].numpy()
    wanted = (20 * x.var((0, 2, 3)) + 10 * y.var((0, 2, 3))) / 30
    np.testing.assert_allclose(found["0.var"], wanted, rtol=1e-6)
    alone = np.stack([x[4], x[14], y[4]])  # of class 4
    np.testing.assert_allclose(found["0.class.var"][4], alone.var((2, 3)).mean(0), rtol=1e-6)
    top = alone[:, :, :4, 4:8]  # the second block
    np.testing.assert_allclose(found["0.class.block_mean"][4][1], top.mean((1, 2, 3)).mean(), rtol=1e-5)
    assert "1.mean" not in found and "1.class.mean" in found  # BatchNorm has its own of the whole set


def test_goals_of_the_classes_count_half_and_are_swapped_only_in_convolutions():
    model, values = networks()[0], measure(networks()[0], iter(real()), 30, 10)
    (whole, own), (norm, norm_own), *_ = goals(model, values, [1, 1, 2], True, True)
    assert [whole[0], own[0], norm[0], norm_own[0]] == [0.5] * 4 and norm[1]["mean"] is model[1].running_mean
    rows = values["0.class.block_var"]
    torch.testing.assert_close(own[1]["block_mean"], (2 * rows[1] + rows[2]) / 3)
    straight = goals(model, values, [1, 1, 2], True, False)[0][1][1]
    torch.testing.assert_close(straight["block_var"], own[1]["block_mean"])
    assert [weight for weight, _ in goals(model, values, [1], False, True)[0]] == [1.0]


def test_smoothing_keeps_the_gradient_of_the_present():
    model, x = networks()[0], pixels(4, 9).requires_grad_(True)
    targets = goals(model, measure(model, iter(real()), 30, 10), [0], False, False)
    norm, grads, seen = model[1], {}, {}
    for warm in (False, True):
        distances = Distances(model, targets, 0.8, 0.0, warm)
        with distances.watched():
            model(x)
            seen[warm] = float(distances.values[1].detach())
            (grads[warm],) = torch.autograd.grad(distances.values[1], x)
            with distances.blind():
                kept = distances.values[1]
                model(x * 2)
            assert distances.values[1] is kept
    h = model[0](x).detach()
    for warm, share in ((False, 0.2), (True, 1.0)):
        apart = (norm.running_var - share * h.var((0, 2, 3), unbiased=False)).norm()
        apart = apart + (norm.running_mean - share * h.mean((0, 2, 3))).norm()
        assert seen[warm] == pytest.approx(float(apart), rel=1e-9)
    assert grads[False].abs().sum() > 0 and not torch.equal(grads[False], grads[True])


def test_a_dropped_convolution_counts_nothing_and_batchnorm_is_never_dropped():
    model = networks()[0]
    targets = goals(model, measure(model, iter(real()), 30, 10), [0], False, False)
    distances = Distances(model, targets, 0.8, 1.0)
    with distances.watched(), torch.no_grad():
        model(pixels(4, 9))
    assert [float(v) == 0 for v in distances.values] == [True, False, True, False]


def test_spread_by_hand():
    x = torch.randn(5, 1, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.05
    groups, wanted = [torch.tensor([0, 1, 2]), torch.tensor([3, 4])], 0.0
    for rows in groups:
        flat = x[rows].flatten(1).numpy()
        values = np.linalg.eigvalsh(flat @ flat.T)

        def softmax(v):
            e = np.exp(v - v.max())
            return e / e.sum()

        p, q = softmax(values / 4), softmax(values)
        wanted += float((p * np.log(p / q)).sum())
    assert float(spread(x, groups)) == pytest.approx(wanted, rel=1e-9)
    assert float(spread(x, [torch.tensor([0])])) == 0.0  # one image has nothing to be apart from


def test_shifts_bring_in_black_and_keep_the_rest():
    images = torch.arange(1.0, 65).view(1, 1, 8, 8).repeat(40, 1, 1, 1)
    x = moved(images, False, torch.Generator().manual_seed(0))
    shifts = {(int(a), int(b)) for a, b in (np.argwhere(i[0].numpy() == 28)[0] - (3, 3) for i in x)}
    assert shifts == {(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)} and (x == 0).any()
    flipped = moved(images, True, torch.Generator().manual_seed(0))
    assert 0 < sum(torch.equal(a, b) for a, b in zip(x, flipped)) < 40


@pytest.mark.parametrize(
    "cls, size, classes, expected",
    [
        (GVBSM, 32, 10, (4000, 0.05, 0.01, 4, 32, 0.4)),
        (GVBSM, 224, 1000, (4000, 0.1, 0.01, 0, 32, 0.4)),
        (EDC, 32, 10, (75, 0.05, 0.01, 0, 0, 0.0)),
        (EDC, 64, 200, (2000, 0.05, 0.01, 0, 0, 0.0)),
        (EDC, 224, 10, (50, 0.05, 0.01, 0, 0, 0.0)),
        (EDC, 224, 1000, (1000, 0.05, 0.1, 0, 0, 0.0)),
    ],
)
def test_published_settings(cls, size, classes, expected):
    s = cls(cls.Params()).settings(size, classes)
    assert (s.iterations, s.lr, s.r_loss, s.pad, s.jitter, s.drop) == expected
    assert (s.first, s.momentum, s.flatness) == (10.0, 0.8, 0.0)
    assert s.diversity == (cls is GVBSM) and s.smallest_crop == (0.5 if cls is EDC and size > 128 else 0.08)


def test_classifiers_by_dataset_and_one_statistic_a_classifier(tmp_path):
    assert GVBSM(GVBSM.Params()).named("imagenet1k", 224).startswith("torchvision:resnet18+")
    assert "torchvision" not in GVBSM(GVBSM.Params()).named("cifar10", 32)
    bench = Bench(tmp_path)
    first, task, _ = bench.task("gvbsm", 1, squeeze="convnet3_bn+convnet3_in")
    second, other, _ = bench.task("edc", 2, squeeze="convnet3_in")
    keys = [[s.key for s in m.stages(t)] for m, t in ((first, task), (second, other))]
    assert keys[1] == keys[0][1:]  # both methods share it


def test_another_network_changes_the_images(tmp_path):
    bench = Bench(tmp_path)
    one = bench.images("edc", 1, squeeze="convnet3_bn")
    two = bench.images("edc", 1, squeeze="convnet3_bn+convnet4_bn")
    assert not all(torch.equal(one[k], two[k]) for k in one)
    real_images = bench.dataset.train.images(bench.dataset.train.by_class[0])
    unmoved = bench.images("edc", 1, squeeze="convnet3_bn", lr=1e-30)
    assert any(torch.equal(unmoved[0, 0], r) for r in real_images)
