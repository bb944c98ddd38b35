"""Files that are replaced again and again (checkpoints): written whole, their digest in the name, checked when found.

``student.pt`` lies on disk as ``student-<16 hex digits>.pt``, so name and content change in one rename.
"""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

from benchmark.core.store.keys import digest_file


def replace_checked(path: Path, write: Callable[[Path], None]) -> None:
    """Make ``path`` what ``write(temporary)`` writes; an earlier version goes once the new one is there."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        write(temporary)
        earlier = _versions(path)
        final = path.with_name(f"{path.stem}-{digest_file(temporary)[:16]}{path.suffix}")
        os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)
    for old in earlier:
        if old != final:
            old.unlink(missing_ok=True)


def find_checked(path: Path) -> Path | None:
    """The newest whole version of ``path``, or None; damaged ones are reported and removed."""
    for file in _versions(path):
        if digest_file(file)[:16] == file.stem.rsplit("-", 1)[-1]:
            return file
        print(f"{file}: damaged checkpoint (another digest than its name says)", file=sys.stderr, flush=True)
        file.unlink(missing_ok=True)
    return None


def _versions(path: Path) -> list[Path]:
    pattern = f"{path.stem}-{'[0-9a-f]' * 16}{path.suffix}"
    return sorted(path.parent.glob(pattern), key=lambda file: file.stat().st_mtime_ns, reverse=True)
