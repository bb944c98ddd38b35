"""Pivot tables and plots of a finished grid: mean ± 95 % interval against one or two axes, the rest held fixed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.core.escape import markdown as markdown_text
from benchmark.core.outputs import whole_file
from benchmark.results.boards.terminal import MISSING, interval
from benchmark.studies.expand import shown
from benchmark.studies.spec import Grid

MOST_PLOTS = 24  # pictures of one grid; pivot tables have no limit


@dataclass(frozen=True)
class Pivot:
    """A table over one or two axes: ``cells[row value, column value]`` is a row of the grid's long table."""

    title: str
    rows: str
    row_values: list
    columns: str  # empty: one axis only
    column_values: list
    cells: dict[tuple, dict[str, Any]]


def pivots(grid: Grid, rows: Sequence[dict[str, Any]]) -> list[Pivot]:
    """One table an axis (one-at-a-time), else one for each combination of the axes beyond the first two.

    The first axis goes down, the second across. One at a time the combinations of ``each`` go across, and the methods
    run beside have a table with the base; they have no parameters, and are left out otherwise.
    """
    own = [r for r in rows if not r["beside"]]
    if grid.mode == "one-at-a-time":
        bases: dict[Any, dict] = {}
        for row in own:
            if not row["axis.group"]:
                bases.setdefault(row.get("axis.column"), row)
        centres = list(bases.values())
        across = "column" if grid.each else ""
        out = []
        for name in grid.axes:
            members = centres + [r for r in own if r["axis.group"] == name]
            out.append(_pivot(f"{grid.name}: {name}", grid, name, across, members))
        out.append(_pivot(f"{grid.name}: method", grid, "method", across, centres + [r for r in rows if r["beside"]]))
        return [p for p in out if len(p.row_values) > 1]
    names = [n for n, values in grid.axes.items() if len(values) > 1] or list(grid.axes)
    first, second = (*names, "")[:2]
    included = dict.fromkeys(n for cell in grid.include for n in cell if n not in grid.axes)
    rest = [*names[2:], *included]  # a cell that only include names must not hide behind one that the axes give
    groups: dict[tuple, list] = defaultdict(list)
    for row in own:
        groups[tuple(str(row.get(f"axis.{n}")) for n in rest)].append(row)
    out = []
    for key, members in groups.items():
        title = ", ".join([grid.name, *(f"{n}={v}" for n, v in zip(rest, key) if n not in included or v != "None")])
        out.append(_pivot(title, grid, first, second, members))
    return out


def _pivot(title: str, grid: Grid, rows: str, columns: str, members: list[dict]) -> Pivot:
    def values(name: str) -> list:
        found = {_key(_value(r, name)): _value(r, name) for r in members}
        order = [v for v in map(shown, grid.axes.get(name, ())) if _key(v) in found]
        order += [v for k, v in found.items() if k not in map(_key, order)]
        return sorted(order) if all(isinstance(v, (int, float)) for v in order) else order

    cells = {}
    for row in members:
        cells.setdefault((_key(_value(row, rows)), _key(_value(row, columns)) if columns else ""), row)
    return Pivot(title, rows, values(rows), columns, values(columns) if columns else [""], cells)


def _value(row: dict[str, Any], name: str) -> Any:
    """Of an axis, else (the method of a cell run beside) the leaderboard's column."""
    return row.get(f"axis.{name}", row.get(name))


def _key(value: Any) -> str:
    return repr(value)


def _at(pivot: Pivot, row: Any, column: Any) -> dict[str, Any] | None:
    return pivot.cells.get((_key(row), _key(column) if pivot.columns else ""))


def _text(row: dict[str, Any] | None) -> str:
    if row is None:
        return MISSING
    if row.get("top1_last") is None:
        return "failed" if row.get("failed") else "skipped"
    return interval(row["top1_last"], row["top1_last_half"])


def _against_base(row: dict[str, Any] | None) -> str:
    if row is None or row.get("base_difference") is None:
        return MISSING
    return "{:+.1f} ± {}".format(
        row["base_difference"], MISSING if row["base_half"] is None else f"{row['base_half']:.1f}"
    )


def markdown(found: Sequence[Pivot]) -> str:
    """The pivots as Markdown tables; axes varied one at a time with the difference from the base, paired by seed."""
    blocks = []
    for p in found:
        corner = f"{p.rows} \\ {p.columns}" if p.columns and p.columns != "column" else p.rows
        heads = [MISSING if v is None else str(v) for v in p.column_values] if p.columns else ["top-1 %"]
        paired = any("base_difference" in row for row in p.cells.values())
        heads = [h for head in heads for h in ([head, "against the base"] if paired else [head])]
        lines = [
            f"**{markdown_text(p.title)}**",
            "",
            f"| {corner} | " + " | ".join(map(markdown_text, heads)) + " |",
            "|:---|" + "---:|" * len(heads),
        ]
        for value in p.row_values:
            name = MISSING if value is None else value
            found_at = [_at(p, value, c) for c in p.column_values]
            texts = [t for row in found_at for t in ([_text(row), _against_base(row)] if paired else [_text(row)])]
            lines.append(f"| {markdown_text(name)} | " + " | ".join(texts) + " |")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def draw(found: Sequence[Pivot], folder: Path) -> list[Path]:
    """A line plot of each pivot (bars where values are words) and a heat map where it has two axes; SVG files.

    Axes varied one at a time are drawn together as well: every value's difference from the base.
    """
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "ddbench"  # the same bytes every time

    files = [_effects(found, folder / "effects.svg")]
    for number, pivot in enumerate(found[:MOST_PLOTS]):
        stem = f"{number:02d}-" + "".join(c if c.isalnum() or c in "._-" else "_" for c in pivot.rows)
        files.append(_lines(pivot, folder / f"{stem}.svg"))
        if len(pivot.column_values) > 1 and len(pivot.row_values) > 1:
            files.append(_heat(pivot, folder / f"{stem}-heat.svg"))
    return [f for f in files if f is not None]


def _lines(pivot: Pivot, path: Path) -> Path | None:
    import matplotlib.pyplot as plt

    numeric = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in pivot.row_values)
    figure, axes = plt.subplots(figsize=(6, 3.8), layout="constrained")
    drawn = False
    for i, column in enumerate(pivot.column_values):
        points = [(v, _at(pivot, v, column)) for v in pivot.row_values]
        points = [(v, r) for v, r in points if r is not None and r.get("top1_last") is not None]
        if not points:
            continue
        drawn = True
        x = [v if numeric else pivot.row_values.index(v) for v, _ in points]
        shift = 0 if numeric else (i - (len(pivot.column_values) - 1) / 2) * 0.08
        axes.errorbar(
            [value + shift for value in x],
            [r["top1_last"] for _, r in points],
            yerr=[r["top1_last_half"] or 0 for _, r in points],
            fmt="o-" if numeric else "o",
            capsize=3,
            label=column if pivot.columns == "column" else f"{pivot.columns} = {column}" if pivot.columns else None,
        )
    if not drawn:
        plt.close(figure)
        return None
    if not numeric:
        axes.set_xticks(range(len(pivot.row_values)), [str(v) for v in pivot.row_values], rotation=20)
        axes.set_xlim(-0.6, len(pivot.row_values) - 0.4)
    elif min(pivot.row_values) > 0 and max(pivot.row_values) / min(pivot.row_values) >= 50:
        axes.set_xscale("log")
        axes.set_xticks(pivot.row_values, [f"{v:g}" for v in pivot.row_values])
        axes.minorticks_off()
    axes.set_xlabel(pivot.rows)
    axes.set_ylabel("top-1 % (95 % interval)")
    axes.set_title(pivot.title, fontsize=10)
    if pivot.columns:
        axes.legend(fontsize=8)
    return _save(figure, path)


def _effects(found: Sequence[Pivot], path: Path) -> Path | None:
    """Differences from the base, paired by seed: a line a value, a panel a column; None without any."""
    import matplotlib.pyplot as plt

    lines: list[tuple[str, list]] = []  # (label, a row or None a column; no rows for an axis's name)
    for pivot in found:
        own = [(v, [_at(pivot, v, c) for c in pivot.column_values]) for v in pivot.row_values]
        base = next((v for v, rows in own if any(r and not r["axis.group"] and not r["beside"] for r in rows)), MISSING)
        own = [(str(v), rows) for v, rows in own if any(r and r.get("base_difference") is not None for r in rows)]
        lines += [(f"{pivot.rows}, base {base}", []), *own] if own else []
    if not lines:
        return None
    columns = found[0].column_values
    size = (4.2 + 2.2 * len(columns), 0.7 + 0.19 * len(lines))
    figure, panels = plt.subplots(
        1, len(columns), figsize=size, layout="constrained", sharex=True, sharey=True, squeeze=False
    )
    places = [-i for i in range(len(lines))]
    for number, (axes, column) in enumerate(zip(panels[0], columns)):
        for place, (_, rows) in zip(places, lines):
            row = rows[number] if rows else None
            if row is not None and row.get("base_difference") is not None:
                mean, half = row["base_difference"], row["base_half"] or 0
                sure = half > 0 and abs(mean) > half
                axes.errorbar(mean, place, xerr=half, fmt="o", ms=4, capsize=2, color="C0" if sure else "0.6")
        axes.axvline(0, color="0.3", lw=0.8)
        axes.tick_params(axis="x", labelsize=7)
        axes.tick_params(axis="y", length=0)
        axes.set_title(column, fontsize=8)
    axes = panels[0][0]
    axes.set_yticks(places, [label for label, _ in lines], fontsize=7)
    for tick, (_, rows) in zip(axes.get_yticklabels(), lines):
        tick.set_fontweight("normal" if rows else "bold")
    axes.set_ylim(-len(lines) + 0.3, 0.7)
    figure.supxlabel("top-1 points from the base, paired by seed (95 % interval; blue: away from 0)", fontsize=8)
    datasets = dict.fromkeys(str(row["dataset"]) for _, rows in lines for row in rows if row is not None)
    figure.suptitle(", ".join([found[0].title.partition(":")[0], *datasets]), fontsize=10)
    return _save(figure, path)


def _heat(pivot: Pivot, path: Path) -> Path:
    import matplotlib.pyplot as plt
    import numpy as np

    table = np.full((len(pivot.row_values), len(pivot.column_values)), np.nan)
    figure, axes = plt.subplots(
        figsize=(1.8 + 1.25 * table.shape[1], 1.4 + 0.45 * table.shape[0]), layout="constrained"
    )
    texts = {}
    for i, value in enumerate(pivot.row_values):
        for j, column in enumerate(pivot.column_values):
            row = _at(pivot, value, column)
            if row is not None and row.get("top1_last") is not None:
                table[i, j] = row["top1_last"]
            texts[i, j] = _text(row)
    image = axes.imshow(table, aspect="auto", cmap="viridis")
    middle = np.nanmean(table) if np.isfinite(table).any() else 0.0
    for (i, j), text in texts.items():
        axes.text(j, i, text, ha="center", va="center", fontsize=8, color="black" if table[i, j] > middle else "white")
        if np.isnan(table[i, j]):
            axes.texts[-1].set_color("black")
    axes.set_xticks(range(table.shape[1]), [str(v) for v in pivot.column_values])
    axes.set_yticks(range(table.shape[0]), [str(v) for v in pivot.row_values])
    axes.set_xlabel(pivot.columns)
    axes.set_ylabel(pivot.rows)
    axes.set_title(pivot.title, fontsize=10)
    figure.colorbar(image, label="top-1 %")
    return _save(figure, path)


def _save(figure, path: Path) -> Path:
    import matplotlib.pyplot as plt

    with whole_file(path, "--results") as temporary:
        figure.savefig(temporary, metadata={"Date": None})
    plt.close(figure)
    return path
