"""Corruptions do what they say; attacks stay inside their radius and hurt; both repeat."""

import pytest
import torch

from benchmark.evaluation import train_student
from benchmark.evaluation.metrics import robustness
from benchmark.evaluation.metrics.registered import METRICS
from benchmark.evaluation.protocols import load_protocol


@pytest.fixture(scope="module")
def context(easy):
    index = [int(i) for c in easy.train.by_class for i in c[:5]]
    images, labels = easy.train.images(index), torch.from_numpy(easy.train.labels[index])
    protocol = load_protocol("hard", {"steps": 40, "batch": 10})
    result = train_student(images, labels, dataset=easy, protocol=protocol, ipc=5, seed=0)
    return robustness.Context(result, easy, limit=40)


@pytest.mark.parametrize("name", sorted(robustness.CORRUPTIONS))
def test_corruptions_grow_with_their_strength(name):
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    images = (((x // 3 + y // 5) % 2) * 160 + 40).to(torch.uint8).expand(2, 3, 32, 32).contiguous()
    changes = []
    for strength in range(1, 6):
        out = robustness.CORRUPTIONS[name](images, strength)
        assert out.dtype == torch.uint8 and out.shape == images.shape
        assert torch.equal(out, robustness.CORRUPTIONS[name](images, strength))
        changes.append((out.float() - images.float()).abs().mean().item())
    assert changes == sorted(changes) and changes[0] > 0


def test_registered_metrics_give_named_scores_that_repeat(context):
    for info in METRICS:
        metric = info.load()
        scores = metric(context)
        assert scores == metric(context) and all(0 <= v <= 100 for v in scores.values())
    assert set(robustness.attacks(context)) == {"fgsm", "pgd"}


def test_attacks_stay_inside_the_radius_and_raise_the_loss(context, easy):
    images = easy.test.images(range(20)).float() / 255
    labels = torch.from_numpy(easy.test.labels[:20])
    model, normalise = context.result.model, context.result.augment.normalise
    losses = [torch.nn.functional.cross_entropy(model(normalise(images * 255)), labels).item()]
    for steps in (1, 10):
        bad = robustness.attack(model, normalise, images, labels, radius=0.1, steps=steps, step=0.25 / steps)
        assert (bad - images).abs().max() <= 0.1 + 1e-6 and bad.min() >= 0 and bad.max() <= 1
        losses.append(torch.nn.functional.cross_entropy(model(normalise(bad * 255)), labels).item())
    assert losses[0] < losses[1] and losses[0] < losses[2]
