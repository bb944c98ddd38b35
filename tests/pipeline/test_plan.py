"""How a request becomes jobs for many workers."""

import itertools
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from PIL import Image

from benchmark.cli import run as cli
from benchmark.core.errors import JobError, UsageError
from benchmark.core.store import Store
from benchmark.data import loading
from benchmark.pipeline import engine, run
from benchmark.pipeline.jobs import Context
from benchmark.pipeline.jobs.distill import unit_order
from benchmark.pipeline.plan import make_plan, parts_for
from benchmark.pipeline.request import Request
from benchmark.pipeline.run import _focus
from benchmark.pipeline.runs import Run
from benchmark.results.records import read_records
from benchmark.studies import tune


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
    shown = CliRunner().invoke(cli.plan, [*asked, "--device", device], catch_exceptions=False).output
    lines = [text for text in shown.splitlines() if "gpus" in text]
    assert all(text.startswith(line) for text in lines) and bool(lines) == bool(line) and "--array=0-1" in shown
    (made,) = Run.all(Store())
    assert made.plan.device == device.partition(":")[0] and made.plan.results == str(tmp_path / "results")
    assert len(made.plan.of_kind("part")) == 2


def test_a_plan_for_gpus_of_other_machines_is_shown_on_one_without(tmp_path, monkeypatch):
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    asked = ["--method", "dit", "--dataset", "digits", "--seeds", "1", "--executor", "ray", "--device", "cuda"]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    shown = CliRunner().invoke(cli.plan, asked, catch_exceptions=False)
    assert shown.exit_code == 0 and "on a GPU of another machine" in shown.output


def test_requests_of_several_ipc_values_are_each_told_once(tmp_path, monkeypatch):
    """`--tuned` makes a request of every IPC; they share backbone, teacher and the method in focus."""
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    tune.write(tmp_path / "t.yaml", {"dataset": "digits@val", "backbone": "", "teacher": ""}, {})
    asked = ["--method", "dit", "--dataset", "digits", "--seeds", "1", "--ipc", "1,10", "--tuned", "t.yaml"]
    shown = CliRunner().invoke(cli.plan, asked, catch_exceptions=False).output
    assert shown.count("teacher convnet3_bn, trained once") == shown.count("backbone tiny, trained once") == 1
    for ipc in (1, 10):
        assert shown.count(f"students convnet3_bn, protocol hard, ipc {ipc}:") == 1
    requests = [Request("digits", ("d3hr", "random"), ipc=(ipc,)) for ipc in (1, 10)]
    assert _focus([*requests, Request("digits", ("dit",))]) == ["d3hr"]


def image_folder(root, grey):
    for split, label in itertools.product(("train", "test"), (0, 1)):
        (root / split / f"class{label}").mkdir(parents=True)
        Image.new("L", (8, 8), grey + 80 * label).save(root / split / f"class{label}" / "0.png")
    return root


def test_jobs_refuse_other_data_than_was_planned(tmp_path, monkeypatch):
    """A worker on another machine, or much later: the plan's keys were made of what lay there then."""
    for name, grey in (("mine", 0), ("theirs", 9)):
        image_folder(tmp_path / name / "pets", grey)
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "store"))
    monkeypatch.setenv("DDBENCH_DATA", str(tmp_path / "mine"))
    request = Request("imagefolder:pets", ("random",), seeds=(0,), dataset_options={"image_size": 8})
    store = Store(tmp_path / "store")
    plan = make_plan([request], store, tmp_path / "results", parts=2)
    assert {job.source.data_root for job in plan.jobs} == {str(tmp_path / "mine")}
    monkeypatch.setenv("DDBENCH_DATA", str(tmp_path / "theirs"))
    loading._load.cache_clear()
    context = Context(store, tmp_path / "results")
    (part, _), (whole,) = plan.of_kind("part"), plan.of_kind("distill")
    part.run(context)
    for job in (whole, *plan.of_kind("evaluate")):
        moved = replace(job, source=replace(job.source, data_root=str(tmp_path / "theirs")))
        with pytest.raises(JobError, match="the data changed since the run was planned"):
            moved.run(context)
    whole.run(context)


def distil(out, seeds=(0,), ipc=1, **changed):
    request = replace(Request("digits", ("random",), ipc=(ipc,), seeds=seeds), **changed)
    return run.distill_to(request, out, run.Execution(out.parent / "results", workers=1))


@pytest.fixture
def at(tmp_path, monkeypatch):
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "store"))
    return tmp_path / "out"


@pytest.mark.parametrize("other", [{"ipc": 2}, {"seeds": (1,)}, {"methods": ("noise",)}])
def test_a_folder_with_another_set_is_refused_before_any_work(at, other, monkeypatch):
    assert distil(at) == distil(at) == 0
    monkeypatch.setattr(run, "run_plan", lambda *args, **more: pytest.fail("worked"))
    with pytest.raises(UsageError, match="holds another set: random, IPC 1, seed 0 of digits"):
        distil(at, **other)


def test_two_shards_that_finish_together_both_succeed(at, tmp_path, monkeypatch):
    """The other one puts the same set there between this one's look and its rename."""
    assert distil(at) == 0
    made = at.rename(tmp_path / "made")
    real = os.replace

    def late(source, target):
        if Path(target) == at:
            shutil.copytree(made, at)
        real(source, target)

    monkeypatch.setattr(os, "replace", late)
    assert distil(at) == 0 and not list(tmp_path.glob(".out*"))
    (made / "manifest.json").write_text("{}")
    shutil.rmtree(at)
    with pytest.raises(UsageError, match="cannot write"):
        distil(at)


ASKED = ["--dataset", "digits", "--seeds", "1"]


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        (cli.run, ["--ddp"], "--ddp needs the ranks that torchrun starts"),
        (cli.distill, ["--ddp", "--out", "x"], "--ddp needs the ranks"),
        (cli.run, ["--address", "auto"], "the executor 'local' joins no cluster"),
        (cli.plan, ["--executor", "rya"], "unknown executor 'rya'; did you mean 'ray'"),
        (cli.plan, ["--emit", "slurm"], "--emit needs the number of workers"),
        (cli.plan, ["--emit", "joblist", "--jobs", "2", "--ddp"], "none is done together"),
        (cli.plan, ["--time-limit", "0"], "0.0 s is no time limit"),
        (cli.evaluate, ["--backbone", "tiny"], "evaluated without a backbone"),
    ],
)
def test_options_that_would_do_nothing_are_refused(at, command, options, message, monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    given = [str(at)] if command is cli.evaluate else ["--method", "random"]
    with pytest.raises(UsageError, match=message):
        CliRunner().invoke(command, [*given, *ASKED, *options], catch_exceptions=False)
    assert not at.parent.joinpath("store").exists()


def test_a_plan_may_have_the_options_of_its_run(at, monkeypatch):
    monkeypatch.setattr("benchmark.pipeline.describe.print_plan", lambda requests, how, **_: int(not how.ddp))
    planned = CliRunner().invoke(cli.plan, ["--method", "random", *ASKED, "--ddp"], catch_exceptions=False)
    assert planned.exit_code == 0


def test_emitted_plans_write_their_skipped_cells(at, monkeypatch):
    monkeypatch.chdir(at.parent)
    asked = ["--method", "random", "--method", "d4m", "--no-floor", "--dataset", "digits", "--seeds", "1"]
    monkeypatch.setattr("baselines.d4m.method.D4M.why_not", lambda self, dataset, ipc: "too many")
    CliRunner().invoke(cli.plan, [*asked, "--emit", "joblist", "--jobs", "1"], catch_exceptions=False)
    (record,) = read_records(Path("results"))
    assert record["outcome"] == {"status": "skipped", "reason": "too many", "flags": []}


@pytest.mark.parametrize(("device", "resources", "count"), [("auto", {"GPU": 3.0, "CPU": 96.0}, 3),
                                                            ("cpu", {"GPU": 3.0, "CPU": 96.0}, 96),
                                                            ("auto", {"CPU": 5.0}, 5)])  # fmt: skip
def test_a_ray_cluster_says_how_many_workers_it_takes(monkeypatch, device, resources, count):
    calls = []
    ray = SimpleNamespace(
        is_initialized=lambda: False,
        init=lambda **settings: calls.append(settings["address"]),
        cluster_resources=lambda: resources,
        shutdown=lambda: calls.append("left"),
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    how = run.Execution(Path(), device, "ray", address="auto")
    assert how.count() == count and calls == ["auto", "left"]
    assert replace(how, workers=7).count() == 7 and len(calls) == 2
    alone = run.Execution(Path(), "cpu", "ray")  # a Ray of its own, on this machine
    assert alone.count() == replace(alone, executor="local").count()


def test_jobs_that_ranks_do_together_have_the_time_limit(tmp_path, monkeypatch):
    plan = make_plan([Request("digits", ("random",), seeds=(0,))], Store(tmp_path), tmp_path / "results")
    plan.time_limit, limits = 7.0, []
    monkeypatch.setattr(engine, "do_job", lambda run, job, context, report, alive, limit, say: not limits.append(limit))
    engine.work_together(Run.create(plan, Store(tmp_path)))
    assert limits == [7.0]  # the teacher's
