"""DWA, DELT, SRe2L++ and FADRM: their pieces by hand, their loops against figures of the authors' code.

The authors' ``get_images`` (DWA c5b125f, DELT f2f81ca, CV-DD 24097e9, FADRM f445e38) ran beside this code on the
network and images below with the same crops and shifts. In float64 the loss and the gradient of every step agree
within 4e-15 relative and images within 2e-13; in float32 the first gradient within 1e-7. `FIGURES` are theirs.
"""

import copy
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from baselines.sre2l.method import SRe2L
from baselines.sre2l.presets import DELT, DWA, FADRM, SRe2LPlusPlus
from baselines.sre2l.recover import ascend, recover, segments
from baselines.sre2l.starts import ranked
from benchmark.api import make_params
from benchmark.testing.bench import Bench

torch.set_num_threads(1)
MEAN, STD = (torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in ((0.49, 0.48, 0.45), (0.2, 0.19, 0.21)))
TARGETS = torch.arange(10)
SEED = 123


def network(seed: int) -> nn.Module:
    """Two BatchNorm layers with running statistics of noise."""
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 10)).double().train()
    for _ in range(20):
        model(torch.randn(20, 3, 16, 16, dtype=torch.float64) * 1.3 + 0.2)
    return model.eval().requires_grad_(False)


def first_images() -> torch.Tensor:
    pixels = torch.rand(10, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    return (pixels - MEAN) / STD


def made(name: str) -> torch.Tensor:
    """Pixel values after some steps of each method, as the authors' code was asked."""
    enters: list[int] = []
    models, targets = [network(0)], TARGETS
    if name == "dwa":
        settings = replace(DWA(DWA.Params()).settings(32), iterations=5)
    elif name == "delt":
        method = DELT(DELT.Params(iterations=16))
        cells = [(0, i) for i in range(4, 10)] + [(1, i) for i in range(4)]  # the second batch at IPC 10
        task = SimpleNamespace(ipc=10, dataset=SimpleNamespace(image_size=16))
        enters, steps = method.enters(task, SimpleNamespace(cells=cells))
        settings, targets = replace(method.settings(16), iterations=steps), torch.tensor([c for c, _ in cells])
    elif name == "sre2l++":
        settings = SRe2LPlusPlus(SRe2LPlusPlus.Params(iterations=5, jitter=4)).settings(16)
    else:
        settings = replace(FADRM(FADRM.Params(iterations=8, jitter=4)).settings(16), sizes=(14, 16, 14, 16))
        models = [network(0), network(1)]
    return recover(models, first_images(), targets, MEAN, STD, settings, SEED, enters) * STD + MEAN


FIGURES = {  # mean of the pixels, deviation of the fourth image, mean of the pixels weighted by their column
    "delt": (0.5037038714163314, 0.2934482230991781, 3.7701429146628964),
    "dwa": (0.5001271563226151, 0.2833643923613454, 3.7421040495909637),
    "fadrm": (0.5021936167688135, 0.2069094684053253, 3.7573920491973194),
    "sre2l++": (0.5039994305327606, 0.3010765112265044, 3.7775191858636576),
}


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_images_are_those_of_the_authors_code(name):
    x = made(name)
    found = [float(v) for v in (x.mean(), x[3].std(), (x * torch.arange(16)).mean())]
    assert found == pytest.approx(FIGURES[name], abs=1e-9)


def test_ascents_by_hand():
    """Each moves all weights together by radius / ascents along the gradient; the images' gradients add up."""
    model, x = network(0), first_images().requires_grad_(True)
    by_hand, total = copy.deepcopy(model), torch.zeros_like(x)
    settings = replace(DWA(DWA.Params(ascents=2, radius=0.5)).settings(32))
    for _ in range(2):
        by_hand.requires_grad_(True)
        by_hand.zero_grad()
        (own,) = torch.autograd.grad(F.cross_entropy(by_hand(x), TARGETS), x)
        F.cross_entropy(by_hand(x.detach()), TARGETS).backward()
        flat = torch.cat([p.grad.flatten() for p in by_hand.parameters()])
        with torch.no_grad():
            for p in by_hand.parameters():
                p += 0.25 * p.grad / flat.norm()
        total += own
    found = ascend(model, x, x, TARGETS, settings)
    torch.testing.assert_close(found, total, rtol=1e-9, atol=1e-12)
    for p, q in zip(model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-12)


def test_the_classifier_keeps_its_weights_and_the_gradients_of_the_ascents_matter():
    model = network(0)
    before = copy.deepcopy(model.state_dict())
    settings = replace(DWA(DWA.Params()).settings(32), iterations=1)
    arguments = first_images(), TARGETS, MEAN, STD
    found = recover(model, *arguments, settings, SEED)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not torch.equal(found, recover(model, *arguments, replace(settings, ascent_gradients=False), SEED))
    assert not torch.equal(found, recover(model, *arguments, replace(settings, radius=0.0), SEED))


@pytest.mark.parametrize("n", [1, 4, 5, 9])
def test_order_of_first_images(n):
    scores = torch.rand(n, generator=torch.Generator().manual_seed(n))
    up = scores.argsort().tolist()
    assert ranked(scores, "hard").tolist() == up and ranked(scores, "easy").tolist() == up[::-1]
    middle, walk = math.ceil(n / 2), []
    for step in range(3 * n):  # as DELT walks, past the ends
        place = middle + int((1 if step % 2 else -1) * (step + 1) / 2)
        walk += [up[place]] if 0 <= place < n else []
    assert ranked(scores, "medium").tolist() == walk and sorted(walk) == list(range(n))


@pytest.mark.parametrize("ipc, rounds", [(1, [0]), (3, [0, 1, 2]), (10, [0, 0, 1, 1, 2, 3, 4, 5, 6, 7])])
def test_images_enter_over_the_rounds(ipc, rounds):
    assert DELT(DELT.Params()).rounds(ipc) == rounds


def test_images_that_have_not_entered_do_not_move():
    settings = replace(DELT(DELT.Params()).settings(16), iterations=4)
    found = recover(network(0), first_images(), TARGETS, MEAN, STD, settings, SEED, [0] * 5 + [9] * 5)
    assert torch.equal(found[5:], first_images()[5:]) and not torch.equal(found[0], first_images()[0])


def test_segments_share_out_the_steps_and_end_at_the_images_size():
    large, small = FADRM(FADRM.Params()), FADRM(FADRM.Params(shrink=False))
    assert segments(large.settings(224), 224) == [(0, 200), (500, 224), (1000, 200), (1500, 224)]
    assert segments(small.settings(224), 224) == [(0, 224), (500, 224), (1000, 224), (1500, 224)]
    assert segments(large.settings(64), 64) == [(0, 64), (500, 64)] and large.settings(64).lr == 0.01
    assert segments(replace(large.settings(32), sizes=()), 32) == [(0, 32)]


def test_a_segment_begins_with_a_share_of_the_first_images():
    """With a rate of 0 nothing else moves an image that was not its first."""
    settings = replace(FADRM(FADRM.Params()).settings(16), lr=0.0, sizes=(8, 16), iterations=2)
    start = first_images()
    halved = F.interpolate(start, (8, 8), mode="bilinear", align_corners=False)
    back = F.interpolate(halved, (16, 16), mode="bilinear", align_corners=False)
    found = recover(network(0), start, TARGETS, MEAN, STD, settings, SEED)
    torch.testing.assert_close(found, 0.5 * back + 0.5 * start)


@pytest.mark.parametrize(
    "cls, size, expected",
    [
        (DWA, 32, (1000, 0.25, 4, False, 11.0, 12)),  # run_cifar.sh
        (DWA, 64, (2000, 0.1, 4, True, 11.0, 12)),  # run_tiny.sh
        (DWA, 224, (2000, 0.25, 28, True, 2.0, 15)),  # run_imgnet.sh
        (DELT, 224, (4000, 0.25, 0, True, 1.0, 0)),  # resnet18_imagenet1k_synthesis.sh
        (SRe2LPlusPlus, 32, (4000, 0.25, 4, True, 1.0, 0)),  # recover_sre2l_ipc50.sh
        (FADRM, 32, (2000, 0.25, 4, True, 1.0, 0)),  # recover_fadrm_ipc50.sh
        (FADRM, 64, (1000, 0.01, 4, True, 1.0, 0)),
    ],
)
def test_published_settings(cls, size, expected):
    s = cls(cls.Params()).settings(size)
    assert (s.iterations, s.lr, s.jitter, s.smallest_crop is not None, s.r_var, s.ascents) == expected
    assert s.r_bn == 0.01 and s.first_bn == 10.0


@pytest.mark.parametrize("name", ["dwa", "delt", "sre2l++", "fadrm"])
def test_the_first_images_are_real(tmp_path, name):
    """Where nothing is optimised, the set is what the images begin as."""
    bench = Bench(tmp_path)
    images = bench.images(name, 2, lr=1e-30)
    real = {c: bench.dataset.train.images(rows) for c, rows in enumerate(bench.dataset.train.by_class)}
    if name in ("dwa", "delt"):
        assert all(any(torch.equal(image, r) for r in real[c]) for (c, _), image in images.items())
        assert not torch.equal(images[0, 0], images[0, 1])
    else:  # crops enlarged by at most 1 / 0.08 of the area
        assert all(image.float().std() > 5 for image in images.values())


def test_a_classifier_of_one_size_is_refused_where_segments_shrink():
    from benchmark.api import UsageError, build_student

    networks = {name: build_student(name, 4, 1, 128, 0).eval() for name in ("convnet3_bn", "mobilenetv2")}
    for name, model in networks.items():
        teacher = SimpleNamespace(name=name, model=model)
        task = SimpleNamespace(
            dataset=SimpleNamespace(image_size=128, channels=1), device="cpu", method="fadrm", teacher=teacher
        )
        if name == "mobilenetv2":
            assert FADRM(FADRM.Params()).teachers(task) == [teacher]
            continue
        with pytest.raises(UsageError, match="no images of 114 px"):
            FADRM(FADRM.Params()).teachers(task)
        assert FADRM(FADRM.Params(shrink=False)).teachers(task) == [teacher]


def test_classifiers_take_turns_only_where_the_method_says_so(tmp_path):
    bench = Bench(tmp_path)
    method, task, units = bench.task("fadrm", 1, squeeze="convnet3_bn+convnet4_bn")
    assert [t.name for t in method.teachers(task)] == ["convnet3_bn", "convnet4_bn"] and not method.needs().teacher
    one = bench.images("fadrm", 1, store="one", squeeze="convnet3_bn")
    two = bench.images("fadrm", 1, store="two", squeeze="convnet3_bn+convnet4_bn")
    assert not all(torch.equal(one[k], two[k]) for k in one)
    several = SRe2L(make_params(SRe2L, "sre2l", "digits", {"squeeze": "a+b"}))
    assert "recovers from one" in several.why_not(bench.dataset, 1)
