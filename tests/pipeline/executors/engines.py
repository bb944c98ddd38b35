"""Runs one ddbench command with every engine and compares records: identities, outcomes and scores must be equal.

    python tests/pipeline/executors/engines.py --store STORE --to DIR grid d3hr-ablations --seeds 1
    python tests/pipeline/executors/engines.py --to DIR run --method random --no-floor --dataset digits --protocol smoke

Each engine gets a copy of STORE (backbone and teacher, say) and results of its own below DIR: local with one and with
two workers, Ray on a local cluster of two nodes, two torchrun ranks. A repeated command resumes. Exit code 1: differs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

BIN = Path(sys.executable).parent
ENGINES = ("jobs1", "jobs2", "ray", "torchrun")


def outcomes(results: Path) -> dict:
    """(identity, outcome, scores) by record id."""
    found = [json.loads(p.read_text()) for p in sorted((results / "records").glob("*.json"))]
    return {r["id"]: (r["identity"], r["outcome"], r["scores"]) for r in found}


@contextlib.contextmanager
def ray_cluster(environment: dict[str, str], nodes: int = 2) -> Iterator[str]:
    """The address of a new Ray cluster of ``nodes`` on this machine, one CPU each."""
    code = (
        "import sys; from ray.cluster_utils import Cluster; "
        "c = Cluster(initialize_head=True, head_node_args={'num_cpus': 1, 'include_dashboard': False}); "
        f"[c.add_node(num_cpus=1) for _ in range({nodes - 1})]; print('ADDRESS', c.address, flush=True); "
        "sys.stdin.read(); c.shutdown()"
    )
    cluster = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        for line in cluster.stdout:
            if line.startswith("ADDRESS"):
                yield line.split()[1]
                break
        else:
            raise RuntimeError("Ray did not start")
    finally:
        cluster.stdin.close()
        try:
            cluster.wait(60)
        except subprocess.TimeoutExpired:
            cluster.kill()


def environment_of(root: Path, threads: str = "1") -> dict[str, str]:
    """Store of this root, the code that this Python sees, one thread a job."""
    path = os.pathsep.join(p for p in sys.path if p)
    fixed = {"DDBENCH_CACHE": str(root / "store"), "DDBENCH_PROGRESS": "0", "OMP_NUM_THREADS": threads}
    return {
        **os.environ,
        **fixed,
        "PYTHONPATH": os.environ.get("PYTHONPATH", path),
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }


def command_of(engine: str, root: Path, arguments: list[str], address: str = "") -> list[str]:
    """The command line of an engine."""
    ddbench = [str(BIN / "ddbench"), *arguments, "--results", str(root / "results")]
    return {
        "jobs1": [*ddbench, "--jobs", "1"],
        "jobs2": [*ddbench, "--jobs", "2"],
        "ray": [*ddbench, "--jobs", "2", "--executor", "ray", "--address", address],
        "torchrun": [str(BIN / "torchrun"), "--standalone", "--nproc-per-node", "2", "--no-python", *ddbench],
    }[engine]


def run_with(engine: str, root: Path, arguments: list[str]) -> float:
    """Run the command to its end with one engine; the seconds it took (a cluster's start is not counted)."""
    environment = environment_of(root)
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(ray_cluster(environment)) if engine == "ray" else ""
        began = time.monotonic()
        with open(root / "log.txt", "a") as log:
            command = command_of(engine, root, arguments, address)
            subprocess.run(command, env=environment, stdout=log, stderr=log, check=True)
        return time.monotonic() - began


def new_root(to: Path, name: str, store: Path | None) -> Path:
    """A folder with a copy of ``store``; what is there stays."""
    root = to / name
    root.mkdir(parents=True, exist_ok=True)
    if store and not (root / "store").exists():
        shutil.copytree(store, root / "store")
    return root


def differences(first: dict, second: dict) -> list[str]:
    """What differs between two results of :func:`outcomes`."""
    found = [f"{key}: only in one" for key in set(first) ^ set(second)]
    return found + [
        f"{key}: {first[key]} != {second[key]}" for key in set(first) & set(second) if first[key] != second[key]
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, help="store to begin with")
    parser.add_argument("--to", type=Path, required=True, help="folder to work in")
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("command", nargs=argparse.REMAINDER, help="a ddbench command without --results and --jobs")
    options = parser.parse_args()
    first, wrong = None, 0
    for engine in options.engines.split(","):
        root = new_root(options.to.resolve(), engine, options.store)
        seconds = run_with(engine, root, options.command)
        found = outcomes(root / "results")
        bad = sum(outcome["status"] == "failed" for _, outcome, _ in found.values())
        first = first or found
        unequal = differences(first, found)
        print(f"{engine:9} {len(found)} records ({bad} failed) in {seconds:.1f} s, {len(unequal)} differ", flush=True)
        for text in unequal[:5]:
            print(f"  {text}")
        wrong += len(unequal) + (not found)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
