import json

import pytest
import yaml
from click.testing import CliRunner

from benchmark.cli.lists import list_, show
from benchmark.core.errors import MissingError, UsageError
from benchmark.studies.expand import count_cells, expand, request_of
from benchmark.studies.spec import parse, read_grid, shipped


def grid(text, **changes):
    return parse({"name": "g", **yaml.safe_load(text)}, "g.yaml", changes)


@pytest.mark.parametrize("name", sorted(shipped()))
def test_shipped_grids_are_good(name):
    found = read_grid(name)
    cells = expand(found)
    assert found.summary and len(cells) > 4 and len({c.label for c in cells if not c.beside}) > 4
    for cell in cells:
        request_of(cell, found)


def test_ablations_of_the_paper_are_24_cells_or_more():
    found = read_grid("d3hr-ablations")
    own = [c for c in expand(found) if not c.beside]
    assert len(own) >= 24 and len(found.seeds) == 3
    assert sum(not c.group for c in own) == 1  # one centre


@pytest.mark.parametrize("axis,values", [
    ("d3hr.domain", {"ddim", "ddpm"}), ("d3hr.sampler", {"search", "gaussian"}), ("d3hr.score", {"paper", "kl"}),
    ("d3hr.weight_mean", {0.0, 1.0}), ("d3hr.weight_std", {0.0, 1.0}), ("d3hr.lambda_skew", {0.0, 0.5}),
    ("d3hr.depth", {5, 30, 31}), ("d3hr.m", {100, 1000}), ("d3hr.invert_guidance", {1.0, 4.0}),
    ("d3hr.decode_guidance", {1.0, 4.0}),
])  # fmt: skip
def test_ablations_cover_what_the_paper_varies(axis, values):
    found = {c.settings[axis] for c in expand(read_grid("d3hr-ablations")) if c.group in (axis, "") and not c.beside}
    assert values <= found


def test_grids_are_listed_and_shown():
    run = CliRunner()
    lines = run.invoke(list_, ["grids", "--format", "csv"]).output.splitlines()
    assert [line.split(",")[1] for line in lines[1:]] == sorted(shipped())
    assert {row["name"] for row in json.loads(run.invoke(list_, ["grids", "--json"]).output)["grid"]} == set(shipped())
    assert yaml.safe_load(run.invoke(show, ["grid", "ipc-curves"]).output.partition("\n")[2])["axes"]["ipc"][0] == 1
    with pytest.raises(UsageError, match="did you mean 'ipc-curves'"):
        run.invoke(show, ["grid", "ipc-curve"], catch_exceptions=False)


def test_product_includes_excludes_and_drops_what_a_method_lacks():
    found = grid("""
    base: {dataset: digits, seeds: [0, 5]}
    axes: {method: [d3hr, random], d3hr.depth: {range: [10, 30, 10]}, ipc: [1, 10]}
    include: [{d3hr.depth: 31, method: d3hr, ipc: 50}]
    exclude: [{d3hr.depth: 10, ipc: 10}]
    """)
    cells = expand(found)
    assert len(cells) == (3 * 2 - 1) + 2 + 1  # random has no depth: one cell an IPC
    request = request_of(cells[-1], found)
    assert (request.methods, request.ipc, request.sets, request.seeds) == (("d3hr",), (50,), {"d3hr.depth": 31}, (0, 5))


def test_one_at_a_time_varies_one_axis_around_the_centre():
    found = grid("""
    mode: one-at-a-time
    base: {d3hr.depth: 20}
    axes: {d3hr.depth: [10, 20, 30], d3hr.decode_guidance: [4.0, 1.0], ipc: [1, 10]}
    """)
    cells = expand(found)
    assert [c.group for c in cells] == ["", "d3hr.depth", "d3hr.depth", "d3hr.decode_guidance", "ipc"]
    assert cells[0].settings["d3hr.depth"] == 20 and cells[0].settings["ipc"] == 1
    assert all(sum(c.settings[n] != cells[0].settings[n] for n in found.axes) == 1 for c in cells[1:])


def test_null_is_the_default_and_generic_axes_reach_the_method():
    found = grid("axes: {protocol.batch: [null, 10], method.depth: [5], dataset.on_corrupt: [skip]}")
    first, second = (request_of(c, found) for c in expand(found))
    assert first.sets == {"d3hr.depth": 5} and second.sets == {"d3hr.depth": 5, "protocol.batch": 10}
    assert first.dataset_options == {"on_corrupt": "skip"}


def test_beside_runs_once_a_column():
    found = grid("{axes: {d3hr.depth: [10, 20], ipc: [1, 10]}, beside: [random]}")
    beside = [c for c in expand(found) if c.beside]
    assert sorted(c.settings["ipc"] for c in beside) == [1, 10] and not any("d3hr.depth" in c.settings for c in beside)


def test_options_replace_the_base_and_an_axis_of_that_name():
    found = grid("{base: {ipc: 1}, axes: {ipc: [1, 10], d3hr.depth: [1, 2]}}", ipc=50, seeds=2)
    assert {c.settings["ipc"] for c in expand(found)} == {50} and found.seeds == (0, 1)


def test_many_cells_need_yes():
    depths = list(range(1, 51))
    text = yaml.safe_dump({"axes": {"d3hr.depth": depths, "d3hr.invert_batch": depths, "ipc": [1, 2, 3, 4, 5]}})
    found = grid(text)
    assert count_cells(found) == 12_500
    with pytest.raises(UsageError, match="12,500 cells") as error:
        expand(found)
    assert "--yes" in str(error.value)
    assert len(expand(found, yes=True)) == 12_500


@pytest.mark.parametrize("text,message", [
    ("{axes: {d3hr.dept: [1]}}", "did you mean 'd3hr.depth'"),
    ("{axes: {dept: [1]}}", "unknown axis 'dept'; did you mean 'd3hr.depth'"),
    ("{axes: {d4hr.depth: [1]}}", "d3hr.depth"),
    ("{axes: {method.dept: [1]}}", "did you mean 'method.depth'"),
    ("{axes: {protocol.bach: [1]}}", "did you mean 'batch'"),
    ("{axes: {dataset.imagesize: [1]}}", "dataset.image_size"),
    ("{axes: {d3hr.depth: [deep]}}", "depth must be a whole number"),
    ("{axes: {d3hr.domain: [dim]}}", "did you mean 'ddim'"),
    ("{axes: {d3hr.depth: [-1]}}", "out of range"),
    ("{axes: {d3hr.depth: 3}}", "needs a list"),
    ("{axes: {d3hr.depth: []}}", "needs a list"),
    ("{axes: {d3hr.depth: {range: [1, 5, 0]}}}", "range takes"),
    ("{axes: {ipc: {range: [a, b]}}}", "range takes"),
    ("{axes: 3}", "axes cannot be 3"),
    ("{axes: {ipc: [1]}, base: [1]}", "base cannot be [1]"),
    ("{axes: {ipc: [1]}, beside: random}", "beside cannot be 'random'"),
    ("{axes: {method: [d3h]}}", "did you mean 'd3hr'"),
    ("{axes: {student: [resnet19]}}", "did you mean 'resnet18'"),
    ("{axes: {ipc: [0]}}", "IPC 0"),
    ("{axes: {ipc: [1]}, base: {dataset: digitz}}", "did you mean 'digits'"),
    ("{axes: {ipc: [1]}, base: {seeds: -1}}", "seeds must be"),
    ("{axes: {ipc: [1]}, mode: products}", "did you mean 'product'"),
    ("{axis: {ipc: [1]}}", "did you mean 'axes'"),
    ("{base: {}}", "at least one axis"),
    ("{axes: {ipc: [1]}, exclude: [{ipc: 1}]}", "no cells"),
    ("{axes: {ipc: [1]}, each: {protocol: [hard]}}", "each needs mode: one-at-a-time"),
    ("{mode: one-at-a-time, axes: {ipc: [1]}, each: {ipc: [1, 2]}}", "ipc cannot stand in each"),
    ("{mode: one-at-a-time, axes: {ipc: [1]}, each: {protocl: [hard]}}", "did you mean 'protocol'"),
    ("{axes: {ipc: [1]}, include: {ipc: 2}}", "list of"),
    ("{axes: {ipc: [1]}, beside: [randm]}", "did you mean 'random'"),
])  # fmt: skip
def test_bad_grids_say_what_and_where(text, message):
    with pytest.raises(UsageError) as error:
        expand(grid(text))
    assert message in str(error.value)


def test_names_and_files(tmp_path):
    with pytest.raises(UsageError, match="did you mean 'd3hr-ablations'"):
        read_grid("d3hr-ablation")
    with pytest.raises(MissingError):
        read_grid("nowhere.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\x00\xff")
    with pytest.raises(UsageError, match="cannot be read as text"):
        read_grid(str(tmp_path / "binary.yaml"))
    file = tmp_path / "mine.yaml"
    file.write_text("axes: {ipc: [1, 10]}")
    assert read_grid(str(file)).name == "mine"
    file.write_text("axes: {ipc: [1, 10]")
    with pytest.raises(UsageError, match="not YAML"):
        read_grid(str(file))
