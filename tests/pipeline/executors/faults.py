"""Kills a worker and then the driver of a D3HR grid on Ray at random moments, starts it again, and compares.

    python tests/pipeline/executors/faults.py --store STORE --to DIR --times 10 [--seed 0]

Every repetition: a copy of STORE, the grid below on a local Ray cluster of two nodes, ``kill -9`` of a worker that is
doing a job, ``kill -9`` of the driver, the same command again. Then every record is there once and equals the
undisturbed run's, and no more work was begun twice than was in hand at a kill. Exit code 1: it does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from engines import command_of, differences, environment_of, new_root, outcomes, ray_cluster

from benchmark.core.store import Store
from benchmark.pipeline.runs import Run

GRID = """
base: {method: d3hr, dataset: digits, protocol: smoke, seeds: 2, ipc: 2, d3hr.invert_images: 32, d3hr.m: 1000}
mode: product
axes: {d3hr.depth: [30, 20], d3hr.sampler: [search, matched], d3hr.decode_guidance: [2.0, 1.0]}
beside: [random]
"""
IN_HAND = 3 * 4  # what kills can cost: a job of the killed worker and two of the driver's, each begun in four notes


def begun(root: Path) -> Counter:
    """How often each piece of work was begun, by (stage, key, unit)."""
    file = root / "store" / "work.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return Counter(json.dumps({k: v for k, v in json.loads(line).items() if k != "pid"}) for line in lines)


def busy(root: Path) -> list[int]:
    """Workers of this root that are doing a job."""
    return [w["pid"] for run in Run.all(Store(root / "store")) for w in run.workers() if "job" in w]


def disturbed(root: Path, command: list[str], draw: random.Random) -> tuple[int, int]:
    """Run, kill a worker, kill the driver, run again; (workers killed, drivers killed): both may come too late."""
    environment, workers = environment_of(root), 0
    with open(root / "log.txt", "a") as log:
        driver = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        wait = draw.uniform(0, 1.5)
        while driver.poll() is None and not workers:
            for pid in busy(root)[:1]:
                time.sleep(wait)
                try:
                    os.kill(pid, signal.SIGKILL)
                    workers += 1
                except ProcessLookupError:
                    break
            time.sleep(0.05)
        time.sleep(draw.uniform(0, 4))
        drivers = int(driver.poll() is None)
        driver.kill()
        driver.wait()
        subprocess.run(command, env=environment, stdout=log, stderr=log, check=True)
    return workers, drivers


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, help="store to begin with (backbone and teacher of digits)")
    parser.add_argument("--to", type=Path, required=True, help="folder to work in")
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    to = options.to.resolve()
    to.mkdir(parents=True, exist_ok=True)
    grid = to / "small.yaml"
    grid.write_text(GRID)
    arguments, draw, wrong = ["grid", str(grid), "--no-plots"], random.Random(options.seed), 0
    calm = new_root(to, "undisturbed", options.store)
    (calm / "store" / "work.jsonl").unlink(missing_ok=True)
    subprocess.run(
        command_of("jobs1", calm, arguments), env=environment_of(calm), check=True, stdout=subprocess.DEVNULL
    )
    expected = outcomes(calm / "results")
    trained = calm / "store"
    with ray_cluster(environment_of(calm)) as address:
        for number in range(options.times):
            root = to / f"disturbed{number}"
            shutil.rmtree(root, ignore_errors=True)
            for kind in ("teacher", "backbone", "backbone.vae"):
                shutil.copytree(trained / "artifacts" / kind, root / "store" / "artifacts" / kind)
            killed = disturbed(root, command_of("ray", root, arguments, address), draw)
            unequal = differences(expected, outcomes(root / "results"))
            files = len(list((root / "results" / "records").glob("*.json")))
            again = sum(count - 1 for count in begun(root).values())
            good = not unequal and files == len(expected) and again <= IN_HAND
            wrong += not good
            print(
                f"{number}: killed {killed[0]} workers, {killed[1]} drivers; {files} records, {len(unequal)} differ, "
                f"{again} pieces of work begun again (allowed {IN_HAND}){'' if good else '  WRONG'}",
                flush=True,
            )
    return 1 if wrong or not expected else 0


if __name__ == "__main__":
    sys.exit(main())
