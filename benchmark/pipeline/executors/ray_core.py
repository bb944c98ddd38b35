"""Ray Core: the same worker loop as a task on every slot of a cluster whose nodes share the store's file system.

A task holds no job: it claims jobs by the store's locks, so Ray's retries repeat nothing that is done.
"""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any

from benchmark.core.errors import JobError, MissingError
from benchmark.pipeline.executors import local
from benchmark.pipeline.runs import Run

RETRIES = 5  # how often Ray starts a task again whose process died
KEPT = ("DDBENCH_CACHE", "DDBENCH_DATA", "DDBENCH_THREADS", "DDBENCH_PROGRESS", "OMP_WAIT_POLICY")


def _ray():
    try:
        import ray
    except ImportError as error:
        raise MissingError("the executor 'ray' needs Ray", hint="pip install 'ddbench[ray]'") from error
    return ray


def slots(address: str, device: str) -> int:
    """How many workers a running cluster takes: one a GPU, or one a CPU where it has none or ``device`` is ``cpu``.

    Without an address (or ``$RAY_ADDRESS``) Ray is started on this machine, for as many as the executor 'local' has.

    Raises:
        MissingError: Ray is not installed. JobError: no cluster answers.
    """
    address = address or os.environ.get("RAY_ADDRESS", "")
    if not address:
        return local.default_jobs(device)
    ray = _ray()
    started = not ray.is_initialized()
    try:
        if started:
            ray.init(address=address, logging_level="ERROR")
        found = ray.cluster_resources()
    except ConnectionError as error:
        raise JobError(f"no Ray cluster answers: {error}", where=f"--address {address}", hint="ray status") from error
    finally:
        if started:
            ray.shutdown()
    return max(1, int((found.get("GPU", 0) if device != "cpu" else 0) or found.get("CPU", 1)))


def execute(run: Run, jobs: int, options: dict[str, Any]) -> None:
    """Run the plan as ``jobs`` Ray tasks, spread over the nodes; ``options["address"]`` joins an existing cluster.

    Raises:
        MissingError: Ray is not installed.
        JobError: the cluster is lost; what is done is kept.
    """
    ray = _ray()
    environment = {name: os.environ[name] for name in KEPT if name in os.environ}
    address = options.get("address") or os.environ.get("RAY_ADDRESS")
    started = not ray.is_initialized()
    if started:
        settings = {"address": address} if address else {"num_cpus": max(jobs, 1), "include_dashboard": False}
        ray.init(runtime_env={"env_vars": environment}, log_to_driver=True, logging_level="ERROR", **settings)
    share = 0.0
    if run.plan.device != "cpu":  # more tasks than GPUs share them; without a GPU in the cluster the share is 0
        share = min(1.0, math.floor(1e4 * ray.cluster_resources().get("GPU", 0) / max(jobs, 1)) / 1e4)
    remote = ray.remote(num_cpus=1, num_gpus=share, max_retries=RETRIES, scheduling_strategy="SPREAD")(_loop)
    try:
        pending = [remote.remote(str(run.folder), environment) for _ in range(jobs)]
        while pending:
            done, pending = ray.wait(pending, timeout=1.0)
            ray.get(done)
    except ray.exceptions.RayError as error:
        raise JobError(f"Ray: {type(error).__name__}: {error}", hint="the same command goes on from there") from error
    finally:
        if started:
            ray.shutdown()


def _loop(folder: str, environment: dict[str, str]) -> float:
    """One task: the worker loop until nothing is left; returns its seconds."""
    os.environ.update(environment)
    began = time.monotonic()
    run = Run(Path(folder))
    run.enter()
    local.execute(run, 1, {})
    return time.monotonic() - began
