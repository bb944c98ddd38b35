"""``leaderboard.csv``: written byte for byte the same from the same records, read with stable types."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.core.escape import csv_cell
from benchmark.core.outputs import write_text
from benchmark.results.boards.cells import rows
from benchmark.results.boards.columns import DTYPES, NAMES

if TYPE_CHECKING:
    import pandas

DECIMALS = 4
LONGEST = 200  # characters of a reason; tracebacks stay in the records


def csv_text(rows: list[dict[str, Any]]) -> str:
    """The CSV of rows: columns of `columns.COLUMNS`, then ``score.*`` in name order; ``\\n`` ends a line."""
    extra = sorted({name for row in rows for name in row if name[0] != "_"} - set(NAMES))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*NAMES, *extra])
    for row in rows:
        writer.writerow([cell_text(row.get(name), name) for name in (*NAMES, *extra)])
    return out.getvalue()


def cell_text(value: Any, name: str = "") -> str:
    """A value as the CSV holds it; of a long ``reason`` the beginning; text never begins a formula."""
    if value is None:
        return ""
    if name == "reason":
        value = " ".join(str(value).split())
        value = value if len(value) <= LONGEST else value[: LONGEST - 2].rstrip() + " …"
    if isinstance(value, float):
        text = f"{value:.{DECIMALS}f}"
        return text[1:] if text.strip("-0.") == "" and text[0] == "-" else text
    return str(csv_cell(value))


def write_csv(records: Iterable[dict], path: Path | str) -> Path:
    """Write the board of ``records`` to ``path``, atomically. The bytes depend on the records alone.

    No link leads out of its folder: that may be somebody else's results folder.
    """
    return write_text(csv_text(rows(records)), path, within=Path(path).parent)


def read_csv(path: Path | str) -> pandas.DataFrame:
    """The board as a frame whose dtypes are those of `columns.COLUMNS`, whatever cells are empty."""
    import pandas

    with open(path, newline="", encoding="utf-8") as file:
        names = next(csv.reader(file))
    dtypes = {name: DTYPES.get(name, "Float64") for name in names}
    strings = {name: [] for name, dtype in dtypes.items() if dtype == "string"}
    missing = {name: strings.get(name, [""]) for name in names}
    return pandas.read_csv(path, encoding="utf-8", dtype=dtypes, na_values=missing, keep_default_na=False)
