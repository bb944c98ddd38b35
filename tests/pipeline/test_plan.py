"""How a request becomes jobs for many workers."""

import itertools

import pytest
from click.testing import CliRunner

from benchmark.cli.run import plan as plan_command
from benchmark.grids import tune
from benchmark.pipeline.jobs import unit_order
from benchmark.pipeline.plan import make_plan, parts_for
from benchmark.pipeline.request import Request
from benchmark.pipeline.run import _focus
from benchmark.pipeline.runs import Run
from benchmark.store import Store


@pytest.mark.parametrize(("seeds", "workers", "parts"), [(1, 1, 1), (1, 2, 2), (3, 8, 3), (5, 2, 1), (2, 16, 8)])
def test_no_worker_is_left_without_a_part(tmp_path, seeds, workers, parts):
    request = Request("digits", ("random",), seeds=tuple(range(seeds)))
    assert parts_for([request], workers) == parts
    plan = make_plan([request], Store(tmp_path), tmp_path / "results", parts=parts)
    assert len(plan.of_kind("part")) == (seeds * parts if parts > 1 else 0)
    for job in plan.of_kind("distill"):
        assert {j.key for j in plan.of_kind("part") if j.key.startswith(job.key)} <= set(job.needs)


@pytest.mark.parametrize(("units", "seeds"), itertools.product((1, 10, 1000), (1, 3, 8)))
def test_seeds_begin_far_apart(units, seeds):
    orders = [unit_order(50, 50 + units, seed) for seed in range(seeds)]
    assert all(sorted(order) == list(range(50, 50 + units)) for order in orders)
    starts = sorted(order[0] for order in orders)
    gaps = [b - a for a, b in itertools.pairwise([*starts, starts[0] + units])]
    assert max(gaps) <= 3 * units / seeds + 1  # rotation by golden ratio: three-distance theorem


@pytest.mark.parametrize(
    ("device", "line"),
    [("auto", "#SBATCH --gpus=1   #"), ("cuda", "#SBATCH --gpus=1"), ("cuda:1", "#SBATCH --gpus=1"), ("cpu", "")],
)
def test_commands_for_other_machines_leave_the_device_to_these(tmp_path, monkeypatch, device, line):
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    asked = [
        "--method",
        "random",
        "--no-floor",
        "--dataset",
        "digits",
        "--seeds",
        "1",
        "--emit",
        "slurm",
        "--jobs",
        "2",
    ]
    shown = CliRunner().invoke(plan_command, [*asked, "--device", device], catch_exceptions=False).output
    lines = [text for text in shown.splitlines() if "gpus" in text]
    assert all(text.startswith(line) for text in lines) and bool(lines) == bool(line) and "--array=0-1" in shown
    (run,) = Run.all(Store())
    assert run.plan.device == device.partition(":")[0] and run.plan.results == str(tmp_path / "results")
    assert len(run.plan.of_kind("part")) == 2


def test_a_plan_for_gpus_of_other_machines_is_shown_on_one_without(tmp_path, monkeypatch):
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    asked = ["--method", "dit", "--dataset", "digits", "--seeds", "1", "--executor", "ray", "--device", "cuda"]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    shown = CliRunner().invoke(plan_command, asked, catch_exceptions=False)
    assert shown.exit_code == 0 and "on a GPU of another machine" in shown.output


def test_requests_of_several_ipc_values_are_each_told_once(tmp_path, monkeypatch):
    """`--tuned` makes a request of every IPC; they share backbone, teacher and the method in focus."""
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    tune.write(tmp_path / "t.yaml", {"dataset": "digits@val", "backbone": "", "teacher": ""}, {})
    asked = ["--method", "dit", "--dataset", "digits", "--seeds", "1", "--ipc", "1,10", "--tuned", "t.yaml"]
    shown = CliRunner().invoke(plan_command, asked, catch_exceptions=False).output
    assert shown.count("teacher convnet3_bn, trained once") == shown.count("backbone tiny, trained once") == 1
    for ipc in (1, 10):
        assert shown.count(f"students convnet3_bn, protocol hard, ipc {ipc}:") == 1
    requests = [Request("digits", ("d3hr", "random"), ipc=(ipc,)) for ipc in (1, 10)]
    assert _focus([*requests, Request("digits", ("dit",))]) == ["d3hr"]
