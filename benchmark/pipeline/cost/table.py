"""The table of measured speeds: images a second of each stage, by device, backbone shape, precision and guidance.

``benchmark/pipeline/cost/throughput.csv`` is what is committed. ``ddbench speed`` and ``ddbench selftest`` measure
rows; they keep them in the store (:func:`keep`), and `plan` prefers those of its own machine to the committed ones.
"""

from __future__ import annotations

import csv
import io
from dataclasses import astuple, dataclass, fields
from importlib.resources import files
from pathlib import Path

from benchmark.core.errors import DataError
from benchmark.core.outputs import write_text
from benchmark.core.store import default_cache

INVERSION_STEPS = 30  # of the inversion that a row speaks of: D3HR's default depth


@dataclass(frozen=True)
class Row:
    """One measurement: ``stage`` is ``encode`` (VAE), ``invert`` (steps of the DiT, the same both ways), ``decode``
    (VAE) or ``student`` (a training step; ``backbone`` then names the student and its image size).

    ``steps`` and ``guidance`` belong to ``invert`` (images a second through so many steps); ``memory`` is the peak in
    bytes: of the device on CUDA, of the process on a CPU. ``threads`` is 0 on CUDA.
    """

    device: str
    backbone: str
    precision: str
    stage: str
    guidance: float
    steps: int
    batch: int
    threads: int
    images_per_second: float
    memory: int
    measured: str
    command: str


def committed() -> list[Row]:
    """The rows that come with the package."""
    text = files("benchmark.pipeline.cost").joinpath("throughput.csv").read_text(encoding="utf-8")
    return parse(text, "throughput.csv")


def kept_table() -> Path:
    """The table of what was measured with this store."""
    return default_cache() / "throughput.csv"


def known() -> list[Row]:
    """The committed rows, and in the place of equal ones those that were measured here.

    Raises:
        DataError: the store's table is damaged.
    """
    kept = kept_table()
    own = parse(kept.read_text(encoding="utf-8"), str(kept)) if kept.is_file() else []
    return list({_what(row): row for row in (*committed(), *own)}.values())


def keep(rows: list[Row]) -> Path:
    """Keep rows where `plan` finds them; returns the table."""
    kept_table().parent.mkdir(parents=True, exist_ok=True)
    add(kept_table(), rows)
    return kept_table()


def parse(text: str, where: str) -> list[Row]:
    """Rows of a table.

    Raises:
        DataError: another header, or a value of the wrong kind; names the line.
    """
    names = [f.name for f in fields(Row)]
    lines = list(csv.reader(io.StringIO(text)))
    if not lines or lines[0] != names:
        columns = "the columns " + ",".join(names)
        raise DataError("not a throughput table", where=where, allowed=columns, hint="remove it and measure again")
    kinds = {"float": float, "int": int, "str": str}
    rows = []
    for number, line in enumerate(lines[1:], 2):
        try:
            rows.append(Row(*(kinds[f.type](value) for f, value in zip(fields(Row), line, strict=True))))
        except ValueError as error:
            raise DataError(f"not a row of a throughput table: {error}", where=f"{where}, line {number}") from None
    return rows


def add(path: Path, rows: list[Row]) -> None:
    """Add rows to the table in ``path`` (made if it is not there); the same measurement replaces an older one."""
    old = parse(path.read_text(encoding="utf-8"), str(path)) if path.is_file() else []
    new = {_what(row): row for row in (*old, *rows)}
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([f.name for f in fields(Row)])
    writer.writerows(astuple(row) for row in sorted(new.values(), key=_what))
    write_text(out.getvalue(), path, "--add")


def _what(row: Row) -> tuple:
    return row.device, row.backbone, row.precision, row.stage, row.guidance, row.threads


def seconds_an_image(
    rows: list[Row], device: str, backbone: str, precision: str, stage: str, steps: int = 1, guidance: float = 1.0
) -> tuple[float, Row] | None:
    """Seconds an image takes in ``stage`` on ``device``, and the row that says so; None where no row does.

    Passes of the DiT are what counts: a row with other steps or guidance is scaled by steps x (2 if guided else 1),
    and one with the wanted guidance is preferred.
    """
    found = [r for r in rows if (r.device, r.backbone, r.precision, r.stage) == (device, backbone, precision, stage)]
    if not found:
        return None
    row = min(found, key=lambda r: ((r.guidance == 1) != (guidance == 1), -r.images_per_second))
    scale = steps * passes(guidance) / (row.steps * passes(row.guidance)) if stage == "invert" else 1.0
    return scale / row.images_per_second, row


def student_name(student: str, side: int) -> str:
    """What the table's column ``backbone`` calls a student on images of ``side`` px."""
    return f"{student} {side}px"


def passes(guidance: float) -> int:
    """Passes of the DiT a step: conditional and unconditional, or only one."""
    return 1 if guidance == 1 else 2


def device_name(device: str = "cpu") -> str:
    """What the table calls a device: the GPU's name, or the CPU's; no row has a GPU of another machine."""
    from benchmark.core.provenance import cpu_name

    if device.startswith("cuda"):
        import torch

        if (torch.device(device).index or 0) >= torch.cuda.device_count():
            return "a GPU of another machine"  # this one only plans for it
        return torch.cuda.get_device_name(torch.device(device))
    return cpu_name()
