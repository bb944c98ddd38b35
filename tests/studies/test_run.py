import csv
import io
import shutil
from dataclasses import dataclass

import pytest
import yaml
from click.testing import CliRunner
from synthetic import make_record

from benchmark.cli.grid import grid as command
from benchmark.core.errors import UsageError
from benchmark.methods import Method, param
from benchmark.pipeline.jobs import Context
from benchmark.plugins import MethodInfo, registry
from benchmark.results.records import write_record
from benchmark.studies.expand import expand
from benchmark.studies.pivot import draw, markdown, pivots
from benchmark.studies.run import describe, gather, grid_csv, plan_grid
from benchmark.studies.spec import parse


@pytest.fixture
def planned(store, tmp_path):
    def plan(text):
        found = parse({"name": "g", **yaml.safe_load(text)}, "g.yaml")
        return found, plan_grid(found, expand(found), store, tmp_path, "cpu")

    return plan


def finish(planned, results, score, skip=()):
    """Write a record for every identity, as the pipeline would."""
    for cell, identities in zip(planned.cells, planned.identities):
        for identity in identities:
            if cell.label in skip:
                record = make_record(status="failed", reason="broke on purpose")
            else:
                record = make_record(top1=score(cell) + identity.seed)
            write_record(results, {**record, "identity": identity.to_json()})


def test_shared_stages_are_counted_once(planned, store, tmp_path):
    _, made = planned("{axes: {d3hr.depth: [10, 20], d3hr.decode_guidance: [1.0, 4.0]}, beside: [random]}")
    text = describe(made, Context(store, tmp_path))
    assert made.wanted["distill"] == 15 and len(made.plan.of_kind("distill")) == 15
    assert "backbone      12 wanted,      1 distinct (11 shared)" in text
    told = "d3hr.statistics 20 cached stages inside these jobs, 0 are there; sets share them: 100 uses more"
    assert told in text  # 10 classes, 2 depths


def test_adding_a_value_adds_only_its_cells(planned):
    _, first = planned("{base: {method: noise}, axes: {ipc: [1, 2]}}")
    _, second = planned("{base: {method: noise}, axes: {ipc: [1, 2, 3]}}")
    new = {j.key for j in second.plan.jobs} - {j.key for j in first.plan.jobs}
    assert {j.key for j in first.plan.jobs} < {j.key for j in second.plan.jobs}
    assert len(new) == 2 * 3  # three sets, three students


def test_every_cell_is_a_row_whatever_happened(planned, tmp_path):
    found, made = planned("""
    base: {method: random, seeds: 2}
    axes: {ipc: [1, 10, 5000], student: [resnet18, vgg11]}
    include: [{ipc: 1, student: vgg11, teacher: /no/such.safetensors}]
    """)
    assert [bool(f) for f in made.faults] == [False] * 4 + [True] * 3
    finish(made, tmp_path, lambda cell: 50 + cell.settings["ipc"], skip=("ipc=10, student=vgg11",))
    rows = gather(made, tmp_path, found.seeds)
    table = list(csv.DictReader(io.StringIO(grid_csv(rows))))
    assert len(table) == 7 and [r["seeds"] for r in table] == ["2", "2", "2", "0", "0", "0", "0"]
    assert table[3]["reason"] == "broke on purpose" and table[3]["failed"] == "2"
    assert "5000" in table[4]["reason"] and (table[4]["axis.ipc"], table[4]["skipped"]) == ("5000", "2")
    assert "safetensors" in table[6]["reason"] and (table[6]["failed"], table[6]["skipped"]) == ("2", "0")
    assert table[0]["top1_last"] == "51.5000" and table[0]["axis.student"] == "resnet18"


def test_unfinished_cells_are_told_apart(planned, tmp_path):
    found, made = planned("{base: {method: noise, seeds: 2}, axes: {ipc: [1, 2]}}")
    rows = gather(made, tmp_path, found.seeds)
    assert {r["reason"] for r in rows} == {"no record: its jobs did not run"}


def test_pivot_tables_and_plots(planned, tmp_path):
    found, made = planned(
        "{base: {method: noise, seeds: 2}, axes: {ipc: [1, 2], student: [resnet18, vgg11]}, beside: [random]}"
    )
    finish(made, tmp_path, lambda c: 50 + c.settings["ipc"] + 10 * c.beside, skip=("ipc=2, student=vgg11",))
    rows = gather(made, tmp_path, found.seeds)
    (pivot,) = pivots(found, rows)
    text = markdown([pivot])
    assert "| ipc \\ student | resnet18 | vgg11 |" in text
    assert "| 1 | 51.5 ± 6.4 | 51.5 ± 6.4 |" in text and "| 2 | 52.5 ± 6.4 | failed |" in text
    files = draw([pivot], tmp_path / "plots")
    assert len(files) == 2 and all(b"<svg" in f.read_bytes() for f in files)
    first = [f.read_bytes() for f in files]
    assert [f.read_bytes() for f in draw([pivot], tmp_path / "plots")] == first


def test_included_cells_have_tables_of_their_own(planned, tmp_path):
    found, made = planned("""
    base: {method: random, seeds: 2}
    axes: {ipc: [1, 2], student: [resnet18, vgg11]}
    include: [{ipc: 1, protocol: smoke}, {ipc: 2, protocol: smoke}]
    """)
    finish(made, tmp_path, lambda c: 50 + 10 * (c.settings.get("protocol") == "smoke"))
    tables = pivots(found, gather(made, tmp_path, found.seeds))
    assert [t.title.partition(", ")[2] for t in tables] == ["", "protocol=smoke"]
    text = markdown(tables)
    assert text.count("50.5 ± 6.4") == 4 and text.count("60.5 ± 6.4") == 2


def test_one_at_a_time_gives_a_table_an_axis_with_the_centre_in_each(planned, tmp_path):
    found, made = planned("""
    mode: one-at-a-time
    base: {method: noise, seeds: 2}
    axes: {ipc: [1, 2], student: [resnet18, vgg11]}
    """)
    finish(made, tmp_path, lambda c: 50 + c.settings["ipc"])
    rows = gather(made, tmp_path, found.seeds)
    tables = pivots(found, rows)
    assert [(t.rows, t.row_values) for t in tables] == [("ipc", [1, 2]), ("student", ["resnet18", "vgg11"])]
    text = markdown(tables)  # differences are paired by seed: the same in both seeds, so without a spread
    assert "| 1 | 51.5 ± 6.4 | – |" in text and "| 2 | 52.5 ± 6.4 | +1.0 ± 0.0 |" in text
    assert "| vgg11 | 51.5 ± 6.4 | +0.0 ± 0.0 |" in text
    assert "base_difference" in grid_csv(rows).splitlines()[0]
    names = [f.name for f in draw(tables, tmp_path / "plots")]
    assert names == ["effects.svg", "00-ipc.svg", "01-student.svg"]
    assert "ipc, base 1" in (tmp_path / "plots" / "effects.svg").read_text()  # svg text stays in comments


def test_each_gives_every_column_its_own_base_and_a_panel(planned, tmp_path):
    found, made = planned("""
    mode: one-at-a-time
    base: {method: noise, seeds: 2}
    each: {ipc: [1, 2], protocol: [hard, smoke]}
    axes: {student: [resnet18, vgg11]}
    beside: [random]
    """)
    assert [c.column for c in made.cells[:3]] == ["ipc=1, protocol=hard"] * 2 + ["ipc=1, protocol=smoke"]
    assert made.cells[1].label == "student=vgg11, ipc=1, protocol=hard" and len(made.cells) == 4 * 2 * 2
    finish(made, tmp_path, lambda c: 10 * c.settings["ipc"] + 5 * (c.settings.get("student") == "vgg11") + c.beside)
    rows = gather(made, tmp_path, found.seeds)
    students, methods = pivots(found, rows)
    text = markdown([students])
    assert text.count("against the base") == 4
    twice = "| 10.5 ± 6.4 | – | 10.5 ± 6.4 | – | 20.5 ± 6.4 | – | 20.5 ± 6.4 | – |"
    assert f"| resnet18 {twice}" in text
    assert "| vgg11 | 15.5 ± 6.4 | +5.0 ± 0.0 |" in text and "| 25.5 ± 6.4 | +5.0 ± 0.0 |" in text
    assert methods.row_values == ["noise", "random"]
    assert "| random | 11.5 ± 6.4 | +1.0 ± 0.0 |" in markdown([methods])
    drawn = draw([students, methods], tmp_path / "plots")[0].read_text()
    assert all(f"<!-- ipc={i}, protocol={p} -->" in drawn for i in (1, 2) for p in ("hard", "smoke"))
    assert "<!-- method, base noise -->" in drawn and "<!-- random -->" in drawn


@dataclass(frozen=True)
class Params:
    mood: str = param("good", "whether it works")


class Moody(Method):
    """Grey images, or an exception."""

    Params = Params

    def distill(self, task, unit):
        if self.params.mood == "bad":
            raise ValueError("broken on purpose")
        images = task.train.images([task.train.by_class[c][i] for c, i in unit.cells])
        return images if self.params.mood == "good" else 255 - (255 - images)


@pytest.mark.slow
def test_one_broken_cell_fails_alone_and_a_new_value_costs_only_its_cells(monkeypatch, tmp_path, digits_teacher_store):
    cache, results = tmp_path / "cache", tmp_path / "results"
    shutil.copytree(digits_teacher_store.root, cache)
    monkeypatch.setenv("DDBENCH_CACHE", str(cache))
    monkeypatch.setitem(registry().items["method"], "moody", MethodInfo("moody", "", f"{__name__}:Moody"))
    file = tmp_path / "moods.yaml"

    def run(moods):
        base = {"method": "moody", "ipc": 1, "seeds": 2, "protocol": "smoke", "protocol.steps": 2}
        file.write_text(yaml.safe_dump({"base": base, "axes": {"moody.mood": moods}}))
        arguments = [str(file), "--results", str(results), "--jobs", "1", "--device", "cpu"]
        return CliRunner().invoke(command, arguments, standalone_mode=False, catch_exceptions=False)

    first = run(["good", "bad"])
    assert first.return_value == 1 and "distill   0 reused, 4 to do" in first.stdout
    table = list(csv.DictReader((results / "grids" / "moods" / "grid.csv").open()))
    assert [(r["axis.moody.mood"], r["seeds"], r["failed"]) for r in table] == [("good", "2", "0"), ("bad", "0", "2")]
    assert "broken on purpose" in table[1]["reason"]
    second = run(["good", "fine"])
    assert second.return_value == 0 and "distill   2 reused, 2 to do" in second.stdout
    board = list(csv.DictReader((results / "leaderboard.csv").open()))
    assert sorted((r["params"], r["seeds"]) for r in board) == [
        ('{"mood":"bad"}', "0"), ('{"mood":"fine"}', "2"), ('{"mood":"good"}', "2"),
    ]  # fmt: skip
    again = run(["good", "fine"])
    assert "evaluate  4 reused, 0 to do" in again.stdout


@pytest.mark.parametrize("option,value", [("--ipc", "0"), ("--ipc", "-3"), ("--seeds", "0"), ("--jobs", "0"),
                                          ("--method", ""), ("--dataset", "")])  # fmt: skip
def test_an_option_that_cannot_be_is_not_ignored(option, value, monkeypatch, tmp_path):
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))
    arguments = ["ipc-curves", "--plan", "--results", str(tmp_path), option, value]
    with pytest.raises(UsageError) as error:
        CliRunner().invoke(command, arguments, standalone_mode=False, catch_exceptions=False)
    assert error.value.where.endswith(option.strip("-")) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["../../out", "a/b", "", ".hidden", 3])
def test_a_grids_name_is_no_path(name):
    with pytest.raises(UsageError, match="no name for a grid"):
        parse({"name": name, "axes": {"ipc": [1, 2]}}, "g.yaml")


def test_gains_of_a_grid_without_random_are_against_the_folders(planned, tmp_path):
    found, made = planned("{base: {method: noise, seeds: 2}, axes: {ipc: [1, 2]}}")
    finish(made, tmp_path, lambda cell: 50)
    _, floor = planned("{base: {method: random, seeds: 2}, axes: {ipc: [1]}}")
    finish(floor, tmp_path, lambda cell: 40)
    one, two = gather(made, tmp_path, found.seeds)
    assert (one["gain_over_random"], one["flags"]) == (10, "few-seeds") and "no-random" in two["flags"]
