"""`ddbench check` names the rule that a broken method breaks."""

import dataclasses

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from benchmark.cli.check import check
from benchmark.core.errors import UsageError
from benchmark.methods import Method, param
from benchmark.plugins import MethodInfo, registry
from benchmark.testing import RULES, check_method
from benchmark.testing.bench import Bench


class Good(Method):
    """A real image for each cell, drawn as it should be."""

    def choose(self, task, label, index):
        rows = task.train.by_class[label]
        return int(rows[torch.randint(len(rows), (1,), generator=task.generator(label, index))])

    def distill(self, task, unit):
        return task.train.images([self.choose(task, label, index) for label, index in unit.cells])


class ReadsTest(Good):
    def distill(self, task, unit):
        return task.dataset.test.images(range(len(unit.cells)))


class Unseeded(Good):
    def distill(self, task, unit):
        return torch.randint(0, 256, (len(unit.cells), 1, 8, 8), dtype=torch.uint8)


class OrderDependent(Good):
    made = 0

    def choose(self, task, label, index):
        self.made += 1
        return int(task.train.by_class[label][self.made % 5])


class WrongShape(Good):
    def distill(self, task, unit):
        return super().distill(task, unit)[..., :4]


class NotANumber(Good):
    def distill(self, task, unit):
        return super().distill(task, unit).float() * torch.nan


class Mutates(Good):
    def distill(self, task, unit):
        task.train.by_class[0] = np.roll(task.train.by_class[0], 1)
        return super().distill(task, unit)


class Writes(Good):
    def distill(self, task, unit):
        task.train.array[0] = 0
        return super().distill(task, unit)


class TrainsTheTeacher(Good):
    requires = frozenset({"teacher"})

    def distill(self, task, unit):
        task.teacher.model.train()
        return super().distill(task, unit)


class Undeclared(Good):
    def distill(self, task, unit):
        task.teacher.features(task.train.images([0]))
        return super().distill(task, unit)


@dataclasses.dataclass(frozen=True)
class Cached:
    rounds: int = param(2, "images that are drawn", "a toy", low=1, high=5)


class Forgets(Good):
    """Keeps what it draws in a stage whose key holds the seed and the parameter."""

    Params = Cached
    known = {"seeded": True}
    names_rounds = True

    def distill(self, task, unit):
        from pathlib import Path

        given = {"rounds": self.params.rounds} if self.names_rounds else {}

        def make(folder: Path) -> None:
            draw = torch.randint(0, 256, (self.params.rounds,), generator=task.generator(0, 0, "stage"))
            (folder / "level.txt").write_text(str(int(draw[-1])))

        folder = task.artifact(task.stage("toy.level", 1, **self.known, **given), make)
        level = int((folder / "level.txt").read_text())
        return torch.full((len(unit.cells), 1, 8, 8), level, dtype=torch.uint8)


class ForgetsTheSeed(Forgets):
    known: dict = {}


class ForgetsAParameter(Forgets):
    names_rounds = False


BROKEN = {
    ForgetsTheSeed: ("keys", "task.stage(…, seeded=True)"),
    ForgetsAParameter: ("keys", "task.stage(…, rounds=…)"),
    ReadsTest: ("test split", "a method never sees the test split"),
    Unseeded: ("determinism", "the same seed gave other images"),
    OrderDependent: ("order", "with the last unit first"),
    WrongShape: ("runs", "returned images of shape"),
    NotANumber: ("runs", "are not finite"),
    Mutates: ("unchanged", "it changed train.by_class"),
    Writes: ("unchanged", "it wrote to the training split"),
    TrainsTheTeacher: ("unchanged", "the mode (train or eval) of a network"),
    Undeclared: ("runs", 'requires = frozenset({"teacher"})'),
}


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


@pytest.mark.parametrize("cls", BROKEN, ids=lambda cls: cls.__name__)
def test_a_broken_method_is_told_the_rule(bench, cls):
    bench.classes["toy"] = cls
    rule, text = BROKEN[cls]
    found = check_method(bench, "toy")
    assert text in found[rule], found
    assert rule != "runs" or [found[r] for r in RULES if r not in ("parameters", "runs")] == ["not tried: see runs"] * 9


@pytest.mark.parametrize("cls", [Good, Forgets])
def test_a_good_one_keeps_all_of_them(bench, cls):
    bench.classes["toy"] = cls
    assert check_method(bench, "toy") == dict.fromkeys(RULES, "")


def test_the_command(monkeypatch):
    for cls in (Good, WrongShape):
        info = MethodInfo(cls.__name__.lower(), "", f"{__name__}:{cls.__name__}")
        monkeypatch.setitem(registry().items["method"], info.name, info)
    good = CliRunner().invoke(check, ["good"], standalone_mode=False)
    assert (
        good.return_value == 0 and good.output.count("ok ") == len(RULES) and "good keeps the contract" in good.output
    )
    bad = CliRunner().invoke(check, [f"{__name__}:WrongShape"], standalone_mode=False)
    assert bad.return_value == 1 and "BROKEN  runs" in bad.output and "[2, 1, 8, 8]" in bad.output
    assert "breaks a rule" in bad.output


def test_a_module_that_cannot_be_imported_is_named_with_the_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken_toy.py").write_text("x = 1\n@hookimpl\ndef f(): pass\n")
    with pytest.raises(UsageError, match=r"NameError: name 'hookimpl'.*broken_toy.py:2"):
        CliRunner().invoke(check, ["broken_toy:Toy"], standalone_mode=False, catch_exceptions=False)
