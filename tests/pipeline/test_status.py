"""`ddbench status`: what has become of each run, how to go on, and what can be forgotten; results are not looked at."""

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from benchmark.cli.status import status
from benchmark.core.errors import UsageError
from benchmark.core.store import Store
from benchmark.pipeline.plan import Plan, Request, make_plan
from benchmark.pipeline.runs import Run


@pytest.fixture
def made(store, monkeypatch):
    """Makes runs of 3,000 jobs; nothing in the store but the run may be asked."""
    monkeypatch.setenv("DDBENCH_CACHE", str(store.root))
    monkeypatch.setattr(Store, "has_key", lambda *args: pytest.fail("status looked at results"))
    plan = make_plan([Request("digits", ("random",), seeds=(0,))], store, store.root)
    kinds = ("set", *plan.of_kind("distill")), ("student", *plan.of_kind("evaluate"))

    def make(name: str, **how) -> Run:
        jobs = [
            replace(job, key=f"{name}{job.kind}{i}", label=f"{label} {i}", needs=())
            for label, job in kinds
            for i in range(1500)
        ]
        return Run.create(Plan(str(store.root), "results", "cpu", jobs), store, **how)

    return make


def shown(*arguments: str) -> str:
    done = CliRunner().invoke(status, arguments, catch_exceptions=False)
    return done.output


def test_states_and_how_to_go_on(made):
    assert "no unfinished runs" in shown()
    run = made("a")
    for job in run.plan.jobs[:7]:
        run.note_done(job)
        run.note_done(job)  # by two workers: counted once
    assert "stopped:  distill 7/1500  evaluate 0/1500" in shown() and "resume" in shown()
    with run.present("worker", device="cpu") as alive:
        run.update(alive, job="a", label="set 8", since=0, progress="set 8: 3/10 unit")
        assert "running" in shown() and "set 8: 3/10 unit" in shown()
        with pytest.raises(UsageError, match="work on"):
            shown("--clean", run.folder.name)
    for job in run.plan.jobs[7:]:
        run.fail(job, "boom\n  traceback")
    text = shown()
    assert "ended with failures" in text and "failed 2993" in text and text.count("boom") == 3
    assert "forgotten" in shown("--clean") and "no unfinished runs" in shown()


def test_emitted_plans_wait_and_are_kept(made):
    run = made("b", emitted=True)
    assert "waiting for workers" in shown() and f"ddbench worker {run.folder}" in shown()
    assert "still to come" in shown("--clean") and run.folder.is_dir()
    assert "forgotten" in shown("--clean", run.folder.name) and not run.folder.exists()


def test_repeating_a_command_clears_what_it_left(made):
    first = made("c")
    killed = json.dumps({"role": "worker", "host": "elsewhere", "pid": 1})
    (first.folder / "alive" / "worker-elsewhere-1.json").write_text(killed)
    assert made("c").folder.is_dir() and first.folder.is_dir(), "another host still works on it"
    (first.folder / "alive" / "worker-elsewhere-1.json").unlink()
    second = made("c")
    assert not first.folder.exists() and second.folder.is_dir()
