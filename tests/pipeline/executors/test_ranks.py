"""Two torchrun ranks: training together equals training alone; sharing out jobs gives the same records."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from executors_toy import outcomes, toy_plan, work_done
from safetensors.torch import load_file

from benchmark.cli import main
from benchmark.core import distributed
from benchmark.core.errors import JobError
from benchmark.core.store import Store
from benchmark.pipeline.engine import work
from benchmark.pipeline.runs import Run

# of the largest answer: sums in another order, in float32, over some tens of steps; one step in float64. AdamW steps
# by the sign of a gradient that is nearly zero, so a network with many weights and few images (the teacher) strays.
TOLERANCES = {"gradient": 1e-12, "buffer": 1e-12, "teacher": 5e-2}
TOLERANCE = 1e-4


def torchrun(root: Path, *arguments: str, size: int = 2, **more: str) -> subprocess.CompletedProcess:
    """Run it with ``size`` ranks, or a plain Python for one."""
    bin_ = Path(sys.executable).parent
    launcher = [str(bin_ / "torchrun"), "--standalone", "--nproc-per-node", str(size)] if size > 1 else [sys.executable]
    path = os.pathsep.join([str(Path(__file__).parents[2] / "backbones"), *sys.path])
    env = {
        **os.environ,
        "PYTHONPATH": path,
        "OMP_NUM_THREADS": "1",
        "DDBENCH_THREADS": "1",
        "DDBENCH_PROGRESS": "0",
        **more,
    }
    return subprocess.run([*launcher, *arguments], env=env, cwd=root, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_training_together_equals_training_alone(tmp_path):
    found = {}
    for size in (1, 2):
        root = tmp_path / str(size)
        root.mkdir()
        done = torchrun(root, str(Path(__file__).with_name("ranks_toy.py")), str(root), size=size)
        assert done.returncode == 0, done.stderr
        found[size] = load_file(root / "answers.safetensors")
    for name, alone in found[1].items():
        far = float((alone - found[2][name]).abs().max() / alone.abs().max())
        assert far < TOLERANCES.get(name.split()[0], TOLERANCE), f"{name}: {far}"
    # only one rank counts steps, and the one that was stopped at step 25 went on from its checkpoint at 20
    counts = [(tmp_path / str(size) / "store" / "work.jsonl").read_text().count('"steps"') for size in (1, 2)]
    assert counts[0] == counts[1]


def test_rows_cover_the_batch(monkeypatch):
    monkeypatch.setattr(distributed, "_together", True)
    monkeypatch.setenv("MASTER_ADDR", "here")
    monkeypatch.setenv("WORLD_SIZE", "3")
    covered, shares = [], 0.0
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        mine, share = distributed.cut(slice(4, 11))
        covered += range(mine.start, mine.stop)
        shares += share
    assert covered == list(range(4, 11)) and shares == pytest.approx(1)
    with pytest.raises(JobError, match="batch of 2"):
        distributed.part(2)


def test_a_command_that_ends_well_leaves_the_other_ranks(tmp_path, monkeypatch):
    import torch.distributed as dist

    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "meeting"), 1), rank=0, world_size=1)
    monkeypatch.setattr(distributed, "world", lambda: 2)
    try:
        with pytest.raises(SystemExit) as ended:
            main(["no-such-command"])
        assert ended.value.code == 2 and dist.is_initialized(), "after an error the others may be waiting"
        with pytest.raises(SystemExit) as ended:
            main(["list", "protocols"])
        assert ended.value.code == 0 and not dist.is_initialized(), "Gloo's threads abort the process at its end"
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


@pytest.mark.slow
def test_ranks_share_out_one_run(tmp_path, digits_teacher_store):
    calm = tmp_path / "calm"
    work(Run.create(toy_plan(calm, digits_teacher_store, seeds=3), Store(calm / "store")), say=lambda text: None)
    toy_plan(tmp_path, digits_teacher_store, seeds=3)
    command = ["-m", "benchmark.cli", "run", "--method", "random", "--no-floor", "--dataset", "digits", "--seeds", "3"]
    command += ["--protocol", "smoke", "--set", "protocol.steps=3", "--results", str(tmp_path / "results")]
    done = torchrun(tmp_path, *command, DDBENCH_CACHE=str(tmp_path / "store"))
    assert done.returncode == 0, done.stderr
    assert outcomes(tmp_path) == outcomes(calm) and len(outcomes(calm)) == 3
    assert max(work_done(tmp_path).values()) == 1, "a rank did what another had done"
    assert done.stdout.count("leaderboard  ") == 1, "every rank reported"
    assert not list((tmp_path / "store" / "runs").iterdir())
