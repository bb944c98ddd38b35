"""Plug-ins that raise, or return what is no set of images: the record says so, everything else goes on."""

import json
import shutil
import weakref
from dataclasses import dataclass

import pytest
import torch

from benchmark.core.store import Store
from benchmark.methods import Method, param
from benchmark.pipeline import Request, engine, make_plan
from benchmark.pipeline.engine import work
from benchmark.pipeline.runs import Run
from benchmark.plugins import MethodInfo, registry


@dataclass(frozen=True)
class Params:
    fault: str = param("none", "what goes wrong", choices=("units", "raise", "shape", "float", "short", "test"))


class Faulty(Method):
    """Goes wrong in the way it is told to."""

    Params = Params

    def units(self, task):
        if self.params.fault == "units":
            raise ValueError("no units")
        return super().units(task)

    def distill(self, task, unit):
        good = torch.zeros(len(unit.cells), 1, 8, 8, dtype=torch.uint8)
        if self.params.fault == "raise":
            raise ValueError("boom")
        if self.params.fault == "test":
            return task.dataset.test.images(range(len(unit.cells)))
        return {"shape": good[:, 0], "float": good.float(), "short": good[1:]}[self.params.fault]


@pytest.fixture
def faulty(monkeypatch):
    reg = registry()
    monkeypatch.setitem(reg.items["method"], "faulty", MethodInfo("faulty", "", f"{__name__}:Faulty"))
    monkeypatch.setitem(__import__("sys").modules, __name__, __import__("sys").modules[__name__])


@pytest.mark.parametrize(
    "fault, text",
    [
        ("units", "no units"),
        ("raise", "boom"),
        ("shape", "uint8"),
        ("float", "uint8"),
        ("short", "shape"),
        ("test", "test split"),
    ],
)
def test_a_faulty_method_is_a_failed_row(faulty, fault, text, store, tmp_path, digits_teacher_store):
    request = Request(
        dataset="digits",
        methods=("faulty", "random"),
        protocols=("smoke",),
        seeds=(0,),
        sets={"faulty.fault": fault, "protocol.steps": 2},
    )
    shutil.copytree(digits_teacher_store.root, store.root)
    plan = make_plan([request], store, tmp_path / "results", parts=2)
    run = Run.create(plan, Store(store.root))
    report = work(run, say=lambda text: None)
    found = [json.loads(p.read_text()) for p in (tmp_path / "results" / "records").glob("*.json")]
    by_method = {r["identity"]["method"]["name"]: r["outcome"] for r in found}
    assert by_method["faulty"]["status"] == "failed" and text in by_method["faulty"]["reason"]
    assert by_method["random"]["status"] == "ok" and not any("random" in text for text in report.failed.values())


def test_a_failed_job_has_let_go_of_its_tensors_when_memory_is_freed(
    faulty, monkeypatch, store, tmp_path, digits_teacher_store
):
    """While an exception is handled its traceback holds them, so nothing could go back to the GPU."""
    made, held = [], []
    zeros = torch.zeros

    def watched(*shape, **options):
        made.append(weakref.ref(found := zeros(*shape, **options)))
        return found

    monkeypatch.setattr(f"{__name__}.torch.zeros", watched)
    monkeypatch.setattr(engine, "_free_memory", lambda: held.append([r() is not None for r in made]))
    shutil.copytree(digits_teacher_store.root, store.root)
    sets = {"faulty.fault": "raise", "protocol.steps": 2}
    request = Request(dataset="digits", methods=("faulty",), protocols=("smoke",), seeds=(0,), sets=sets)
    run = Run.create(make_plan([request], store, tmp_path / "results"), Store(store.root))
    engine.work(run, say=lambda text: None)
    assert made and held and not any(any(alive) for alive in held)
