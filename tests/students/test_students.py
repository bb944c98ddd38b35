"""Every student trains two epochs on digits; seeds, sizes and learning-rate groups are what they say."""

import dataclasses

import pytest
import torch

from benchmark.core.errors import UsageError
from benchmark.data import load_dataset
from benchmark.data.holdout import SubsetSplit
from benchmark.evaluation import train_student
from benchmark.evaluation.protocols import load_protocol
from benchmark.students import build_student, input_size, lr_group
from benchmark.students.registered import STUDENTS

NAMES = [s.name for s in STUDENTS if not s.name.endswith(":")] + ["timm:resnet10t", "torchvision:squeezenet1_1"]


@pytest.fixture(scope="module")
def digits():
    whole = load_dataset("digits")
    return dataclasses.replace(whole, test=SubsetSplit(whole.test, range(20)), digest="digits for students")


@pytest.mark.parametrize("name", NAMES)
def test_every_student_trains_two_epochs_on_digits(name, digits):
    index = [int(c[0]) for c in digits.train.by_class]
    result = train_student(
        digits.train.images(index),
        torch.arange(10),
        dataset=digits,
        protocol=load_protocol("hard", {"steps": "null", "epochs": 2, "batch": 10}),
        student=name,
        ipc=1,
        seed=0,
    )
    assert result.steps == 2 and 0 <= result.scores["top1_last"] <= 100
    fresh = build_student(name, 10, 1, 8, 0).state_dict()
    moved = [k for k, v in result.model.state_dict().items() if v.is_floating_point() and not torch.equal(v, fresh[k])]
    assert len(moved) > len(fresh) / 3, "training changed nothing"


@pytest.mark.parametrize("name", ["convnet3_bn", "convnet3_in", "convnet6_in", "resnetap10", "resnet18"])
def test_logits_depend_on_the_image_even_at_8_px(name):
    model = build_student(name, 10, 1, 8, 0)
    out = model(torch.randn(4, 1, 8, 8))
    assert out.shape == (4, 10) and (out[0] - out[1]).abs().max() > 1e-3


def test_a_seed_gives_the_same_weights_and_leaves_the_callers_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a, b, c = (build_student("convnet3_bn", 10, 3, 32, s) for s in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(a.classifier.weight, b.classifier.weight)
    assert not torch.equal(a.classifier.weight, c.classifier.weight)


def test_convnet_has_the_published_shape():
    size = lambda *a: sum(p.numel() for p in build_student(*a, 0).parameters())  # noqa: E731
    # DC's networks.py and RDED's models.py at 32 px colour (320,010) and 28 px gray, padded to 32
    assert size("convnet3_in", 10, 3, 32) == size("convnet3_bn", 10, 3, 32) == 320010
    assert size("convnet3_in", 10, 1, 28) == 320010 - 2 * 9 * 128
    assert build_student("convnet3_in", 10, 1, 28, 0).features[0].padding == (3, 3)
    assert build_student("convnet3_in", 10, 1, 32, 0).features[0].padding == (1, 1)


def test_resnets_have_the_small_stem_up_to_64_px():
    small, large = build_student("resnet18", 10, 3, 32, 0), build_student("resnet18", 10, 3, 224, 0)
    assert small.conv1.stride == (1, 1) and isinstance(small.maxpool, torch.nn.Identity)
    assert large.conv1.stride == (2, 2) and large.fc.out_features == 10


def test_input_sizes_and_groups_are_resolved():
    assert input_size(build_student("mobilenetv2", 10, 1, 8, 0), 8) == 32
    assert input_size(build_student("convnet3_bn", 10, 1, 8, 0), 8) == 8
    groups = {n: lr_group(n) for n in ("mobilenetv2", "timm:efficientnet_b0", "torchvision:alexnet", "timm:resnet26")}
    assert list(groups.values()) == ["mobilenet", "efficientnet", "alexnet", "resnet"]
    rded = load_protocol("rded-paper")
    assert [rded.rate(g) for g in groups.values()] == [2.5e-3, 2e-3, 1e-4, 1e-3]


@pytest.mark.parametrize(
    ("name", "near"), [("convnet3", "convnet3_bn"), ("timm:resnet_26", "resnet"), ("timm:", "arg")]
)
def test_unknown_names_say_the_nearest(name, near):
    with pytest.raises(UsageError, match=near):
        build_student(name, 10, 3, 32, 0)
