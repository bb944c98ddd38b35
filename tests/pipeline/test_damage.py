"""A flipped byte in any kind of artifact is noticed before use; what can be made again is, with equal records."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from benchmark.core.store import Store
from benchmark.pipeline import Request, make_plan
from benchmark.pipeline.engine import work
from benchmark.pipeline.jobs import distill, evaluate
from benchmark.pipeline.runs import Run
from benchmark.plugins import registry
from benchmark.results.records import find_record

BACKBONE = {"image_size": 8, "levels": 2, "patch": 2, "vae_width": 8, "vae_steps": 4, "vae_batch": 8, "width": 16,
            "heads": 2, "depth": 2, "dit_steps": 4, "dit_batch": 8}  # fmt: skip
SETS = {
    "d3hr.m": 10, "d3hr.invert_images": 2, "d3hr.steps": 4, "d3hr.depth": 2, "d3hr.start_step": 2,
    "d3hr.keep_depths": [2], "d4m.steps": 2, "minimax.steps": 2, "minimax.sampling_steps": 2,
    "kmeans.features": "teacher", "protocol.epochs": 2,
}  # fmt: skip
REQUEST = Request(
    dataset="digits",
    methods=("d3hr", "d4m", "minimax", "kmeans"),
    protocols=("fkd",),
    students=("convnet3_bn",),
    seeds=(0,),
    teacher="convnet3_bn",
    backbone="tiny",
    sets=SETS,
)
KINDS = {"student", "relabel", "set", "teacher", "d3hr.statistics", "d4m.prototypes", "minimax.tuning",
         "baselines.features", "backbone.latents", "backbone", "backbone.vae"}  # fmt: skip


def run(root: Path) -> dict:
    """Scores by record file, after a run with nothing kept in this process."""
    for cached in (distill._loaded_backbone, evaluate._checked_teacher):
        cached.cache_clear()
    store = Store(root / "store")
    plan = make_plan([REQUEST], store, root / "results")
    report = work(Run.create(plan, store), say=lambda text: None)
    assert not report.failed, report.failed
    return {p.name: json.loads(p.read_text())["scores"] for p in (root / "results" / "records").glob("*.json")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, digits_teacher_store):
    """A finished run: its folder and its scores."""
    root = tmp_path_factory.mktemp("whole")
    shutil.copytree(digits_teacher_store.root, root / "store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmark.backbones.presets.TINY", BACKBONE)
        patch.setattr("benchmark.backbones.training.write_report", lambda *args, **more: None)  # samples for seconds
        known = registry().items["method"]
        for name in REQUEST.methods:  # an untrained backbone's images are noise
            patch.setitem(known, name, replace(known[name], gate="waived"))
        yield root, run(root)


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.slow
def test_flipped_bytes_are_noticed_before_use(whole, capsys):
    """A byte in every artifact of the store at once: whatever the run looks at is damaged, and is made again."""
    root, scores = whole
    artifacts = root / "store" / "artifacts"
    assert {kind.name for kind in artifacts.iterdir()} == KINDS
    for damaged in artifacts.glob("*/*"):
        files = [p for p in damaged.rglob("*") if p.is_file() and p.name != "artifact.json"]
        flip(max(files, key=lambda p: p.stat().st_size))
    shutil.rmtree(root / "results")
    capsys.readouterr()
    assert run(root) == scores
    said = capsys.readouterr().err
    for kind in KINDS:
        assert f"/artifacts/{kind}/" in said and "does not have the digest it was written with" in said, kind
        assert list((artifacts / kind).glob("*.damaged-*"))


@pytest.mark.slow
def test_a_flipped_byte_in_a_record_is_noticed(whole):
    root, scores = whole
    file = next((root / "results" / "records").glob("*.json"))
    identity = json.loads(file.read_text())["identity"]
    flip(file)
    assert find_record(root / "results", identity) is None
    assert run(root) == scores and find_record(root / "results", identity) is not None
