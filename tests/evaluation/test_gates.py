"""Each gate refuses with its own message, and passes what is right."""

import dataclasses

import pytest
import torch

from benchmark.core.errors import DataError, GateError
from benchmark.evaluation import gates
from benchmark.evaluation.protocols import load_protocol
from benchmark.students import build_student
from benchmark.teachers import Teacher
from benchmark.training import testing
from benchmark.training.testing import accuracy, calibration_error, test_set


def other(teacher, easy, model=None, accuracy=None):
    return Teacher(
        model or teacher.model, name="t", key="k", accuracy=accuracy, mean=easy.mean, std=easy.std, size=easy.image_size
    )


def test_a_good_teacher_and_a_real_set_pass(teacher, easy, few):
    report = gates.check_teacher(teacher, easy)
    assert report["status"] == "ok" and report["accuracy"] > 90 and report["expected"] == report["accuracy"]
    report = gates.check_set(*few, teacher, easy)
    assert report["recognised"] > 80 and report["chance"] == 25 and report["status"] == "ok"


def test_below_the_recorded_accuracy(teacher, easy):
    top1 = teacher.accuracy
    with pytest.raises(GateError, match="is recorded"):
        gates.check_teacher(other(teacher, easy, accuracy=top1 + 1.5), easy)
    gates.check_teacher(other(teacher, easy, accuracy=top1 + 0.5), easy)


def test_a_wrong_head(teacher, easy):
    with pytest.raises(GateError, match="head for 7 classes, easy has 4"):
        gates.check_teacher(other(teacher, easy, build_student("convnet3_bn", 7, 1, 8, 0)), easy)


def test_another_class_order_of_the_teacher(teacher, easy):
    class Rolled(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            return self.model(x).roll(1, dims=1)

    with pytest.raises(GateError, match="class order"):
        gates.check_teacher(other(teacher, easy, Rolled(teacher.model)), easy)


def test_a_shuffled_class_map(teacher, easy, few):
    images, labels = few
    with pytest.raises(GateError, match=r"class map is shuffled.*'rows' looks like 'columns'"):
        gates.check_set(images, (labels + 3) % 4, teacher, easy)


def test_a_set_at_chance_is_weak_and_refused_only_where_it_was_made_elsewhere(teacher, easy, few):
    noise = torch.randint(0, 256, few[0].shape, generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    assert gates.check_set(noise, few[1], teacher, easy)["status"] == "weak"
    with pytest.raises(GateError, match="chance is 25.0 %"):
        gates.check_set(noise, few[1], teacher, easy, given=True)
    report = gates.check_set(noise, few[1], teacher, easy, waived=True)
    assert report["status"] == "waived"


def test_one_image_a_class_can_be_told_from_chance(teacher, easy, few):
    report = gates.check_set(few[0][::5], few[1][::5], teacher, easy)
    assert report["status"] == "ok"
    with pytest.raises(GateError, match="shuffled in 4 of 4 classes"):
        gates.check_set(few[0][::5], few[1][::5].roll(1), teacher, easy)


class Answers:
    """A teacher that gives the logits it was given."""

    def __init__(self, logits):
        self.found = logits

    def logits(self, images):
        return self.found[: len(images)]


def test_ten_poor_images_are_told_from_noise_by_the_ranks_of_their_classes(easy):
    """D3HR on CIFAR-10 at IPC 1, a weak backbone: 2 of 10 right, the others second or third."""
    few = dataclasses.replace(easy, classes=tuple("abcdefghij"))
    images, labels = torch.zeros(10, 1, 8, 8, dtype=torch.uint8), torch.arange(10)
    random = torch.rand(10, 10, generator=torch.Generator().manual_seed(0))
    poor = random.scatter(1, labels[:, None], 0.9) + torch.eye(10).roll(1, 1) * (labels > 1)[:, None]
    assert int((poor.argmax(1) == labels).sum()) == 2
    assert gates.check_set(images, labels, Answers(poor), few) == {"recognised": 20.0, "chance": 10.0, "status": "ok"}
    assert gates.check_set(images, labels.roll(3), Answers(poor), few)["status"] == "weak"
    right = random.scatter(1, labels[:4, None], 2.0)  # four of ten right is clear enough whatever the others are
    assert gates.check_set(images, labels, Answers(right), few)["recognised"] >= 40


def test_ranks_of_meaningless_labels_are_standard_normal():
    draw = torch.Generator().manual_seed(1)
    found = torch.tensor([gates._fit(torch.randn(10, 10, generator=draw), torch.randperm(10, generator=draw))
                          for _ in range(2000)])  # fmt: skip
    assert abs(found.mean()) < 0.07 and abs(found.std() - 1) < 0.05 and (found > gates.FIT).float().mean() < 0.02


def test_counts_and_labels(teacher, easy, few):
    images, labels = few
    with pytest.raises(DataError, match="'rows' has 4 images, class 'columns' 5"):
        gates.check_set(images[1:], labels[1:], teacher, easy)
    with pytest.raises(DataError, match="'centre' has 0"):
        gates.check_set(images[:15], labels[:15], teacher, easy)
    with pytest.raises(DataError, match="label 4 is out of range"):
        gates.check_set(images, labels + 1, teacher, easy)
    with pytest.raises(DataError, match="0 images"):
        gates.check_set(images[:0], labels[:0], teacher, easy)


def test_accuracy_and_calibration_by_hand():
    logits = torch.tensor([[3.0, 0, 0], [0, 3, 0], [0, 0, 3], [3, 0, 0]])
    labels = torch.tensor([0, 1, 0, 0])
    assert accuracy(logits, labels) == (75.0, 100.0)
    confidence = float(logits[0].softmax(0).max())
    assert calibration_error(logits, labels) == pytest.approx(100 * abs(confidence - 0.75), abs=1e-4)
    ranks = torch.arange(8.0, 0, -1).expand(2, 8)
    assert accuracy(ranks, torch.tensor([4, 5])) == (0.0, 50.0)


def test_the_test_split_is_resized_as_published(easy):
    images, labels = test_set(easy, 8)
    assert images.shape == (100, 1, 8, 8) and labels.tolist() == easy.test.labels.tolist()
    import torchvision.transforms as T

    larger, _ = test_set(easy, 14, 8 / 7)  # Resize(16), CenterCrop(14)
    pipeline = T.Compose([T.Resize(16), T.CenterCrop(14), T.PILToTensor()])
    assert torch.equal(larger[3], pipeline(easy.test.pil(3)))


def test_a_large_test_split_is_read_batch_by_batch_with_equal_results(easy, teacher, few, monkeypatch):
    """Where it would not fit in memory nothing but a batch is held; images, scores and metrics stay bit for bit."""
    kept, labels = test_set(easy, 14, 8 / 7)
    scores = [train_easy(easy, few)]
    testing._cached.cache_clear()
    monkeypatch.setattr(testing, "memory_limit", lambda: easy.test.array.nbytes - 1)
    held = []
    plain = testing.TestImages.__getitem__
    monkeypatch.setattr(testing.TestImages, "__getitem__", lambda s, w: held.append(plain(s, w)) or held[-1])
    read, same_labels = test_set(easy, 14, 8 / 7)
    assert isinstance(read, testing.TestImages) and isinstance(kept, torch.Tensor)
    assert torch.equal(read[7:60], kept[7:60]) and torch.equal(read[torch.tensor([5, 1])], kept[[5, 1]])
    assert torch.equal(labels, same_labels) and len(read) == len(kept)
    held.clear()
    scores.append(train_easy(easy, few))
    assert scores[0] == scores[1] and [len(h) for h in held] == [100, 20]
    assert gates.check_teacher(teacher, easy)["accuracy"] > 90
    testing._cached.cache_clear()


def train_easy(easy, few):
    """Scores of a short run, extra metrics included; the robust sample is a part of the split."""
    from benchmark.evaluation import train_student
    from benchmark.evaluation.metrics.robustness import Context, attacks

    result = train_student(
        *few, dataset=easy, protocol=load_protocol("rded-paper", {"epochs": 2, "labels": "hard", "loss": "ce"}),
        student="convnet3_bn", ipc=5, seed=0,
    )  # fmt: skip
    return result.scores, attacks(Context(result, easy, limit=20))


def test_an_even_selection_of_a_large_set_is_looked_at(teacher, easy, few, monkeypatch):
    images, labels = few
    seen = []
    monkeypatch.setattr(gates, "SEEN", 8)
    even = torch.eye(4)[torch.arange(4).repeat_interleave(2)]  # right for two images of each class, in class order
    monkeypatch.setattr(teacher, "logits", lambda x: seen.append(len(x)) or even)
    report = gates.check_set(images, labels, teacher, easy)
    assert seen == [8] and report["recognised"] == 100.0


def test_two_images_of_two_classes_can_pass(teacher, easy, few, monkeypatch):
    two = dataclasses.replace(easy, classes=easy.classes[:2])
    monkeypatch.setattr(teacher, "logits", lambda x: torch.eye(2))
    assert gates.check_set(few[0][:2], torch.tensor([0, 1]), teacher, two)["recognised"] == 100.0
    with pytest.raises(GateError, match="at least 100.0 % for 2 images"):
        gates.check_set(few[0][:2], torch.tensor([1, 0]), teacher, two, given=True)
