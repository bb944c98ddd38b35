"""The floors: random, noise, kmeans, herding, recon and what they select by."""

import numpy as np
import pytest
import torch

from baselines.features import class_features
from baselines.herding import herd
from baselines.kmeans import nearest_distinct
from baselines.random_real import draw
from benchmark.core.errors import UsageError
from benchmark.plugins import registry
from benchmark.testing.bench import CLASSES, EACH, Bench

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("floors"))


def test_random_draws_distinct_images_of_the_class(bench):
    _, task, _ = bench.task("random", EACH)
    for c in range(CLASSES):
        assert sorted(draw(task, c)) == sorted(bench.dataset.train.by_class[c].tolist())


def test_random_at_a_small_ipc_is_the_start_of_a_larger_one(bench):
    small, large = bench.images("random", 2), bench.images("random", 9)
    assert all(torch.equal(small[cell], large[cell]) for cell in small)


@pytest.mark.parametrize("name", ["random", "kmeans", "herding", "recon", "d4m", "rded"])
def test_more_images_than_a_class_has_is_said(bench, name):
    cls = registry().get("method", name).load()
    reason = cls(cls.Params()).why_not(bench.dataset, EACH + 1)
    assert str(EACH + 1) in reason and str(EACH) in reason


def test_drawing_too_many_is_an_error(bench):
    _, task, _ = bench.task("random", 1)
    task.ipc = EACH + 1
    with pytest.raises(UsageError, match="larger than class"):
        draw(task, 0)


def test_noise_is_uniform_and_knows_no_class(bench):
    made = torch.stack(list(bench.images("noise", 60).values())).float()
    assert abs(made.mean() - 127.5) < 2 and abs(made.std() - 73.9) < 1.5
    assert registry().get("method", "noise").gate == "waived"


def test_kmeans_at_one_is_the_image_nearest_the_class_mean(bench):
    made = bench.images("kmeans", 1, features="pixels")
    for c in range(CLASSES):
        pixels = bench.dataset.train.array[bench.dataset.train.by_class[c]].astype(float)
        nearest = np.square(pixels - pixels.mean(0)).sum((1, 2)).argmin()
        assert np.array_equal(made[c, 0][0].numpy(), pixels[nearest].astype(np.uint8))


def test_kmeans_finds_separate_groups(bench):
    _, task, _ = bench.task("kmeans", 3)
    method = registry().get("method", "kmeans").load()
    points = torch.tensor([0.0, 0.1, -0.1, 5.0, 5.1, 9.0]).view(-1, 1)
    chosen = method(method.Params()).choose(task, points, 0)
    assert chosen[0] == 0 and set(chosen[1:]) <= {3, 4, 5} and len(set(chosen)) == 3  # the largest group first


def test_an_image_is_chosen_once():
    features = torch.tensor([[0.0], [1.0], [2.0]])
    assert nearest_distinct(features, torch.tensor([[0.1], [0.1], [0.1]])) == [0, 1, 2]


def test_herding_follows_the_mean_as_a_brute_force_search_does():
    features = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    unit = (features / features.norm(dim=1, keepdim=True)).double().numpy()
    chosen = []
    for k in range(1, 6):
        best = min(
            (i for i in range(12) if i not in chosen),
            key=lambda i: np.linalg.norm(unit.mean(0) - (unit[chosen].sum(0) + unit[i]) / k),
        )
        chosen.append(best)
    assert herd(features, 5) == chosen


def test_features_are_those_of_the_teacher_and_shared(bench):
    _, task, _ = bench.task("kmeans", 1, store="shared")
    found = class_features(task, "teacher", 2)
    images = bench.dataset.train.images(bench.dataset.train.by_class[2])
    torch.testing.assert_close(found, bench.teacher.features(images))
    _, other, _ = bench.task("herding", 5, seed=3, store="shared")
    other.load_teacher = None  # would fail if it were asked
    other.load_teacher = lambda: pytest.fail("the features were not taken from the store")
    assert torch.equal(class_features(other, "teacher", 2), found)


def test_pixels_need_no_teacher():
    cls = registry().get("method", "herding").load()
    assert cls(cls.Params()).needs().teacher and not cls(cls.Params(features="pixels")).needs().teacher


def test_recon_decodes_the_images_that_random_draws(bench):
    real, made = bench.images("random", 3), bench.images("recon", 3)
    backbone = bench.backbone
    for cell, image in real.items():
        latents = backbone.encode(image[None], sample=False)
        apart = (backbone.decode(latents, 8, 1)[0].int() - made[cell].int()).abs().max()
        assert apart <= 1  # one grey level: another batch


def test_dit_images_do_not_depend_on_the_ipc(bench):
    small, large = bench.images("dit", 1), bench.images("dit", 12)
    assert all((small[c].int() - large[c].int()).abs().max() <= 1 for c in small)
