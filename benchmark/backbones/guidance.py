"""The guidance that belongs to a backbone and a dataset: chosen once, by plain sampling, the default of every method.

Classifier-free guidance sharpens what a backbone has learned; how much is good depends on the backbone and the data,
not on the method that samples. So `ddbench backbone guidance` chooses it by plain sampling on a held-out part of the
training split, and it is the default of every parameter that says so (``param(..., backbone="guidance")``). For the
presets it stands in ``datasets.yaml``, for a folder in its ``guidance.json``, a part of the report card. Where nothing
was chosen each method keeps its authors' value. Light: imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmark.backbones.settings import default_preset, own_settings
from benchmark.core.errors import DataError
from benchmark.data.base import plain_name

FILE = "guidance.json"
VALUES = (1.0, 1.5, 2.0, 3.0, 4.0, 7.0)


def chosen(dataset: str, backbone: str = "") -> dict[str, float]:
    """``{"guidance": 2.0}`` of a dataset (``@val`` or not) and a backbone (preset, folder or hub id; "" the default).

    Empty where none was chosen.
    """
    name = plain_name(dataset)
    backbone = backbone or default_preset(name)
    entry = read(Path(backbone).expanduser()).get(name, {})
    value = entry.get("guidance") or own_settings(name).get("guidance", {}).get(backbone)
    return {} if value is None else {"guidance": float(value)}


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """What was chosen for a backbone folder, by dataset; empty where nothing was.

    Raises:
        DataError: the file is not what :func:`write` writes.
    """
    file = folder / FILE
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text())
        for entry in found.values():
            float(entry["guidance"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        hint = "remove it, and choose anew with ddbench backbone guidance"
        raise DataError("not what `ddbench backbone guidance` writes", where=str(file), hint=hint) from error
    return found


def write(folder: Path, dataset: str, entry: Mapping[str, Any]) -> Path:
    """Add the choice for ``dataset`` to the folder's file; the weights' digest and the folder's key stay."""
    from benchmark.core.outputs import write_text

    file = folder / FILE
    write_text(json.dumps({**read(folder), plain_name(dataset): dict(entry)}, indent=1) + "\n", file)
    return file


def best(scores: Mapping[float, Mapping[int, float]]) -> float:
    """The guidance of the largest mean over IPC values; of equal ones the smallest.

    Args:
        scores: mean top-1 in percent by guidance and IPC; every guidance has the same IPC values.
    """
    return min(scores, key=lambda value: (-sum(scores[value].values()) / len(scores[value]), value))
