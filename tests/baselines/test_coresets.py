"""k-center, EL2N and forgetting against plain loops.

DeepCore's ``k_center_greedy`` and the counting of its ``Forgetting.after_loss`` were run beside this code: the same
images, the same counts.
"""

import numpy as np
import pytest
import torch

from baselines.coresets.el2n import distances
from baselines.coresets.kcenter import farthest_first
from benchmark.testing.bench import Bench

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("coresets"))


def test_each_center_is_the_farthest_from_those_before():
    points = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    chosen = farthest_first(points, 6, 3)
    assert chosen[0] == 3 and len(set(chosen)) == 6
    for k in range(1, 6):
        nearest = [min(float((x - points[c]).norm()) for c in chosen[:k]) for x in points]
        assert chosen[k] == int(np.argmax(nearest))
    same = torch.zeros(5, 2)
    assert sorted(farthest_first(same, 5, 2)) == [0, 1, 2, 3, 4], "no image twice, though all are alike"


def test_a_class_begins_with_its_mean_or_at_random(bench):
    first = {}
    for start in ("mean", "random"):
        method, task, _ = bench.task("kcenter", 3, store=start, start=start, features="pixels")
        rows = task.train.by_class[1]
        features = task.train.images(rows).flatten(1).float()
        first[start] = [method.choose(task, features, 1)[0] for task.seed in range(6)]
    near = int((features - features.mean(0)).norm(dim=1).argmin())
    assert set(first["mean"]) == {near} and len(set(first["random"])) > 2


def test_el2n_is_the_length_of_the_error(bench):
    logits = torch.tensor([[0.0, 0.0], [50.0, 0.0], [50.0, 0.0]])
    assert distances(logits, torch.tensor([0, 0, 1])).tolist() == pytest.approx([0.5**0.5, 0, 2**0.5])
    method, task, _ = bench.task("el2n", 2, store="el2n")
    state = method.watching(task)
    length = state.length
    assert length == 2 * 3 and sorted(torch.cat([state.rows(i) for i in range(3)]).tolist()) == list(range(56))
    wanted = torch.zeros(56)
    for index in range(2 * length):
        state.step(index)
        if index % length == length - 1:
            x = (task.train.images(range(56)) / 255 - 0.3) / 0.37
            wrong = state.learner.net(x).softmax(1).detach()
            wrong[torch.arange(56), torch.tensor(task.train.labels)] -= 1
            wanted += wrong.square().sum(1).sqrt() / 2
    torch.testing.assert_close(state.scores(), wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(method.scores(task), wanted, rtol=1e-4, atol=1e-5)
    for keep in ("easy", "hard"):
        method, task, units = bench.task("el2n", 2, store="el2n", keep=keep)
        rows = task.train.by_class[2]
        ranked = wanted[rows].argsort(descending=keep == "hard")[:2]
        assert torch.equal(method.distill(task, units[2]), task.train.images(rows[ranked.numpy()]))


def test_forgetting_counts_what_was_known_and_is_not(bench):
    method, task, _ = bench.task("forgetting", 2, store="forgetting")
    state = method.watching(task)
    seen = torch.randint(0, 2, (5, 56), generator=torch.Generator().manual_seed(1)).float()
    seen[:, 7] = 0
    for row in seen:
        state.note(torch.arange(56), row)
    wanted = ((seen[:-1] == 1) & (seen[1:] == 0)).sum(0).float()
    wanted[seen.sum(0) == 0] = 2  # never learned: the number of epochs
    assert torch.equal(state.scores(), wanted) and wanted[7] == 2


def test_of_equal_images_every_seed_takes_others(bench):
    method, task, units = bench.task("forgetting", 2, store="equal")
    sets = []
    for task.seed in range(4):
        sets.append(method.distill(task, units[0]))
    assert any(not torch.equal(sets[0], other) for other in sets[1:])
