"""Artifacts that come with the package: small trained networks, under the keys that training them here gives.

A folder ``benchmark/shipped/STAGE/KEY`` holds what the store would hold, its ``artifact.json`` included. A recipe that
changes has another key, and its network is trained again.
"""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "shipped"


def shipped(name: str, key: str) -> Path | None:
    """The folder of the stage ``name`` with ``key`` that came with the package; None with ``DDBENCH_SHIPPED=0``."""
    folder = FOLDER / name / key
    return folder if os.environ.get("DDBENCH_SHIPPED", "1") != "0" and folder.is_dir() else None
