"""Artifacts on disk: ``artifacts/STAGE/KEY`` below the store's root holds the payload and ``artifact.json``.

A payload is made in a temporary sibling and renamed, so it is there whole or not at all. Work that is longer than a
moment keeps its finished chunks or its last checkpoint in the same place below ``work`` until the artifact is
published, so a killed process resumes there. A lock per artifact and per chunk (`benchmark.core.store.lease`: it ends
with its holder) lets any number of processes share a store and do each thing once.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmark.core.cost import Stopwatch, aside
from benchmark.core.errors import JobError, UsageError
from benchmark.core.outputs import expanded, sync
from benchmark.core.store import lease
from benchmark.core.store.keys import Stage, digest_file
from benchmark.core.store.shipped import shipped

MANIFEST = "artifact.json"
SECONDS = "seconds.txt"  # in a work folder: what each chunk took
ABANDONED_SECONDS = 86400.0  # a temporary folder that another host has not touched for so long is nobody's
WAIT_SECONDS = 0.2  # between looks at a lock that another process holds; longer after a while


def default_cache() -> Path:
    """``$DDBENCH_CACHE``, or ``~/.cache/ddbench``."""
    return expanded(os.environ.get("DDBENCH_CACHE") or "~/.cache/ddbench", "DDBENCH_CACHE")


@contextlib.contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Turn a full disk or one that cannot be written into an error that says what to do; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise JobError(
                f"no space left: {error.strerror}",
                where=str(where),
                hint="free space there (or point DDBENCH_CACHE elsewhere) and repeat the command: it resumes",
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST):
            raise UsageError(
                f"cannot write: {error.strerror}",
                where=str(error.filename or where),
                allowed="a folder that this user can write",
                hint="set DDBENCH_CACHE (the store) or --results (the records) to such a folder",
            ) from error
        raise


def _is_whole(manifest: Path) -> bool:
    """Whether a manifest is there to its end: `Store._seal` writes its last brace last, alone on its line."""
    try:
        with open(manifest, "rb") as file:
            file.seek(-8, os.SEEK_END)
            return file.read().rstrip().endswith(b"\n}")
    except OSError:  # not there, or shorter
        return False


class Store:
    """A folder of artifacts. Cheap to make; opens nothing until asked."""

    def __init__(self, root: Path | str | None = None) -> None:
        self.root = Path(root) if root is not None else default_cache()
        self._verified: set[str] = set()

    # -- reading ------------------------------------------------------------------------------------------------

    def path(self, stage: Stage) -> Path:
        """Where the stage's artifact lies, or will lie."""
        return self.place(stage.name, stage.key)

    def place(self, name: str, key: str) -> Path:
        """:meth:`path` where only the stage's name and key are known."""
        return self.root / "artifacts" / name / key

    def has(self, stage: Stage) -> bool:
        """Whether the artifact is there: its manifest is whole. Its digests are checked when it is opened, not here."""
        return self.has_key(stage.name, stage.key)

    def has_key(self, name: str, key: str) -> bool:
        """:meth:`has` where only the stage's name and key are known."""
        return _is_whole(self.place(name, key) / MANIFEST) or shipped(name, key) is not None

    def open(self, stage: Stage) -> Path | None:
        """The artifact's folder with its digests verified, or None; a damaged one is set aside and reported.

        One that came with the package (`benchmark.core.store.shipped`) is copied into the store first.
        """
        return self.open_key(stage.name, stage.key)

    def open_key(self, name: str, key: str) -> Path | None:
        """:meth:`open` where only the stage's name and key are known."""
        path = self.place(name, key)
        if key in self._verified and path.is_dir():
            return path
        if not (path / MANIFEST).is_file() and not self._copy_shipped(name, key):
            return None
        if self.fault(path) and self._set_aside(path, key):
            return None
        self._verified.add(key)
        return path

    def _copy_shipped(self, name: str, key: str) -> bool:
        """Bring in what the package holds under this key; False where it holds nothing."""
        source, target = shipped(name, key), self.place(name, key)
        if source is None:
            return False
        temporary = self.root / "tmp" / f"{lease.host()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        with disk_errors(self.root):
            shutil.copytree(source, temporary, copy_function=shutil.copyfile)
            target.parent.mkdir(parents=True, exist_ok=True)
            self._publish(temporary, target)
        return True

    def _set_aside(self, path: Path, key: str) -> bool:
        """Move a damaged artifact away; False where another process has done so and made it again."""
        with disk_errors(path), self.lock(f"damaged-{key}"):
            if not path.exists():
                return True
            fault = self.fault(path)
            if fault:
                target = path.with_name(f"{path.name}.damaged-{uuid.uuid4().hex[:8]}")
                os.rename(path, target)
                print(f"store: {fault}; set aside as {target} and made again", file=sys.stderr, flush=True)
            return bool(fault)

    @staticmethod
    def fault(path: Path) -> str:
        """What is wrong with the artifact in ``path``, or an empty string."""
        try:
            files = json.loads((path / MANIFEST).read_text())["files"]
        except (OSError, ValueError, KeyError) as error:
            return f"{path / MANIFEST} cannot be read ({type(error).__name__})"
        for name, known in files.items():
            file = path / name
            if not file.is_file():
                return f"{file} is missing"
            if digest_file(file) != known["sha256"]:
                return f"{file} does not have the digest it was written with"
        return ""

    def info(self, stage: Stage) -> dict:
        """The artifact's ``artifact.json``: stage document, files, and the seconds that its own making took: chunks by
        other processes included, waiting and the making of other artifacts not."""
        return json.loads((self.path(stage) / MANIFEST).read_text())

    # -- making -------------------------------------------------------------------------------------------------

    def build(self, stage: Stage, make: Callable[[Path], None], *, seconds: float = 0.0) -> Path:
        """The stage's artifact folder; if it is missing, ``make(folder)`` fills a temporary one that is then renamed.

        Only one process makes it; others wait. ``make`` may keep resumable work in :meth:`workdir`. ``seconds`` went
        into it before, in work that is counted with another stage.
        """
        found = self.open(stage)
        if found is not None:
            return found
        with aside(), disk_errors(self.root), self.lock(stage.key, label=stage.name):
            found = self.open(stage)  # another process may have made it meanwhile
            if found is not None:
                return found
            target = self.path(stage)
            temporary = self.root / "tmp" / f"{lease.host()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
            self._sweep()
            temporary.mkdir(parents=True)
            lease.keep_fresh(temporary)
            try:
                with Stopwatch() as watch:
                    make(temporary)
                with lease.finish_writing():
                    self._seal(stage, temporary, seconds + watch.seconds + self.chunk_seconds(stage))
                    target.parent.mkdir(parents=True, exist_ok=True)
                    self._publish(temporary, target)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
            finally:
                lease.forget(temporary)
            shutil.rmtree(self._work(stage), ignore_errors=True)
        self._verified.add(stage.key)
        return target

    def _publish(self, temporary: Path, target: Path) -> None:
        """Rename; where a host that was taken for dead has published the same, its work counts."""
        try:
            os.rename(temporary, target)
            sync(target.parent)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or self.fault(target):
                raise
            shutil.rmtree(temporary, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what killed processes left in ``tmp``; those of other hosts when they were silent for a day."""
        for left in (self.root / "tmp").glob("[!.]*-*-*"):
            host, pid, _ = left.name.rsplit("-", 2)
            if pid.isdigit() and not lease.is_fresh(left, host, int(pid), ABANDONED_SECONDS):
                shutil.rmtree(left, ignore_errors=True)

    def workdir(self, stage: Stage) -> Path:
        """A folder for the stage's checkpoints; survives a kill, is removed when the artifact is published."""
        with disk_errors(self.root):
            self._work(stage).mkdir(parents=True, exist_ok=True)
        return self._work(stage)

    def chunks(
        self,
        stage: Stage,
        count: int,
        make: Callable[[int, Path], None],
        *,
        which: Sequence[int] | None = None,
        suffix: str = ".safetensors",
        each: Callable[[int], None] | None = None,
    ) -> list[Path]:
        """Files of the chunks ``which`` (default all of ``count``), made where missing by ``make(index, file)``.

        A chunk's name holds its digest, which is checked when it is found again. Several processes may call this at
        once: each chunk is made once. ``each(index)`` is called as a chunk becomes available (for progress).
        """
        folder = self.workdir(stage)
        files = []
        for index in which if which is not None else range(count):
            files.append(self._chunk(stage, folder, index, make, suffix))
            if each is not None:
                each(index)
        return files

    def missing_chunks(self, stage: Stage, count: int) -> list[int]:
        """Indices of the chunks that no process has finished yet."""
        names = os.listdir(self._work(stage)) if self._work(stage).is_dir() else []
        done = {int(name.split("-")[1]) for name in names if name.startswith("chunk-")}
        return [i for i in range(count) if i not in done]

    def _chunk(self, stage: Stage, folder: Path, index: int, make, suffix: str) -> Path:
        def find() -> Path | None:
            for file in folder.glob(f"chunk-{index:06d}-*{suffix}"):
                if digest_file(file)[:16] == file.name.split("-")[2][:16]:
                    return file
                print(f"store: {file} is damaged; made again", file=sys.stderr, flush=True)
                file.unlink()
            return None

        found = find()
        if found is not None:
            return found
        with aside(), disk_errors(folder), self.lock(f"{stage.key}-{index}", label=f"{stage.name} chunk {index}"):
            found = find()
            if found is not None:
                return found
            self.log_work(stage, "chunk", index)
            temporary = folder / f"tmp-{index:06d}-{os.getpid()}{suffix}"
            try:
                with Stopwatch() as watch:
                    make(index, temporary)
                with open(folder / SECONDS, "a", encoding="utf-8") as file:
                    file.write(f"{watch.seconds:.3f}\n")
                final = folder / f"chunk-{index:06d}-{digest_file(temporary)[:16]}{suffix}"
                os.rename(temporary, final)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            return final

    def chunk_seconds(self, stage: Stage) -> float:
        """What the stage's chunks took so far, whichever processes made them; 0 once it is published."""
        file = self._work(stage) / SECONDS
        return math.fsum(map(float, file.read_text().split())) if file.is_file() else 0.0

    def log_work(self, stage: Stage, unit: str, amount) -> None:
        """Append to ``<root>/work.jsonl`` that a piece of work *begins*: so kills can be seen to cost little."""
        line = json.dumps({"stage": stage.name, "key": stage.key[:16], unit: amount, "pid": os.getpid()}) + "\n"
        with disk_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            with open(self.root / "work.jsonl", "a", encoding="utf-8") as file:
                file.write(line)

    @contextlib.contextmanager
    def lock(self, name: str, *, label: str = "") -> Iterator[None]:
        """Hold the store's lock ``name``; it is freed when this process ends, however it ends."""
        pause = WAIT_SECONDS
        while True:
            with self.try_lock(name) as ours:
                if ours:
                    yield
                    return
            if pause == WAIT_SECONDS:
                print(f"{label or name}: another process is making this; waiting", file=sys.stderr, flush=True)
            with aside():
                time.sleep(pause)
            pause = min(2.0, pause * 1.1)

    @contextlib.contextmanager
    def try_lock(self, name: str) -> Iterator[bool]:
        """Hold the lock ``name`` if it is free; yields whether it is ours."""
        path = self.root / "locks" / f"{name}.lock"
        with disk_errors(self.root):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = lease.try_lock(path)
        try:
            yield file is not None
        finally:
            if file is not None:
                lease.release(file, path)

    def _work(self, stage: Stage) -> Path:
        return self.root / "work" / stage.name / stage.key

    @staticmethod
    def _seal(stage: Stage, folder: Path, seconds: float) -> None:
        files = {}
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            files[str(file.relative_to(folder))] = {"sha256": digest_file(file), "bytes": file.stat().st_size}
        document = {"key": stage.key, "stage": stage.document(), "files": files, "seconds": round(seconds, 3)}
        (folder / MANIFEST).write_text(json.dumps(document, indent=1, sort_keys=True))
        sync(folder / MANIFEST)
