"""Every method is tuned alike: the same trials each time, defaults first, failures never win, records say so."""

import json
from dataclasses import dataclass

import pytest
import yaml
from click.testing import CliRunner
from safetensors.torch import save_file

from benchmark.cli.run import run as run_command
from benchmark.cli.tune import tune as tune_command
from benchmark.core.errors import DataError, MissingError, UsageError
from benchmark.data import load_dataset
from benchmark.methods import Method, make_params, param
from benchmark.plugins import MethodInfo, registry
from benchmark.results.boards.cells import tuned_text
from benchmark.studies import tune
from benchmark.teachers import get_teacher


@dataclass(frozen=True)
class Params:
    shade: int = param(0, "what is added to every pixel", tune=(0, 20, 300))
    moved: bool = param(False, "one pixel to the right", tune=(False, True))
    other: int = param(1, "nothing to tune")


class Shaded(Method):
    """Real images, brighter; 300 is more than a pixel takes."""

    Params = Params

    def distill(self, task, unit):
        if self.params.shade > 255:
            raise ValueError("too bright")
        images = task.train.images([task.train.by_class[c][i] for c, i in unit.cells])
        images = images.roll(1, 3) if self.params.moved else images
        return (images.int() + self.params.shade).clamp(max=255).byte()


@pytest.fixture
def shaded(monkeypatch):
    monkeypatch.setitem(registry().items["method"], "shaded", MethodInfo("shaded", "", f"{__name__}:Shaded"))


def test_trials_start_with_the_defaults_and_never_repeat(shaded):
    found = tune.trials("shaded", "digits", 100)
    assert found[0] == {} and len(found) == 6
    assert sorted((t.get("shade", 0), t.get("moved", False)) for t in found) == [
        (0, False), (0, True), (20, False), (20, True), (300, False), (300, True),
    ]  # fmt: skip
    assert tune.trials("shaded", "digits@val", 3) == found[:3]
    fixed = tune.trials("shaded", "digits", 100, {"shade": 20})
    assert fixed == [{}, {"moved": True}]


def test_no_two_trials_act_alike():
    """SRe2L's lr=0 and r_bn=-1 stand for 0.25 and 0.01 below 64 px, and for 0.1 and 1 at 64 px."""
    for name, dataset, default in (("sre2l", "digits", (0.25, 0.01)), ("sre2l", "tinyimagenet", (0.1, 1.0))):
        found = tune.trials(name, dataset, 100)
        assert {"lr": default[0], "r_bn": default[1]} not in found and len(found) == 12
        cls, size = registry().get("method", name).load(), registry().get("dataset", dataset).image_size
        acting = [cls(make_params(cls, name, dataset, trial)).resolved(size) for trial in found]
        assert all(a != b for i, a in enumerate(acting) for b in acting[:i])
        assert (acting[0]["lr"], acting[0]["r_bn"]) == default
    same = tune.trials("sre2l", "imagefolder:somewhere", 100, image_size=64)
    assert same == tune.trials("sre2l", "tinyimagenet", 100)


def test_every_shipped_method_tries_allowed_values():
    for name in registry().names("method"):
        cls = registry().get("method", name).load()
        for settings in tune.trials(name, "digits", 1000):
            make_params(cls, name, "digits", settings)


def cell_rows(*scores):
    cells = tune.cells(["shaded"], [1], len(scores), {"dataset": "digits@val"})
    rows = [
        {"seeds": 2 if s is not None else 1, "top1_last": s, "top1_last_half": 1.0, "reason": "broke"} for s in scores
    ]
    return cells, rows


def test_the_best_whole_trial_wins_and_ties_go_to_the_earlier(shaded):
    entry = tune.chosen(*cell_rows(50.0, 60.0, 60.0, None), 2)["shaded"][1]
    assert entry["params"] == entry["trials"][1]["params"] and entry["top1"] == 60.0
    assert entry["trials"][3]["reason"] == "broke" and len(entry["trials"]) == 4
    assert "params" not in tune.chosen(*cell_rows(None, None), 2)["shaded"][1]


def test_a_failed_trial_is_replaced_by_the_next_setting(shaded):
    base = {"dataset": "digits@val"}
    every = tune.trials("shaded", "digits", 100)
    found = tune.chosen(*cell_rows(50.0, None, 60.0), 2)
    (more,) = tune.further(found, 3, base, {})
    assert more.axes["trial"] == 3 and more.settings["method"] == "shaded"
    assert {k.removeprefix("shaded."): v for k, v in more.settings.items() if "." in k} == every[3]
    assert [c.axes["trial"] for c in tune.further(found, 4, base, {})] == [3, 4]


def test_a_winner_on_an_edge_widens_its_axis_once(shaded):
    trials = [{}, {"shade": 20}, {"moved": True}]
    assert tune.widened("shaded", "digits", trials, {"shade": 20}, {}) is None  # inside (0, 20, 300)
    assert tune.widened("shaded", "digits", trials, {}, {}) == {"shade": -20}  # 0 and 20: their difference
    assert tune.widened("shaded", "digits", trials, {"shade": 300, "moved": True}, {}) == {"shade": 4500, "moved": True}
    assert tune.widened("shaded", "digits", [*trials, {"shade": -20}], {}, {}) is None
    assert tune.widened("shaded", "digits", trials, {}, {"shade": 0}) is None  # fixed by the user
    entry = {"trials": [{"params": t, "top1": 50.0} for t in trials], "params": {}, "top1": 50.0, "half": None}
    (more,) = tune.further({"shaded": {1: entry}}, 3, {"dataset": "digits@val"}, {})
    assert more.settings["shaded.shade"] == -20


def test_methods_share_one_grid_of_guidance_which_never_goes_below_1():
    from benchmark.backbones import guidance

    shared = {}
    for name in registry().names("method"):
        params = registry().get("method", name).load().Params
        axes = tune.axes_of(params, {})
        shared |= {f"{name}.{k}": v for k, v in axes.items() if "guidance" in k and k != "invert_guidance"}
    assert len(shared) >= 5 and set(shared.values()) == {guidance.VALUES}
    best = {"guidance": guidance.VALUES[0]}
    assert tune.widened("dit", "digits", [best], best, {}) is None
    best = {"guidance": guidance.VALUES[-1]}
    assert tune.widened("dit", "digits", [best], best, {}) == {"guidance": pytest.approx(12.25)}


def test_the_winner_is_run_on_fresh_seeds_and_the_note_says_what_had_seen_the_held_out_part(shaded):
    found = tune.chosen(*cell_rows(50.0, 60.0), 2)
    cells = tune.winners(found, {"dataset": "digits@val"})
    tune.add_fresh(found, cells, [{"top1_last": 57.123456, "top1_last_half": 2.0}])
    assert found["shaded"][1]["fresh"] == 57.1235 and found["shaded"][1]["top1"] == 60.0
    document = {"dataset": "digits@val", "digest": "d", "protocol": "hard", "student": "s", "seeds": 3}
    document |= {"methods": found, "protocol_changes": {}, "seen": "backbone"}
    note = tune.settings(document, "digits", "shaded", 1)["note"]
    assert note["seen"] == "backbone" and note["fresh"] == 57.1235
    assert tuned_text(note).endswith("student s; the backbone may have seen the held-out images")


def test_other_files_are_refused(tmp_path):
    with pytest.raises(MissingError, match="no tuning file"):
        tune.read(tmp_path / "none.yaml")
    for text in ("[1, 2]", "schema: 7\nmethods: {}", "a: [", "methods: 3\nschema: 1"):
        (tmp_path / "x.yaml").write_text(text)
        with pytest.raises(DataError, match="ddbench tune"):
            tune.read(tmp_path / "x.yaml")
    document = {"dataset": "digits@val", "methods": {}}
    with pytest.raises(UsageError, match="about digits@val, not cifar10@val"):
        tune.settings(document, "cifar10", "d3hr", 1)
    assert tune.settings(document, "digits", "d3hr", 1) == {}


def test_the_note_names_the_protocol_that_trials_ran_under():
    entry = {"trials": [{"params": {}, "top1": 1.0}], "params": {}, "top1": 1.0}
    document = {"dataset": "digits@val", "digest": "d", "protocol": "hard", "student": "s", "seeds": 1}
    document |= {"methods": {"d3hr": {1: entry}}, "protocol_changes": {"protocol.steps": "200", "protocol.lr": "1"}}
    assert tune.settings(document, "digits", "d3hr", 1)["note"]["protocol"] == "hard+lr=1,steps=200"
    note = tune.settings(document | {"protocol_changes": {}}, "digits", "d3hr", 1)["note"]
    assert note["protocol"] == "hard"


def test_a_second_tuning_keeps_the_first_ones_methods(tmp_path):
    file, about = tmp_path / "t.yaml", {"dataset": "digits@val", "seeds": 2}
    tune.write(file, about, {"a": {1: {"trials": []}}})
    tune.write(file, about, {"a": {10: {"trials": []}}, "b": {1: {"trials": []}}})
    assert yaml.safe_load(file.read_text())["methods"] == {
        "a": {1: {"trials": []}, 10: {"trials": []}}, "b": {1: {"trials": []}},
    }  # fmt: skip


def test_methods_that_were_tuned_otherwise_get_a_file_of_their_own(tmp_path):
    file, about = tmp_path / "t.yaml", {"dataset": "digits@val", "seeds": 2}
    for method, change in (("a", {}), ("b", {"seeds": 3}), ("c", {"seeds": 4}), ("d", {"seeds": 3}), ("e", {})):
        written = tune.write(file, about | change, {method: {1: {"trials": []}}})
        assert method in yaml.safe_load(written.read_text())["methods"]
    found = {f.name: list(yaml.safe_load(f.read_text())["methods"]) for f in tmp_path.glob("*.yaml")}
    assert found == {"t.yaml": ["a", "e"], "t-2.yaml": ["b", "d"], "t-3.yaml": ["c"]}


def test_another_backbone_or_teacher_is_another_tuning(shaded, monkeypatch, tmp_path):
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("benchmark.pipeline.run.run_plan", lambda *_, **__: {})  # no trial is made
    folder = tmp_path / "results" / "tuning"

    def call(*more):
        asked = ["--method", "shaded", "--dataset", "digits", "--trials", "1", "--results", str(folder.parent)]
        return CliRunner().invoke(tune_command, [*asked, *more], standalone_mode=False, catch_exceptions=False)

    assert "stays as it is" not in call().stderr + call().stderr
    made = call("--backbone", "small")
    assert "digits.yaml stays as it is: it was tuned otherwise (backbone)" in made.stderr
    assert f"--tuned {folder / 'digits-2.yaml'}" in made.stdout
    assert "digits-3.yaml" in call("--teacher", "resnet18").stdout
    assert {f.name for f in folder.glob("*.yaml")} == {"digits.yaml", "digits-2.yaml", "digits-3.yaml"}


def test_missing_data_is_said_once_before_any_planning(monkeypatch, tmp_path):
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DDBENCH_DATA", raising=False)
    arguments = ["--method", "d3hr", "--dataset", "cifar10", "--results", str(tmp_path / "results")]
    with pytest.raises(MissingError, match="cifar10") as error:
        CliRunner().invoke(tune_command, arguments, standalone_mode=False, catch_exceptions=False)
    assert "--data-root" in str(error.value) and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_tuned_settings_reach_the_run_and_its_records(shaded, monkeypatch, tmp_path, digits_teacher_store):
    results, weights = tmp_path / "results", tmp_path / "teacher.safetensors"
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))
    teacher = get_teacher(digits_teacher_store, load_dataset("digits"), "convnet3_bn")
    tensors = {k: v.contiguous() for k, v in teacher.model.state_dict().items()}
    save_file(tensors, weights, metadata={"student": "convnet3_bn"})

    def call(command, *more):
        common = ["--dataset", "digits", "--results", str(results), "--jobs", "1", "--device", "cpu"]
        return CliRunner().invoke(command, [*common, *more], standalone_mode=False, catch_exceptions=False)

    small = ["--teacher", str(weights), "--protocol", "smoke", "--set", "protocol.steps=20", "--precision", "bf16"]
    made = call(tune_command, "--method", "shaded", "--trials", "6", "--seeds", "2", *small)
    file = results / "tuning" / "digits.yaml"
    entry = yaml.safe_load(file.read_text())["methods"]["shaded"][1]
    assert made.return_value == 1 and "too bright" in made.stdout + str(made.stderr)  # two trials fail, four count
    assert sum("top1" in t for t in entry["trials"]) in (4, 5) and len(entry["trials"]) in (6, 7)  # an edge: one more
    assert 0 < entry["fresh"] <= 100
    assert entry["top1"] == max(t["top1"] for t in entry["trials"] if "top1" in t)
    assert not (results / "records").exists()  # trials never stand beside results
    trials = [json.loads(f.read_text()) for f in (results / "tuning" / "records").glob("*.json")]
    assert {t["identity"]["precision"]["autocast"] for t in trials} == {"bfloat16"}

    tuned = call(run_command, "--method", "shaded", "--no-floor", "--seeds", "1", "--tuned", str(file), *small)
    assert tuned.return_value == 0, tuned.stdout
    (record,) = [json.loads(f.read_text()) for f in (results / "records").glob("*.json")]
    defaults = {"shade": 0, "moved": False, "other": 1}
    assert record["identity"]["method"]["params"] == defaults | entry["params"]
    assert (
        record["artifacts"]["tuning"]["trials"] == len(entry["trials"])
        and record["artifacts"]["tuning"]["on"] == "digits@val"
    )
