"""The folder of one run in the store: its plan, its failures, who works on it, what is done, a log a job.

``<store>/runs/<time>-<random>/`` with ``plan.json``, ``about.json`` (the command, counts), ``failed/<job>.json``,
``alive/<role>-<host>-<pid>.json`` (kept fresh while the process lives), ``done/<host>-<pid>`` (a line a job),
``logs/<job>.txt``. Files have one writer each, so nothing is lost on file systems without atomic appends.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shlex
import shutil
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmark.core import progress
from benchmark.core.store import Store, digest_of
from benchmark.core.store.lease import forget, host, is_fresh, keep_fresh
from benchmark.core.store.store import disk_errors
from benchmark.pipeline.jobs import KINDS, Job
from benchmark.pipeline.plan import Plan


class Run:
    """One run of a plan, shared by the run's workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @staticmethod
    def create(
        plan: Plan, store: Store, *, done: Iterable[Job] = (), emitted: bool = False, driver: bool = False
    ) -> Run:
        """A new folder; what earlier commands for the same work left is removed, unless somebody works on it.

        ``done`` are jobs whose results are there already; ``emitted`` says that workers will be started by hand,
        ``driver`` that this process will be :meth:`present` as the driver: it is shown as such from the first moment.
        """
        digest = digest_of(sorted(job.key for job in plan.jobs))
        for old in Run.all(store):
            if old.about.get("digest") == digest and not old.about.get("emitted") and not old.workers():
                shutil.rmtree(old.folder, ignore_errors=True)
        run = Run(store.root / "runs" / f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:8]}")
        totals = Counter(job.kind for job in plan.jobs)
        about = {
            "command": resume_command(),
            "cwd": os.getcwd(),
            "emitted": emitted,
            "digest": digest,
            "results": plan.results,
            "totals": {kind: totals[kind] for kind in KINDS if totals[kind]},
        }
        with disk_errors(store.root):
            for name in ("failed", "logs", "alive", "done"):
                (run.folder / name).mkdir(parents=True)
            (run.folder / "about.json").write_text(json.dumps(about))
            (run.folder / "done" / "before").write_text("".join(f"{job.kind} {job.key}\n" for job in done))
            if driver:
                run._show("driver")
            plan.write(run.folder / "plan.json")
        return run

    @staticmethod
    def all(store: Store) -> list[Run]:
        """Every run in the store, oldest first."""
        return [Run(file.parent) for file in sorted((store.root / "runs").glob("*/plan.json"))]

    @property
    def plan(self) -> Plan:
        return Plan.read(self.folder / "plan.json")

    @property
    def about(self) -> dict[str, Any]:
        """``about.json``; empty for a run of an older version."""
        try:
            return json.loads((self.folder / "about.json").read_text())
        except (OSError, ValueError):
            return {}

    # -- failures ------------------------------------------------------------------------------------------------

    def fail(self, job: Job, reason: str) -> None:
        """Note that a job failed in this run, so that no worker tries it again."""
        _replace(self.folder / "failed" / f"{_name(job)}.json", {"key": job.key, "label": job.label, "reason": reason})

    def has_failed(self, job: Job) -> bool:
        """Whether :meth:`fail` was called for the job."""
        return (self.folder / "failed" / f"{_name(job)}.json").is_file()

    def failures(self) -> dict[str, str]:
        """Reason by job key."""
        found = (_read(file) for file in sorted((self.folder / "failed").glob("*.json")))
        return {document["key"]: document["reason"] for document in found if document}

    # -- what is done ----------------------------------------------------------------------------------------------

    def note_done(self, job: Job) -> None:
        """This process saw the job's result."""
        with contextlib.suppress(OSError), open(self.folder / "done" / _process(), "a", encoding="utf-8") as file:
            file.write(f"{job.kind} {job.key}\n")

    def done(self) -> Counter:
        """Jobs that are known to be done, by kind: no result is looked at."""
        lines = set()
        for file in (self.folder / "done").glob("*"):
            with contextlib.suppress(OSError):
                lines.update(line for line in file.read_text().splitlines() if " " in line)
        return Counter(line.split(" ", 1)[0] for line in lines)

    def note_time(self, job: Job, seconds: float) -> None:
        """This process did the job in this time."""
        name = self.folder / "done" / f"{_process()}.time"
        with contextlib.suppress(OSError), open(name, "a", encoding="utf-8") as file:
            file.write(f"{job.kind}={seconds:.3f}\n")

    def ahead(self) -> tuple[int, int, float | None]:
        """Jobs done and in all, and the seconds that are left: each kind's jobs at the mean of those done in this run,
        shared among the workers; None while no job of a kind that is left is done."""
        taken: dict[str, list[float]] = {}
        for file in (self.folder / "done").glob("*.time"):
            with contextlib.suppress(OSError, ValueError):
                for line in file.read_text().splitlines():
                    kind, _, seconds = line.partition("=")
                    taken.setdefault(kind, []).append(float(seconds))
        done, totals = self.done(), self.about.get("totals", {})
        left = {kind: total - done[kind] for kind, total in totals.items() if total > done[kind]}
        counts = sum(done.values()), sum(totals.values())
        if not left or not set(left) <= set(taken):
            return *counts, None
        workers = max(1, sum(w["role"] == "worker" for w in self.workers()))
        seconds = [count * sum(taken[kind]) / len(taken[kind]) for kind, count in left.items()]
        return *counts, sum(seconds) / min(workers, sum(left.values()))

    def log(self, job: Job, text: str) -> None:
        """Add a line to the job's log; with -v print it too."""
        if progress.is_verbose():
            print(f"{time.strftime('%H:%M:%S')} {job.label}: {text}", file=sys.stderr, flush=True)
        with contextlib.suppress(OSError), open(self.log_file(job), "a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%H:%M:%S')} {platform.node()} {os.getpid()}  {text}\n")

    def log_file(self, job: Job) -> Path:
        """Where the job's log lies."""
        return self.folder / "logs" / f"{_name(job)}.txt"

    # -- who works ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def present(self, role: str, **about: Any) -> Iterator[Path]:
        """Show this process as ``driver`` or ``worker`` of the run while it lives; yields its file."""
        with disk_errors(self.folder):
            file = self._show(role, **about)
        keep_fresh(file)
        try:
            yield file
        finally:
            forget(file)
            file.unlink(missing_ok=True)

    def _show(self, role: str, **about: Any) -> Path:
        file = self.folder / "alive" / f"{role}-{_process()}.json"
        _replace(file, {"role": role, "host": host(), "node": platform.node(), "pid": os.getpid(), **about})
        return file

    def enter(self) -> None:
        """Go to the folder where the run was planned, where there is one: relative paths mean the same then."""
        with contextlib.suppress(OSError):
            os.chdir(self.about.get("cwd", "."))

    @staticmethod
    def update(file: Path, **about: Any) -> None:
        """Change what a file of :meth:`present` says; ``None`` takes a field out."""
        with contextlib.suppress(OSError):
            _replace(file, {k: v for k, v in {**_read(file), **about}.items() if v is not None})

    def workers(self, *, living: bool = True) -> list[dict[str, Any]]:
        """What drivers and workers say of themselves; ``living=False`` shows killed ones too."""
        found = []
        for file in sorted((self.folder / "alive").glob("*.json")):
            document = _read(file)
            if document and (not living or is_fresh(file, document["host"], document["pid"])):
                found.append(document)
        return found

    def is_shown(self, role: str, pid: int) -> bool:
        """Whether a process of this host is still shown by :meth:`present`: one that is gone did not leave in order."""
        return (self.folder / "alive" / f"{role}-{host()}-{pid}.json").is_file()

    def note_death(self, pid: int) -> str:
        """A worker of this host was killed: counts it against the job it was doing; the job's key, or ''."""
        file = self.folder / "alive" / f"worker-{host()}-{pid}.json"
        key = _read(file).get("job", "")
        file.unlink(missing_ok=True)
        if key:
            with open(self.folder / "deaths", "a", encoding="utf-8") as deaths:
                deaths.write(key + "\n")
        return key

    def deaths(self, key: str) -> int:
        """How often a worker was killed while it did the job."""
        file = self.folder / "deaths"
        return file.read_text().split().count(key) if file.is_file() else 0


def resume_command() -> str:
    """The command line of this process, to be repeated; '' where it is not a ``ddbench`` command."""
    from benchmark.core import distributed

    program = Path(sys.argv[0])
    if program.name != "ddbench" and program.parent.name != "cli":
        return ""
    command = shlex.join(["ddbench", *sys.argv[1:]])
    if distributed.world() > 1:
        return (
            f"torchrun --nproc-per-node {os.environ.get('LOCAL_WORLD_SIZE', distributed.world())} --no-python {command}"
        )
    return command


def _name(job: Job) -> str:
    return job.key.replace("/", "_")


def _process() -> str:
    return f"{host()}-{os.getpid()}"  # process ids alone collide between hosts


def _replace(file: Path, document: dict[str, Any]) -> None:
    temporary = file.with_name(f".{file.name}.{_process()}")
    temporary.write_text(json.dumps(document))
    os.replace(temporary, file)


def _read(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
