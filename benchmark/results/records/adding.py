"""Files that come into a results folder all together or not at all, whenever the process is killed.

They are written into ``.adding-HOST-PID-…`` in that folder and synced; its renaming to ``.added-…`` is the moment at
which they count; then each is moved to its place. Who finds an ``.added-…`` folder finishes the moves (`finish`), who
finds an ``.adding-…`` folder of a dead process removes it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from benchmark.core.foreign import inside
from benchmark.core.outputs import sync, sync_tree
from benchmark.core.store.lease import host, is_fresh
from benchmark.core.store.store import ABANDONED_SECONDS, disk_errors

BEGUN, DECIDED = ".adding-", ".added-"


@contextlib.contextmanager
def adding(results: Path) -> Iterator[Path]:
    """A folder to fill like a results folder; its files take their places in ``results`` where nothing was raised.

    Raises:
        JobError: the disk is full: nothing was added.
    """
    finish(results)
    name = f"{host()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    stage = results / f"{BEGUN}{name}"
    with disk_errors(results):
        stage.mkdir()
        try:
            yield stage
            sync_tree(stage)
            os.rename(stage, results / f"{DECIDED}{name}")
        except BaseException:
            shutil.rmtree(stage, ignore_errors=True)
            raise
        sync(results)
        finish(results)


def finish(results: Path) -> None:
    """Finish what a killed process had decided, and remove what it had only begun; cheap where there is nothing.

    Raises:
        UsageError: the folder cannot be written.
    """
    try:
        left = sorted(name for name in os.listdir(results) if name.startswith((BEGUN, DECIDED)))
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in left:
        folder = results / name
        if folder.is_symlink() or not folder.is_dir():
            continue
        if name.startswith(DECIDED):
            with disk_errors(results):
                _move(folder, results)
        else:
            machine, pid, _ = name.removeprefix(BEGUN).rsplit("-", 2)
            if pid.isdigit() and not is_fresh(folder, machine, int(pid), ABANDONED_SECONDS):
                shutil.rmtree(folder, ignore_errors=True)


def _move(folder: Path, results: Path) -> None:
    """Move every file to its place; several processes may do so at once."""
    for root, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if not os.path.islink(os.path.join(root, f))]
        for name in names:
            source = Path(root) / name
            goal = inside(results, source.relative_to(folder).as_posix())
            goal.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # another process has moved it
                os.replace(source, goal)
    for root, _, _ in os.walk(folder):
        sync(results / Path(root).relative_to(folder))
    shutil.rmtree(folder, ignore_errors=True)
