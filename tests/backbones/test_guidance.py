"""The guidance of a backbone: where it stands, whose default it is, and how the authors' own is had by name."""

import dataclasses
import json

import pytest

from benchmark.backbones import guidance
from benchmark.cli import guidance as command
from benchmark.cli.run import _authors, _requests
from benchmark.core.errors import DataError, UsageError
from benchmark.methods import make_params
from benchmark.pipeline.request import Request
from benchmark.plugins import registry
from benchmark.results.records.remake import commands

DIFFUSION = {"dit": "guidance", "d4m": "guidance", "minimax": "guidance", "mgd3": "guidance", "cao2": "guidance"}
DIFFUSION |= {"d3hr": "decode_guidance", "d3hr-modes": "decode_guidance"}


def method(name):
    return registry().get("method", name).load()


def test_where_it_stands(tmp_path):
    digits = guidance.chosen("digits")
    assert set(digits) == {"guidance"} and guidance.chosen("digits@val", "tiny") == digits
    assert guidance.chosen("digits", "base") == {} == guidance.chosen("imagenet1k") == guidance.chosen("svhn")
    assert guidance.chosen("digits", str(tmp_path)) == {}  # a folder: what was chosen for it, not for the preset
    guidance.write(tmp_path, "digits@val", {"guidance": 3.0})
    guidance.write(tmp_path, "cifar10", {"guidance": 1.5})
    assert guidance.chosen("digits", str(tmp_path)) == {"guidance": 3.0}
    assert guidance.chosen("cifar10@val", str(tmp_path)) == {"guidance": 1.5} and not guidance.chosen("svhn", tmp_path)
    (tmp_path / guidance.FILE).write_text('{"digits": 3}')
    with pytest.raises(DataError, match="not what `ddbench backbone guidance` writes"):
        guidance.chosen("digits", str(tmp_path))


@pytest.mark.parametrize("name", sorted(DIFFUSION))
def test_it_is_every_diffusion_methods_default(name):
    cls, field = method(name), DIFFUSION[name]
    chosen = make_params(cls, name, "digits", {}, {"guidance": 1.25})
    assert getattr(chosen, field) == 1.25
    assert getattr(make_params(cls, name, "digits", {field: 3}, {"guidance": 1.25}), field) == 3.0
    assert make_params(cls, name, "svhn", {}) == cls.Params()
    if name != "d3hr-modes":  # has no authors but us
        authors = make_params(cls, name, "digits", cls.authors("digits"), {"guidance": 1.25})
        assert getattr(authors, field) == getattr(cls.Params(), field)


def test_no_method_that_samples_is_left_out():
    """A parameter called guidance is the backbone's; inverting is another matter."""
    for name in registry().names("method"):
        for field in dataclasses.fields(method(name).Params):
            if "guidance" in field.name and "invert" not in field.name:
                assert field.metadata.get("backbone") == "guidance", f"{name}.{field.name}"


def test_stable_diffusion_keeps_its_own():
    assert make_params(method("d4m"), "d4m", "digits", {"model": "some/pipeline"}, {"guidance": 1.25}).guidance == 8.0


def test_the_best_mean_wins_and_of_equals_the_smaller():
    assert guidance.best({1.0: {1: 80, 10: 92}, 2.0: {1: 84, 10: 91}, 4.0: {1: 86, 10: 86}}) == 2.0
    assert guidance.best({4.0: {1: 80}, 2.0: {1: 80}}) == 2.0


def test_the_choice_goes_into_the_folder_or_is_shown(tmp_path, capsys):
    scores = {1.0: {1: 80.0, 10: 92.0}, 2.0: {1: 84.0, 10: 91.0}, 4.0: {1: 86.0, 10: 86.0}}
    options = {"backbone": str(tmp_path), "protocol": "hard", "sets": ("protocol.steps=200",), "seeds": 3}
    command._finish("digits", scores, options)
    written = json.loads((tmp_path / "guidance.json").read_text())["digits"]
    assert written["guidance"] == 2.0 and written["on"] == "digits@val" and written["top1"]["4"] == {"1": 86, "10": 86}
    command._finish("digits", scores, options | {"backbone": ""})
    shown = capsys.readouterr()
    assert "guidance: {tiny: 2}" in shown.out and "edge" not in shown.err
    command._finish("digits", {2.0: {1: 84.0}, 4.0: {1: 80.0}}, options)
    assert "2 is the edge" in capsys.readouterr().err


def test_the_authors_settings_by_name():
    request = Request("digits", ("d4m", "d3hr", "rded"), sets={"d3hr.decode_guidance": 3.0})
    found = _authors(request)
    assert found.sets == {"d4m.guidance": 8.0, "d3hr.decode_guidance": 3.0, "d3hr.invert_guidance": 4.0}
    assert found.tuning == {"d4m": {"settings": "authors"}, "d3hr": {"settings": "authors"}}
    with pytest.raises(UsageError, match="either tuned or the authors"):
        _requests({"settings": "authors", "tuned": "file.yaml"}, request)


def test_records_of_another_guidance_are_made_again_with_it():
    params = dataclasses.asdict(make_params(method("d4m"), "d4m", "digits", {}, guidance.chosen("digits")))
    identity = {"dataset": {"name": "digits"}, "protocol": {"name": "hard"}, "ipc": 1, "seed": 0, "student": "s"}
    identity["precision"] = {"dtype": "float32", "autocast": None, "tf32": False, "compile": False}
    lines = commands([{"identity": identity | {"method": {"name": "d4m", "params": params | {"guidance": 8.0}}}}], "r")
    assert "--set d4m.guidance=8.0" in lines[0]
    assert "--set" not in commands([{"identity": identity | {"method": {"name": "d4m", "params": params}}}], "r")[0]
