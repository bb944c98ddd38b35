"""CIM: its pieces by hand, its correction against figures of the authors' code.

The authors' ``selector``, ``mix_images``, ``decode_zoom``, ``DiffAug`` and ``matchloss`` (LINs-lab/CIM ea71377) ran in
their loop beside this code on the network and images below, with the same flips, shifts and holes: the same images
are chosen; in float32 the loss and the gradient of each of five steps agree within 2e-7 relative, the corrected
mosaics within 1e-7. `FIGURES` are theirs.
"""

import numpy as np
import pytest
import torch
from torch import nn

from baselines.cim import CIM, CIMParams, augment, correct, difference, features, matched_layer, surest
from baselines.crops import seeded
from baselines.rded import stitch
from benchmark.core.errors import UsageError
from benchmark.teachers import Teacher
from benchmark.testing.bench import Bench

torch.set_num_threads(1)
MEAN, STD = (torch.tensor(v, dtype=torch.float32).view(1, 3, 1, 1) for v in ((0.49, 0.48, 0.45), (0.2, 0.19, 0.21)))
SIDE, IPC, FACTOR, STEPS, SEED = 12, 2, 2, 5, 31


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(4, 6, 3)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(96, 5)).eval().requires_grad_(False)


def pool() -> torch.Tensor:
    """Twelve images, uint8 ``[n, C, H, W]``."""
    return torch.randint(0, 256, (12, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(3)).to(torch.uint8)


def chosen() -> list[int]:
    teacher = Teacher(network(), name="t", key="t", accuracy=None, mean=MEAN.flatten().tolist(),
                      std=STD.flatten().tolist(), size=SIDE)  # fmt: skip
    teacher.normalise = lambda images: (images.float() / 255 - MEAN) / STD
    return surest(teacher, pool(), 1, IPC * FACTOR**2).tolist()


def corrected() -> torch.Tensor:
    real = pool()[chosen()].float() / 255
    model, params = network(), CIMParams(iterations=STEPS)
    mosaics = stitch(real, FACTOR, SIDE)
    return correct(model, matched_layer(model, 0, SIDE), real, mosaics, MEAN, STD, params, SEED)


CHOSEN = [6, 8, 3, 11, 5, 10, 1, 4]
FIGURES = (0.5248308777809143, 0.2825062870979309, 2.854766368865967)  # mean; deviation of one; weighted by column


def test_images_are_those_of_the_authors_code():
    x = corrected()
    assert chosen() == CHOSEN
    found = [float(v) for v in (x.mean(), x[1].std(), (x * torch.arange(SIDE)).mean())]
    assert found == pytest.approx(FIGURES, abs=2e-6)


def test_one_draw_for_the_whole_batch():
    """Every image is shifted alike, zeros come in, a square of half the side is blank."""
    ramp = torch.arange(1.0, 65).view(1, 1, 8, 8).repeat(3, 1, 1, 1)
    shifts, holes = set(), set()
    with seeded(0):
        for _ in range(80):
            x = augment(ramp, False)
            assert torch.equal(x[0], x[1]) and torch.equal(x[0], x[2])
            image = x[0, 0].numpy()
            seen = image[image > 0]
            y, c = np.argwhere(image > 0)[0]
            down, right = divmod(int(seen[0]) - 1, 8)
            shifts.add((down - int(y), right - int(c)))
            holes.add(int((image == 0).sum()))
    assert {d for d, _ in shifts} == {r for _, r in shifts} == {-1, 0, 1}  # an eighth of 8 px
    assert min(holes) >= 4 and max(holes) > 16  # a hole of 4 x 4 px, of which a quarter at least lies inside
    mirrored = []
    with seeded(1):
        for _ in range(20):
            rows = augment(ramp, True)[0, 0]
            row = rows[(rows > 0).sum(1).argmax()]
            seen = row[row > 0]
            mirrored.append(bool(seen[0] > seen[-1]))
    assert 0 < sum(mirrored) < 20


def test_the_difference_is_a_mean_over_features_and_a_sum_over_images():
    a, b = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 4.0], [1.0, 1.0]])
    assert float(difference(a, b)) == 1.5 + 1.0


def test_the_layer_that_is_matched():
    from torchvision.models import resnet18

    model, net = resnet18(num_classes=4), network()
    assert matched_layer(model, 0, 224) is model.layer3 and matched_layer(model, 0, 64) is model.fc
    assert matched_layer(model, -4, 64) is model.layer3 and matched_layer(net, 0, 224) is net[6]
    with pytest.raises(UsageError, match="no child -9"):
        matched_layer(net, -9, 32)
    x = torch.rand(2, 3, SIDE, SIDE)
    torch.testing.assert_close(net[6](features(net, net[6], x)), net(x))


def test_mosaics_are_corrected_and_draws_follow_the_seed(tmp_path):
    bench = Bench(tmp_path)
    made = {
        name: bench.images("cim", 2, store=name, **sets)
        for name, sets in {
            "mosaics": {"factor": 2, "iterations": 0},
            "corrected": {"factor": 2},
            "repeated": {"factor": 2, "turn": -1},
            "other": {"factor": 2, "seed": 1},
            "whole": {"factor": 1},
        }.items()
    }
    real = bench.dataset.train.images(bench.dataset.train.by_class[0])
    assert any(torch.equal(made["whole"][0, 0], r) for r in real)  # a whole image has nothing to correct
    assert all(torch.equal(made["corrected"][k], made["repeated"][k]) for k in made["corrected"])
    for name in ("mosaics", "other"):
        assert not torch.equal(made["corrected"][0, 0], made[name][0, 0])


def test_published_pools_and_what_a_mosaic_needs(tmp_path):
    method, dataset = CIM(CIM.Params()), Bench(tmp_path).dataset
    assert [method.pool(ipc) for ipc in (1, 50, 100, 200)] == [300, 300, 500, 1000]
    assert not method.why_not(dataset, 3) and "needs 16 images" in method.why_not(dataset, 4)
    assert CIM.defaults("digits") == {"flip": False} and method.tiles(dataset) == 2
