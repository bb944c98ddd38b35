"""What `plan` says about cost: without any data from published sizes, with data from what is not in the store."""

import pytest
from click.testing import CliRunner

from benchmark.cli.run import plan
from benchmark.core.errors import MissingError
from benchmark.data import load_dataset
from benchmark.pipeline import requirements
from benchmark.pipeline.cost import forecast, table
from benchmark.pipeline.cost.predict import Place
from benchmark.pipeline.request import Request


@pytest.fixture(autouse=True)
def bare(tmp_path, monkeypatch):
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DDBENCH_DATA", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(requirements, "gpus", lambda: [("NVIDIA Imaginary", 0, 0)])


def test_imagenet_without_anything():
    found = CliRunner().invoke(plan, ["--method", "d3hr", "--dataset", "imagenet1k", "--ipc", "50", "--seeds", "2"])
    assert isinstance(found.exception, MissingError) and "1. data" in str(found.exception)
    text = found.output
    for words in (
        "1,281,167 images x 30 steps x 2 passes (guided) x 237 GFLOP",
        "2 sets x 50,000 images x 30 steps x 2 passes (guided) x 237 GFLOP",
        "18.2 EFLOP",
        "no row of the throughput table",
        "NVIDIA Imaginary",
        "ddbench speed --backbone facebook/DiT-XL-2-256 --precision bf16",
        "latents 21 GB",
        "--shard I/N",
        "resnet18 at 224 px x 117,300 steps x 128 images",
    ):
        assert words in text, words


def test_what_is_there_costs_nothing(monkeypatch):
    digits = load_dataset("digits")
    request = Request("digits", ("d3hr",), ipc=(1, 10), seeds=(0, 1))
    facts, place = forecast.Facts.of(digits), Place("GPU", "fp32")
    whole = forecast.everything(request, facts)
    shape = forecast.backbone_shape(request, facts, digits)[1]
    row = table.Row("GPU", shape.name, "fp32", "invert", 1.0, 30, 64, 0, 1347 / 60, 10**9, "d", "ddbench speed")
    monkeypatch.setattr(table, "committed", lambda: [row])
    text = "\n".join(forecast.forecast(request, facts, whole, place, digits))
    assert text.count("1,347 images x 30 steps") == 1  # once for both IPC values and both seeds
    assert "2 sets x 10 images" in text and "2 sets x 100 images" in text
    assert "backbone tiny, trained once" not in text and "teacher convnet3_bn, trained once" in text
    untrained = forecast.ToDo(whole.sets, whole.students, {}, backbone=True)
    text = "\n".join(forecast.forecast(request, facts, untrained, place, digits))
    assert "backbone tiny, trained once:" in text and "1,000 steps x 128 images x 81.2 MFLOP" in text
    taught = forecast.ToDo({}, {}, {}, teachers=("convnet3_bn",))
    text = "\n".join(forecast.forecast(request, facts, taught, place, digits))
    assert "teacher convnet3_bn, trained once:" in text and "1 x convnet3_bn at 8 px x " in text
    assert whole.teachers == ("convnet3_bn",)
    half = forecast.ToDo(whole.sets, whole.students, {"d3hr": 0.5})
    assert "674 images x 30 steps" in "\n".join(forecast.forecast(request, facts, half, place, digits))
    none = forecast.ToDo({("d3hr", 10): 1}, {}, {"d3hr": 0.0})
    text = "\n".join(forecast.forecast(request, facts, none, place, digits))
    assert "1,347" not in text and "100 images x 30 steps" in text and "10 images x 30" not in text.replace("100", "")
    assert forecast.forecast(request, facts, forecast.ToDo({}, {}, {}), place, digits) == []


def test_candidates_and_refinement_are_counted():
    digits = load_dataset("digits")
    request = Request("digits", ("cao2",), ipc=(10,), seeds=(0,))
    facts, place = forecast.Facts.of(digits), Place("GPU", "fp32")
    text = "\n".join(forecast.forecast(request, facts, forecast.everything(request, facts), place, digits))
    assert "400 images x 50 steps x 2 passes (guided)" in text
    assert "100 images x 100 steps x 2 (forward, backward)" in text


def test_sizes_of_public_datasets():
    facts = forecast.Facts.published("cifar10", None)
    assert (facts.train, len(facts.classes), facts.image_size, facts.channels) == (50000, 10, 32, 3)
    assert forecast.Facts.published("imagenet1k", 32).image_size == 32
    assert forecast.Facts.published("imagefolder:x", None) is None


def test_methods_that_recover_images_cost_passes_of_their_classifier(monkeypatch):
    digits, place = load_dataset("digits"), Place("GPU", "fp32")
    facts = forecast.Facts.of(digits)
    row = table.Row("GPU", "convnet3_bn 8px", "fp32", "student", 1.0, 1, 64, 0, 500.0, 10**9, "d", "ddbench speed")
    monkeypatch.setattr(table, "committed", lambda: [row])
    request = Request("digits", ("sre2l", "delt", "fadrm"), ipc=(10,), seeds=(0,), sets={"fadrm.squeeze": "resnet18"})
    whole = forecast.everything(request, facts)
    assert whole.teachers == ("convnet3_bn", "resnet18")
    text = "\n".join(forecast.forecast(request, facts, whole, place, digits))
    assert "recover" in text and "100 images x 1,000 steps x 3 (forward, backward)" in text
    assert "predicted 3.3 min on one GPU" in text  # 100 x 1000 / 500 s
    assert "10 images x 25,500 steps" in text  # DELT's rounds: 2 x 4000 + 2 x 3500 + 3000 + … + 500
    assert f"{len(digits.train):,} images x 1 steps x 1 pass" in text and "of resnet18" in text


def test_methods_that_match_gradients_cost_passes_of_their_network(monkeypatch):
    digits, place = load_dataset("digits"), Place("GPU", "fp32")
    facts = forecast.Facts.of(digits)
    row = table.Row("GPU", "convnet3_in 8px", "fp32", "student", 1.0, 1, 64, 0, 3000.0, 10**9, "d", "ddbench speed")
    monkeypatch.setattr(table, "committed", lambda: [row])
    sets = {"dc.batch": "64", "dc.iterations": "1000", "el2n.epochs": "3", "el2n.networks": "10"}
    request = Request("digits", ("dc", "el2n"), ipc=(10,), seeds=(0, 1), sets=sets)
    text = "\n".join(forecast.forecast(request, facts, forecast.everything(request, facts), place, digits))
    for words in (
        "2 sets x 640 images x 10,000 steps x 3 (forward, backward)",
        "2 sets x 100 images x 10,000 steps x 9 (forward, backward, twice differentiated)",
        "2 sets x 100 images x 450,000 steps x 3",
        f"predicted {2 * (640 * 10000 + 3 * 100 * 10000 + 100 * 450000) / 3000 / 3600:,.3g} h on one GPU",
        "1,347 images x 30 steps x 3",
        "once for every IPC and seed",
    ):
        assert words in text, text
