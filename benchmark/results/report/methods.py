"""A page about every method: how it works, what it needs and costs, its defaults' source, its images.

``ddbench leaderboard --update docs/methods.md`` writes it from the methods' docstrings, the records and the contact
sheets.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmark.core.foreign import opened_image
from benchmark.core.outputs import whole_file
from benchmark.plugins import registry
from benchmark.plugins.infos import USES, MethodInfo
from benchmark.results.boards.terminal import seconds
from benchmark.results.report.pictures import RULE, layout

SIDE = 40  # pixels of an image in a picture
PICTURED = "digits"  # whose contact sheets at IPC 1 the page shows


def markdown(rows: list[dict[str, Any]], pictures: Path) -> str:
    """The page's body: methods by what they need, those of ``pictures`` (``NAME.png``) with their images."""
    costs: dict[str, dict[tuple[str, int], float]] = defaultdict(dict)
    for row in rows:
        if row["distill_seconds"] is not None:
            costs[row["method"]].setdefault((row["dataset"], row["ipc"]), row["distill_seconds"])
    parts, infos = [], registry().items["method"]
    for uses, text in USES.items():
        members = sorted(name for name, info in infos.items() if info.uses == uses and ours(info))
        parts.append(f"## Methods of {text}\n")
        parts += [_section(infos[name], costs[name], pictures) for name in members]
    return "\n".join(parts) + "\n"


def ours(info: MethodInfo) -> bool:
    """Whether the method comes with ddbench."""
    return info.target.partition(".")[0] in ("baselines", "d3hr_plugin")


def _section(info: MethodInfo, costs: Mapping[tuple[str, int], float], pictures: Path) -> str:
    about = re.sub(r"``(.+?)``", r"`\1`", " ".join((info.load().__doc__ or "").split()))
    lines = [f"### {info.name}\n", about + "\n"]
    by_dataset: dict[str, list[str]] = defaultdict(list)
    for (dataset, ipc), value in sorted(costs.items()):
        by_dataset[dataset].append(f"IPC {ipc} {seconds(value)}")
    if by_dataset:
        lines.append("Measured: " + "; ".join(f"{d} {', '.join(t)}" for d, t in by_dataset.items()) + ".\n")
    lines.append(f"{info.paper or 'No paper.'} `ddbench show method {info.name}`\n")
    if (pictures / f"{info.name}.png").is_file():
        lines.append(f"![{PICTURED} by {info.name}, one image a class]({pictures.name}/{info.name}.png)\n")
    return "\n".join(lines)


def draw(sheets: Path, pictures: Path) -> list[str]:
    """Write ``NAME.png`` for each method with a contact sheet of `PICTURED` at IPC 1: its images side by side."""
    from PIL import Image

    made = []
    for name, info in sorted(registry().items["method"].items()):
        found = sorted(sheets.glob(f"{PICTURED}-{name}-ipc1-s0-*.png"))
        if not found or not ours(info):
            continue
        with opened_image(found[0]) as image:
            sheet = image.convert("RGB")
        place = layout(sheet, 1)
        if place is None:
            continue
        margin, side, count = place
        row = Image.new("L", (count * (SIDE + RULE) - RULE, SIDE), 255)
        for i in range(count):
            top = RULE + i * (side + RULE)
            tile = sheet.crop((margin, top, margin + side, top + side)).convert("L")
            row.paste(tile.resize((SIDE, SIDE), Image.Resampling.NEAREST), (i * (SIDE + RULE), 0))
        pictures.mkdir(exist_ok=True)
        with whole_file(pictures / f"{name}.png", "--update") as temporary:
            row.save(temporary, "PNG", optimize=True)
        made.append(name)
    return made
