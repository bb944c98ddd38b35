"""Every engine gives the same records; killed workers and drivers lose nothing; each job is done once."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from executors_toy import outcomes, toy_plan, work_done

from benchmark.core.store import Store
from benchmark.pipeline.engine import work
from benchmark.pipeline.executors import local
from benchmark.pipeline.runs import Run
from benchmark.plugins import registry


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, digits_teacher_store):
    """Outcomes of a run in this process with one worker."""
    root = tmp_path_factory.mktemp("undisturbed")
    work(Run.create(toy_plan(root, digits_teacher_store), Store(root / "store")), say=lambda text: None)
    found = outcomes(root)
    assert len(found) == 6 and all(outcome["status"] == "ok" for outcome, _ in found.values())
    return found


def busy(run: Run) -> list[int]:
    """Process ids of the workers that are doing a job."""
    return [worker["pid"] for worker in run.workers() if "job" in worker]


@pytest.mark.slow
def test_local_workers(tmp_path, digits_teacher_store, undisturbed):
    run = Run.create(toy_plan(tmp_path, digits_teacher_store), Store(tmp_path / "store"))
    local.execute(run, 2, {})
    assert outcomes(tmp_path) == undisturbed and not run.failures()
    assert max(work_done(tmp_path).values()) == 1, "something was done twice"


@pytest.mark.slow
def test_two_drivers_share_the_work(tmp_path, digits_teacher_store, undisturbed):
    runs = [Run.create(toy_plan(tmp_path, digits_teacher_store), Store(tmp_path / "store"))]
    second = runs[0].folder.with_name("second")
    import shutil

    shutil.copytree(runs[0].folder, second)
    workers = [local._start(run, "cpu") for run in (runs[0], Run(second))]
    assert [w.wait() for w in workers] == [0, 0]
    assert outcomes(tmp_path) == undisturbed and max(work_done(tmp_path).values()) == 1


@pytest.mark.slow
def test_killed_workers_are_replaced(tmp_path, digits_teacher_store, undisturbed):
    run = Run.create(toy_plan(tmp_path, digits_teacher_store), Store(tmp_path / "store"))
    stop = threading.Event()

    def killer() -> None:
        draw = random.Random(0)
        for _ in range(2):
            if stop.wait(3 + draw.random()):
                return
            for pid in busy(run)[:1]:
                os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=killer)
    thread.start()
    local.execute(run, 2, {})
    stop.set()
    thread.join()
    assert outcomes(tmp_path) == undisturbed


def test_a_job_past_its_time_limit_fails_alone(tmp_path, digits_teacher_store):
    plan = toy_plan(tmp_path, digits_teacher_store, seeds=1, steps=10**7)
    plan.time_limit = 6.0
    run = Run.create(plan, Store(tmp_path / "store"))
    local.execute(run, 1, {})
    assert "--time-limit" in " ".join(run.failures().values())
    [(outcome, _)] = outcomes(tmp_path).values()
    assert outcome["status"] == "failed" and "6 s" in outcome["reason"]


def test_a_job_that_failed_elsewhere_is_not_tried_again(tmp_path, digits_teacher_store, monkeypatch):
    from benchmark.pipeline.jobs import DistillJob, EvaluateJob, TeacherJob

    plan = toy_plan(tmp_path, digits_teacher_store, seeds=2)
    run = Run.create(plan, Store(tmp_path / "store"))
    first, second = plan.of_kind("distill")

    def other_worker_fails_the_second(job, context):
        assert job.key != second.key
        run.fail(second, "broke elsewhere")

    for kind in (DistillJob, EvaluateJob):
        monkeypatch.setattr(kind, "run", other_worker_fails_the_second)
        monkeypatch.setattr(kind, "is_done", lambda job, context: False)
    monkeypatch.setattr(TeacherJob, "is_done", lambda job, context: True)
    report = work(run, say=lambda text: None)
    assert report.done >= 1 and set(run.failures()) >= {second.key}


def test_a_rank_works_on_its_own_device(tmp_path, digits_teacher_store):
    """The plan was written by the first rank; `cpu:1` stands in for the second rank's card."""
    run = Run.create(toy_plan(tmp_path, digits_teacher_store, seeds=1), Store(tmp_path / "store"))
    local.execute(run, 1, {"device": "cpu:1"})
    assert all("begun on cpu:1" in file.read_text() for file in (run.folder / "logs").glob("*.txt"))


@pytest.mark.slow
def test_a_worker_started_elsewhere_outlives_a_job_past_its_time_limit(tmp_path, digits_teacher_store, monkeypatch):
    """As Slurm or a job list starts it: no driver, another folder; relative paths mean what they meant when planned."""
    monkeypatch.chdir(tmp_path)
    plan = toy_plan(Path("."), digits_teacher_store, seeds=1, steps=10**7)
    plan.jobs += [j for j in toy_plan(Path("."), digits_teacher_store, seeds=2).jobs if j not in plan.jobs]
    plan.time_limit = 15.0  # of which the other jobs take one or two
    run = Run.create(plan, Store("store"), emitted=True)
    command = [str(Path(sys.executable).parent / "ddbench"), "worker", str(run.folder.absolute())]
    ended = subprocess.run(command, cwd="/", stdout=subprocess.DEVNULL)
    found = [outcome["status"] for outcome, _ in outcomes(tmp_path).values()]
    assert ended.returncode == 1 and sorted(found) == ["failed", "ok", "ok"]


@pytest.mark.slow
def test_ray_on_two_nodes_with_a_killed_worker(tmp_path, digits_teacher_store, undisturbed):
    pytest.importorskip("ray", reason="the extra ddbench[ray] is not installed")
    import ray
    from ray.cluster_utils import Cluster

    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, logging_level="ERROR", runtime_env={"env_vars": environment})
        run = Run.create(toy_plan(tmp_path, digits_teacher_store), Store(tmp_path / "store"))

        def kill_one() -> None:
            for _ in range(600):
                time.sleep(0.1)
                for pid in busy(run)[:1]:
                    os.kill(pid, signal.SIGKILL)
                    return

        thread = threading.Thread(target=kill_one)
        thread.start()
        registry().get("executor", "ray").load()(run, 2, {"address": cluster.address})
        thread.join()
        assert outcomes(tmp_path) == undisturbed
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.slow
def test_a_killed_driver_and_its_workers_resume(tmp_path, digits_teacher_store, undisturbed):
    command = [str(Path(sys.executable).parent / "ddbench"), "run", "--method", "random", "--no-floor"]
    command += ["--dataset", "digits", "--protocol", "smoke", "--set", "protocol.steps=3", "--seeds", "6"]
    command += ["--results", str(tmp_path / "results"), "--jobs", "2"]
    toy_plan(tmp_path, digits_teacher_store)
    environment = {**os.environ, "DDBENCH_CACHE": str(tmp_path / "store")}
    for seconds in (3, 5):
        driver = subprocess.Popen(command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)
        time.sleep(seconds)
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    assert outcomes(tmp_path) == undisturbed
    assert max(work_done(tmp_path).values()) <= 3


def does_nothing(run, jobs, options):
    """An engine."""


def test_an_engine_that_does_nothing_is_a_failure(tmp_path, digits_teacher_store, monkeypatch):
    from benchmark.pipeline.execution import Execution
    from benchmark.pipeline.run import run_plan
    from benchmark.plugins import ExecutorInfo, registry

    monkeypatch.setitem(registry().items["executor"], "idle", ExecutorInfo("idle", "", f"{__name__}:does_nothing"))
    plan = toy_plan(tmp_path, digits_teacher_store, seeds=1)
    failures = run_plan(plan, Execution(tmp_path / "results", executor="idle"))
    assert len(failures) == 2 and set(failures.values()) == {"not done: a worker ended early"}


@pytest.mark.slow
def test_workers_end_with_their_driver(tmp_path, digits_teacher_store):
    plan = toy_plan(tmp_path, digits_teacher_store, seeds=2, steps=10**7)
    run = Run.create(plan, Store(tmp_path / "store"))
    code = "import sys; from pathlib import Path; from benchmark.pipeline.executors import local\n"
    code += "from benchmark.pipeline.runs import Run; local.execute(Run(Path(sys.argv[1])), 2, {})"
    driver = subprocess.Popen([sys.executable, "-c", code, str(run.folder)], stdout=subprocess.DEVNULL)
    for _ in range(1800):
        time.sleep(0.1)
        pids = busy(run)
        if len(pids) == 2:
            break
    assert len(pids) == 2
    driver.kill()
    driver.wait()
    for _ in range(900):
        time.sleep(0.1)
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return
    raise AssertionError("workers outlived their driver")
