"""Protocols are checked files; published ones say what their sources say."""

import dataclasses
import subprocess
import sys
from types import SimpleNamespace

import pytest

from benchmark.core.errors import UsageError
from benchmark.evaluation.protocols import Protocol, by_ipc, describe, load_protocol, parse
from benchmark.evaluation.protocols.registered import PROTOCOLS
from benchmark.results.records.remake import split_commas
from benchmark.teachers.recipes import recipe_of


def dataset(name="cifar10", size=32, classes=10):
    return SimpleNamespace(name=name, image_size=size, classes=range(classes))


CIFAR, IMAGENET = dataset(), dataset("imagenet1k", 224, 1000)
TINY, CIFAR100 = dataset("tinyimagenet", 64, 200), dataset("cifar100", 32, 100)


@pytest.mark.parametrize("name", [p.name for p in PROTOCOLS])
def test_every_protocol_is_complete_and_explained(name):
    protocol = load_protocol(name)
    assert protocol.summary and protocol.source and protocol.version >= 1
    assert set(protocol.notes) <= {f.name for f in dataclasses.fields(Protocol)}
    for ipc in (1, 10, 50):
        epochs, steps = protocol.for_dataset(CIFAR).length(ipc, 10, 10 * ipc)
        assert epochs >= 1 and steps >= epochs - 1
    rows = describe(name)
    assert all(len(row) == 3 and row[2] for row in rows)


def test_names_begin_as_scripts_rely_on():
    names = {p.name for p in PROTOCOLS}
    assert {
        "soft",
        "hard",
        "smoke",
        "rded-paper",
        "d3hr-paper",
        "fkd",
        "dc",
        "dc-dsa",
        "idc",
        "compute-matched",
    } <= names


@pytest.mark.parametrize(
    ("data", "ipc", "batch"),
    [(CIFAR, 1, 10), (CIFAR, 10, 50), (CIFAR, 50, 100), (CIFAR100, 10, 100), (IMAGENET, 10, 100), (IMAGENET, 50, 200),
     (TINY, 10, 100), (TINY, 50, 100)],
)  # fmt: skip
def test_rdeds_batch_sizes(data, ipc, batch):
    classes = len(data.classes)
    assert load_protocol("rded-paper").for_dataset(data).batch_size(ipc, classes, ipc * classes) == batch


@pytest.mark.parametrize(("ipc", "epochs"), [(1, 1000), (10, 2000), (20, 1000), (50, 1500), (100, 1000)])
def test_d3hrs_epochs_on_imagewoof(ipc, epochs):
    woof = dataset("imagewoof", 224)
    assert load_protocol("d3hr-paper").for_dataset(woof).length(ipc, 10, ipc * 10)[0] == epochs


@pytest.mark.parametrize(
    ("protocol", "side", "student"),
    [("hard", 8, "convnet3_bn"), ("soft", 64, "convnet3_bn"), ("soft", 224, "resnet18"), ("dc", 32, "convnet3_in"),
     ("dc", 128, "resnet18"), ("rded-paper", 32, "resnet18"), ("d3hr-paper", 224, "resnet18"), ("fkd", 32, "resnet18")],
)  # fmt: skip
def test_a_protocols_own_student(protocol, side, student):
    assert load_protocol(protocol).student_of(side) == student


@pytest.mark.parametrize("protocol", ["rded-paper", "d3hr-paper"])
def test_the_papers_teachers_know_a_subset_only(protocol):
    published = load_protocol(protocol)
    assert published.teacher_for("imagenet1k", 224, True) == "torchvision:resnet18"
    for name in ("imagenette", "imagewoof@val", "imagenet100", "imageidc"):
        assert published.teacher_for(name, 224, True) == "resnet18"
    assert load_protocol("soft").teacher_for("imagenette", 224, True) == "torchvision:resnet18"


def test_what_is_held_out_follows_its_datasets_rules():
    held, own = dataset("cifar100@val", 32, 100), "convnet3_bn"
    assert load_protocol("rded-paper").for_dataset(held, own).batch_size(10, 100, 1000) == 25
    assert load_protocol("dc").for_dataset(dataset("fashionmnist@val", 28)).normalize == {
        "mean": [0.2861],
        "std": [0.353],
    }
    assert recipe_of("digits@val", 1000, 8, 1) == recipe_of("digits", 1300, 8, 1)


@pytest.mark.parametrize(
    ("data", "ipc", "batch", "epochs"),
    [(CIFAR, 1, 10, 400), (CIFAR, 5, 15, 400), (CIFAR, 10, 50, 400), (CIFAR100, 10, 100, 400), (TINY, 1, 15, 300),
     (IMAGENET, 10, 50, 300), (IMAGENET, 50, 100, 300)],
)  # fmt: skip
def test_d3hrs_batch_sizes_and_epochs(data, ipc, batch, epochs):
    classes = len(data.classes)
    protocol = load_protocol("d3hr-paper").for_dataset(data)
    assert protocol.batch_size(ipc, classes, ipc * classes) == batch
    assert protocol.length(ipc, classes, ipc * classes)[0] == epochs


def test_crops_follow_the_factor():
    rded = load_protocol("rded-paper")
    ops = [e["op"] for e in rded.for_dataset(IMAGENET).augment]
    assert ops == ["patch_shuffle", "random_resized_crop", "flip"]
    small = rded.for_dataset(CIFAR).augment
    assert [e["op"] for e in small] == ["random_resized_crop", "flip"] and small[0]["scale"] == [1.0, 1.0]
    assert small[0]["rounding"] == "float"
    assert load_protocol("d3hr-paper").for_dataset(CIFAR).augment[0]["rounding"] == "uint8"


def test_entries_by_dataset_and_student():
    rded = load_protocol("rded-paper")
    special = rded.for_dataset(CIFAR100, "convnet3_bn")
    assert special.rate("convnet") == 2e-3 and special.batch_size(10, 100, 1000) == 25
    assert rded.for_dataset(CIFAR100, "resnet18").rate("resnet") == 1e-3
    woof = load_protocol("d3hr-paper").for_dataset(dataset("imagewoof", 224))
    assert [by_ipc(woof.epochs, i) for i in (1, 10, 50, 100)] == [1000, 2000, 1500, 1000]
    assert load_protocol("dc").for_dataset(dataset("fashionmnist", 28)).normalize["mean"] == [0.2861]


def test_the_same_steps_at_every_ipc():
    matched = load_protocol("compute-matched")
    assert len({matched.length(ipc, 10, 10 * ipc)[1] for ipc in (1, 5, 10, 50, 200)}) == 1


def test_overrides_rename_and_change_the_digest():
    plain, changed = load_protocol("rded-paper"), load_protocol("rded-paper", {"epochs": "20", "lr": "0.002"})
    assert changed.name == "rded-paper+epochs=20,lr=0.002" and changed.digest != plain.digest
    assert changed.epochs == 20 and changed.rate("vgg") == 0.002
    assert load_protocol("d3hr-paper", {"epochs": 7}).for_dataset(CIFAR).epochs == 7
    assert load_protocol("rded-paper").digest == plain.digest


@pytest.mark.parametrize(
    ("values", "label"),
    [
        ({"lr": ["1e-3", "0.001", 0.001, "{default: 0.001}"]}, "lr=0.001"),
        ({"temperature": ["20", "2e1", 20.0]}, "temperature=20"),
        ({"betas": ["[0.9,0.99]", "[ 0.9, 0.99 ]", [0.9, 0.99]]}, "betas=[0.9,0.99]"),
        ({"batch": ["{1: 10, 50: 100}", {1: 10, 50: 100}]}, "batch={1: 10,50: 100}"),
        ({"augment": ["[flip]", "[{op: flip, p: 0.5}]"]}, "augment=[{op: flip,p: 0.5}]"),
        ({"augment": ["[]"], "mix": ["none"]}, "augment=[],mix=none"),
        ({"remake_optimizer": ["true", "yes", True]}, "remake_optimizer=true"),
        ({"ema": ["null", None]}, "ema=null"),
        ({"steps": ["200", 200]}, "steps=200"),
    ],
)
def test_one_value_has_one_name_which_makes_it_again(values, label):
    made = [load_protocol("soft", dict(zip(values, written))) for written in zip(*values.values())]
    assert {p.name for p in made} == {f"soft+{label}"} and len({p.digest for p in made}) == 1
    again = dict(part.split("=", 1) for part in split_commas(label))
    assert load_protocol("soft", again) == made[0]


def test_texts_do_not_change_the_digest_but_settings_do():
    plain = load_protocol("hard")
    assert dataclasses.replace(plain, notes={}, summary="x").digest == plain.digest
    assert dataclasses.replace(plain, bn_updates=2).digest != plain.digest
    assert dataclasses.replace(plain, version=9).digest != plain.digest


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("epoch", 3, "did you mean 'epochs'"),
        ("optimizer", "adam", "did you mean 'adamw'"),
        ("batch", 0, "positive whole number"),
        ("batch", "many", "positive whole number"),
        ("lr", "fast", "lr must be a number"),
        ("temperature", "hot", "temperature must be a number"),
        ("labels", "soft", "takes hard labels"),
        ("steps", "null", "exactly one of epochs and steps"),
        ("augment", "[spin]", "unknown augmentation 'spin'"),
        ("augment", "[{op: flip, q: 1}]", "flip has no parameter 'q'"),
        ("normalize", "cifar", "normalize cannot be"),
        ("version", "2", "cannot be overridden"),
    ],
)
def test_wrong_fields_are_refused(key, value, message):
    with pytest.raises(UsageError, match=message) as caught:
        load_protocol("hard", {key: value})
    assert f"--set protocol.{key}={value}" in str(caught.value)  # what the user typed


def test_wrong_files_are_refused():
    with pytest.raises(UsageError, match="did you mean"):
        load_protocol("rded-papr")
    with pytest.raises(UsageError, match="exactly one of epochs and steps"):
        parse({"name": "x"}, "x.yaml")
    with pytest.raises(UsageError, match="mapping"):
        parse(["x"], "x.yaml")


def test_describe_shows_differences_only():
    rows = {row[0]: row for row in describe("rded-paper", "d3hr-paper")}
    assert {"augment", "batch", "batch_factor", "evaluate_after", "datasets"} <= set(rows)
    assert "schedule" not in rows and "lr" not in rows and len(rows["batch"]) == 4
    assert "IPC 1/10/50" in rows["batch"][3]


def test_loading_and_describing_needs_no_torch():
    code = "import sys; from benchmark.evaluation.protocols import describe; describe('soft', 'fkd')"
    code += "; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["hard", "soft"])
@pytest.mark.parametrize("data", [CIFAR, CIFAR100, TINY, IMAGENET], ids=lambda d: d.name)
def test_the_harness_own_protocols_show_every_image_often_enough(name, data):
    classes = len(data.classes)
    for ipc in (1, 10, 50, 200):
        images = ipc * classes
        protocol = load_protocol(name).for_dataset(data)
        steps = protocol.length(ipc, classes, images)[1]
        assert steps * protocol.batch_size(ipc, classes, images) >= 80 * images


def test_weights_that_know_imagenet_teach_no_other_classes():
    own = SimpleNamespace(name="imagefolder:pets", image_size=224, classes=range(37), backbone_classes=None)
    family = SimpleNamespace(name="imagenette", image_size=224, classes=range(10), backbone_classes=tuple(range(10)))
    assert load_protocol("soft").teacher_of(own) == "resnet18"
    assert load_protocol("soft").teacher_of(family) == "torchvision:resnet18"
