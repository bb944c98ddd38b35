"""Training on the device: the perceptual term, the ladder's rungs, the time limit, keys that stay."""

import dataclasses
import json
import math

import pytest
import torch
from click.testing import CliRunner
from toy_backbones import TINY, make_dataset

from benchmark.backbones import classifiers, likeness, resident
from benchmark.backbones.folder import report
from benchmark.backbones.settings import Settings, settings
from benchmark.backbones.stages import backbone_stage_of, hold_out, rungs, vae_stage
from benchmark.backbones.training import Run, rung_folders, train_backbone
from benchmark.core.errors import UsageError
from benchmark.training.loop import OutOfTime

QUICK = {**TINY, "draws": "device", "perceptual": 0.3, "align": 0.3, "flips": 1, "held_out": 6, "dit_steps": 100}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Cards are made with three sampling steps."""
    monkeypatch.setattr("benchmark.backbones.report.STEPS", 3)


def test_later_settings_leave_old_keys():
    """A setting that came later is in the key where it is set, and only there."""
    dataset = make_dataset()
    old = settings(dataset, "tiny", **TINY)
    assert "draws" not in old.document() and "perceptual" not in old.vae_document()
    for name, value in {"draws": "device", "held_out": 512}.items():
        new = settings(dataset, "tiny", **TINY, **{name: value})
        assert new.document()[name] == new.vae_document()[name] == value
        assert vae_stage(dataset, new).key != vae_stage(dataset, old).key
        assert backbone_stage_of(dataset, new).key != backbone_stage_of(dataset, old).key
    with pytest.raises(UsageError, match="draws=device"):
        settings(dataset, "tiny", perceptual=0.1)


def test_rungs():
    assert rungs(30000) == [300, 900, 3000, 9000]
    assert rungs(3) == [1]


def test_batches_on_the_device_visit_every_image_once_an_epoch():
    batches = resident.Batches(10, 4, "cpu", "s")
    seen = torch.cat([batches[step] for step in range(5)])
    assert sorted(seen[:10].tolist()) == sorted(seen[10:].tolist()) == list(range(10))
    assert torch.equal(batches[2], resident.Batches(10, 4, "cpu", "s")[2])


def test_perceptual_distance():
    """Nothing for equal images, more for other images than for a little noise."""
    torch.manual_seed(0)
    net, images = classifiers.Plain(1, 3, (8, 8)).eval(), torch.rand(4, 1, 8, 8) * 2 - 1
    near = classifiers.perceptual_distance(net, images + 0.01 * torch.randn_like(images), images)
    assert classifiers.perceptual_distance(net, images, images) < 1e-9 < near
    assert near < classifiers.perceptual_distance(net, images.flip(0), images)


def test_frechet_distance_of_known_gaussians():
    torch.manual_seed(0)
    first, second = torch.randn(200000, 3), torch.randn(200000, 3) * torch.tensor([1.0, 2.0, 3.0]) + 1
    assert likeness.frechet(first, second) == pytest.approx(3 + 1 + 4, rel=0.02)
    assert likeness.frechet(first[:100000], first[100000:]) < 1e-3


def test_precision_and_coverage():
    torch.manual_seed(0)
    real = torch.randn(300, 2)
    assert min(likeness.precision_coverage(real, torch.randn(300, 2))) > 85
    precision, coverage = likeness.precision_coverage(real, torch.randn(300, 2) * 0.1)
    assert precision > 95 and coverage < 50
    assert likeness.precision_coverage(real, torch.randn(300, 2) + 20) == (0, 0)


def test_ladder_stops_at_the_time_limit_and_goes_on(store, judge, monkeypatch):
    """Two interrupted calls give the weights of one whole, and every rung is a folder with a card."""
    dataset = make_dataset(each=40)
    chosen = settings(dataset, "tiny", **QUICK)
    monkeypatch.setattr("benchmark.training.loop.FIRST_INTERVAL", 7)
    with pytest.raises(OutOfTime, match="7 of 8"):
        train_backbone(store, dataset, "tiny", run=Run(ladder=True, deadline=0.0), **QUICK)
    with pytest.raises(OutOfTime, match="7 of 100"):
        train_backbone(store, dataset, "tiny", run=Run(ladder=True, deadline=0.0), **QUICK)
    assert list(rung_folders(store, dataset, chosen)) == [1, 3]
    folder = train_backbone(store, dataset, "tiny", run=Run(ladder=True, card_images=4), **QUICK)
    found = rung_folders(store, dataset, chosen)
    assert list(found) == [1, 3, 10, 30, 100] and found[100] == folder
    card = report(folder)
    assert card["samples"]["count"] == 12 and card["reconstruction"]["images"] == len(hold_out(dataset, 6)) == 6
    assert math.isfinite(card["samples"]["likeness_guidance_2"]["frechet"])


def test_equal_whether_interrupted_or_not(tmp_path, judge, monkeypatch):
    from safetensors.torch import load_file

    from benchmark.core.store import Store

    monkeypatch.setattr("benchmark.backbones.training.write_report", lambda *args, **more: None)
    quick = {**QUICK, "dit_steps": 20}
    monkeypatch.setattr("benchmark.training.loop.FIRST_INTERVAL", 7)
    found = []
    for name, stops in (("a", 2), ("b", 0)):
        store = Store(tmp_path / name)
        for _ in range(stops):
            with pytest.raises(OutOfTime):
                train_backbone(store, make_dataset(), "tiny", run=Run(deadline=0.0), **quick)
        folder = train_backbone(store, make_dataset(), "tiny", **quick)
        found.append(load_file(folder / "transformer/diffusion_pytorch_model.safetensors"))
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[1])


def test_command(tmp_path, judge, monkeypatch):
    from benchmark.cli.backbone import backbone

    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("benchmark.data.load_dataset", lambda *a, **k: make_dataset())
    sets = [part for key, value in {**QUICK, "dit_steps": 20}.items() for part in ("--set", f"{key}={value}")]
    command = ["train", "--dataset", "digits", "--preset", "tiny", *sets, "--ladder", "--device", "cpu"]
    result = CliRunner().invoke(backbone, [*command, "--out", str(tmp_path / "out")], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [f"rung-{s:07d}" for s in (1, 2, 6, 20)]
    assert "recognised @2" in result.output and (tmp_path / "out/rung-0000020/vae/config.json").is_file()


def test_exported_backbone_is_what_its_dataset_uses(folder, tmp_path, monkeypatch):
    """bfloat16 weights load in any precision; the folder is found by the dataset's name and keyed by its content."""
    from benchmark.backbones import external_key, load_backbone
    from benchmark.backbones import folder as folders
    from benchmark.backbones.export import export
    from benchmark.backbones.resolve import resolve_backbone
    from benchmark.core.compute import Precision

    dataset = make_dataset()
    about = {"dataset": "toy", "classes": list(dataset.classes), "vae_key": "of the exact weights"}
    (folder / folders.ABOUT).write_text(json.dumps(about))
    place = tmp_path / "shipped" / "toy"
    place.mkdir(parents=True)
    export(folder, place, "ddbench backbone train --dataset toy")
    assert "ddbench backbone train --dataset toy" in (place / "README.md").read_text()

    monkeypatch.setenv("DDBENCH_BACKBONES", "")
    assert resolve_backbone(dataset).stage is not None  # the preset, trained here
    monkeypatch.setenv("DDBENCH_BACKBONES", str(place.parent))
    found = resolve_backbone(dataset)
    assert (found.name, found.key, found.stage) == (str(place), external_key(place), None)
    assert resolve_backbone(dataclasses.replace(dataset, name="toy@val")).stage is not None
    assert resolve_backbone(make_dataset(("x", "y", "z"))).stage is not None  # other classes

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.delenv("DDBENCH_BACKBONES")
    monkeypatch.setattr(folders, "CHECKOUT", tmp_path / "checkout")
    place.parent.rename(tmp_path / "b")
    (tmp_path / "checkout/results").mkdir(parents=True)
    (tmp_path / "b").rename(tmp_path / "checkout/results/backbones")
    place = tmp_path / "checkout/results/backbones/toy"
    named = resolve_backbone(dataset)  # no name of a machine's folder
    assert (named.name, named.key) == ("results/backbones/toy", found.key)

    exact, rounded = (load_backbone(p, dataset, "cpu", Precision(), "") for p in (folder, place))
    assert rounded.vae_key not in ("of the exact weights", exact.vae_key) and rounded.vae.dtype == torch.float32
    for part in ("vae", "dit"):
        wanted, got = (dict(getattr(b, part).named_parameters()) for b in (exact, rounded))
        assert all(torch.equal(got[k], v.to(torch.bfloat16).float()) for k, v in wanted.items())


def test_default_settings_need_no_classifier():
    assert Settings().perceptual == 0 and Settings().draws == "host"
