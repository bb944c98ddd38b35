"""What a job costs more through Ray than in one process, after start-up: the same short jobs, few and many.

    python tests/pipeline/executors/bench_ray.py --store STORE --to DIR [--more 100]

Both run one job at a time; seconds a job are those of the additional jobs, so that starting up cancels out. Records are
compared.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

from engines import command_of, differences, environment_of, new_root, outcomes, ray_cluster

FEW = 5


def seconds(engine: str, root: Path, seeds: int, address: str) -> float:
    """Of ``2 x seeds`` jobs (a set and a student each) in an empty results folder."""
    shutil.rmtree(root / "results", ignore_errors=True)
    for kind in ("set", "student"):
        shutil.rmtree(root / "store" / "artifacts" / kind, ignore_errors=True)
    job = ["run", "--method", "random", "--no-floor", "--dataset", "digits", "--protocol", "smoke"]
    job += ["--set", "protocol.steps=3", "--seeds", str(seeds)]
    command = command_of(engine, root, job, address)
    command[command.index("--jobs") + 1] = "1"
    began = time.monotonic()
    subprocess.run(command, env=environment_of(root), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, help="store to begin with (the teacher of digits)")
    parser.add_argument("--to", type=Path, required=True, help="folder to work in")
    parser.add_argument("--more", type=int, default=100, help="seeds beyond the few")
    options = parser.parse_args()
    found, took = {}, {}
    for engine in ("jobs1", "ray"):
        root = new_root(options.to.resolve(), engine, options.store)
        with ray_cluster(environment_of(root), nodes=1) as address:
            seconds(engine, root, FEW, address)  # the teacher, where STORE has none
            few = seconds(engine, root, FEW, address)
            many = seconds(engine, root, FEW + options.more, address)
        found[engine], took[engine] = outcomes(root / "results"), (many - few) / (2 * options.more)
        print(
            f"{engine:6} start-up and {2 * FEW} jobs {few:.1f} s, each further job {1e3 * took[engine]:.0f} ms",
            flush=True,
        )
    wrong = differences(found["jobs1"], found["ray"])
    more = 1e3 * (took["ray"] - took["jobs1"])
    print(f"Ray's overhead {more:.0f} ms a job; {len(wrong)} of {len(found['ray'])} records differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
