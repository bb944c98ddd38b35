"""Pictures of the results folder as data URIs: contact sheets in one grid a dataset, diagnostics, plots of grids."""

from __future__ import annotations

import base64
import html
import io
import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.core.errors import DDBenchError
from benchmark.core.foreign import inside, opened_image, read_bytes
from benchmark.results.boards.cells import Cell
from benchmark.results.report.facts import Facts
from benchmark.results.report.parts import data

if TYPE_CHECKING:
    from PIL.Image import Image

BYTES = 5_000_000  # of all embedded pictures together; further ones are named, not shown
WIDTH = 900  # pixels; wider pictures are scaled down
SHEET_ROWS = SHEET_COLUMNS = 20  # of a contact sheet, at most, as `benchmark.sets.folder` draws it
RULE = 2  # white pixels between the images of a contact sheet
LEAST = 33  # pixels of one image on a contact sheet
TILE = 40  # pixels of one image in the grid; page.css has it too


class Budget:
    """Reads pictures below the results folder as data URIs while there is room."""

    def __init__(self, results: Path) -> None:
        self.results, self.left = results.resolve(), BYTES

    def uri(self, name: str) -> str:
        """The picture of this name in the results folder; an empty string where it is missing, unreadable, outside the
        folder or too much."""
        try:
            path = inside(self.results, name)
            if path.suffix == ".svg":
                return self.embedded(read_bytes(path, most=self.left), "svg+xml")
            with opened_image(path) as image:
                if image.width <= WIDTH and image.format == "PNG":
                    return self.embedded(read_bytes(path, most=BYTES))
                return self.embedded(_png(_at_most(image.convert("RGB"), WIDTH)))
        except (DDBenchError, OSError):
            return ""

    def tower(self, name: str, ipc: int) -> tuple[str, str, int]:
        """The first image of every class of a contact sheet, one below the other; its class names; number of classes.

        Empty where the file is no contact sheet as ddbench draws them.
        """
        try:
            with opened_image(inside(self.results, name)) as image:
                sheet = image.convert("RGB")
        except (DDBenchError, OSError):
            return "", "", 0
        found = layout(sheet, ipc)
        if found is None:
            return "", "", 0
        margin, side, count = found
        tower = sheet.crop((margin, RULE, margin + side, sheet.height))
        names = _names(sheet.crop((0, 0, margin - RULE, sheet.height)), side, count)
        return self.embedded(_png(tower)), self.embedded(_png(names)), count

    def embedded(self, content: bytes, kind: str = "png") -> str:
        """The content as a data URI, if there is room."""
        if not content or len(content) > self.left:
            return ""
        self.left -= len(content)
        return f"data:image/{kind};base64," + base64.b64encode(content).decode()


def layout(sheet: Image, ipc: int) -> tuple[int, int, int] | None:
    """Margin, side of an image and number of classes of a contact sheet (`benchmark.sets.folder` draws them).

    Read off the white rules that run across the whole sheet; None where it has none.
    """
    import numpy as np

    white = (np.asarray(sheet) == 255).all(axis=2)
    height, width = white.shape
    columns = min(ipc, SHEET_COLUMNS)
    for count in range(min(SHEET_ROWS, (height - RULE) // (LEAST + RULE)), 0, -1):
        pitch, rest = divmod(height - RULE, count)
        side, margin = pitch - RULE, width - columns * pitch
        if rest or margin < 1:
            continue
        rules = white.all(axis=1).reshape(-1)[: count * pitch].reshape(count, pitch)[:, :RULE]
        between = white[:, margin:].reshape(height, columns, pitch)[:, :, side:]
        if rules.all() and between.all():
            return margin, side, count
    return None


def _names(labels: Image, side: int, count: int) -> Image:
    """The sheet's class names at their own size, spaced for tiles of `TILE` pixels: black on nothing."""
    from PIL import Image, ImageOps

    tall = 20  # pixels of a line of text
    out = Image.new("L", (labels.width, count * TILE), 255)
    for row in range(count):
        middle = RULE + row * (side + RULE) + side // 2
        out.paste(labels.convert("L").crop((0, middle - tall // 2, labels.width, middle + tall // 2)),
                  (0, row * TILE + (TILE - tall) // 2))  # fmt: skip
    clear = Image.new("LA", out.size, 0)
    clear.putalpha(ImageOps.invert(out))
    return clear


def _at_most(image: Image, width: int) -> Image:
    from PIL import Image

    if image.width <= width:
        return image
    return image.resize((width, max(1, round(image.height * width / image.width))), Image.Resampling.LANCZOS)


def _png(image: Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()


def _figure(uri: str, caption: str, style: str = "") -> str:
    text = html.escape(caption)
    shown = re.sub(r"(?<=[_=])", "<wbr>", text)  # where a long one may be broken
    return f'<figure{style}><img src="{uri}" alt="{text}"><figcaption>{shown}</figcaption></figure>'


def sheets(facts: Facts, label: dict[int, str], rows: list[dict], cells: list[Cell], budget: Budget) -> str:
    """One grid a dataset: a column a method, a row a class. Whole sheets, a dataset and IPC each, are folded."""
    groups: dict[tuple[str, str], dict[int, dict[str, tuple]]] = defaultdict(lambda: defaultdict(dict))
    for cell, row in zip(cells, rows):
        found = facts.sheet(cell)
        if found:
            name = label.get(id(row), row["method"])
            groups[cell.key.dataset, cell.key.dataset_digest][cell.key.ipc].setdefault(name, found)
    grids, whole, lost = [], [], 0
    for (dataset, _), by_ipc in sorted(groups.items()):
        least = min(by_ipc)
        columns, count = _towers(by_ipc[least], least, budget)
        text = f"{dataset}, IPC {least}" + (": the first image of each class" if least > 1 else "")
        if columns:
            grid = f'<div class="towers" style="--rows: {count}">{"".join(columns)}</div>'
            grids.append((len(columns), f"<div {data(dataset=dataset)}><h3>{html.escape(text)}</h3>{grid}</div>"))
        for ipc, members in sorted(by_ipc.items()):
            if ipc == 1 and columns:  # nothing more to see there
                continue
            figures = []
            for name, (seed, path) in sorted(members.items()):
                uri = budget.uri(path)
                lost += not uri
                figures += [_figure(uri, f"{name}, seed {seed}")] if uri else []
            if figures:
                title = html.escape(f"{dataset}, IPC {ipc}: whole contact sheets ({len(figures)})")
                whole.append(
                    f"<details {data(dataset=dataset, ipc=ipc)}><summary>{title}</summary>"
                    f'<div class="sheets">{"".join(figures)}</div></details>'
                )
    note = f'<p class="soft">{lost} contact sheets are not shown (missing, or the page is full).</p>' if lost else ""
    if not grids and not whole:
        return ""
    side_by_side = "".join(grid for _, grid in sorted(grids))  # the small ones first: they share a line
    body = f'<div class="grids">{side_by_side}</div>{"".join(whole)}{note}'
    return f'<section data-group id="images"><h2>Distilled images</h2>{body}</section>'


def _towers(members: dict[str, tuple], ipc: int, budget: Budget) -> tuple[list[str], int]:
    """Methods side by side, class names once at the left; and the number of classes shown."""
    columns, names, tallest = [], "", 0
    for name, (seed, path) in sorted(members.items()):
        tower, labels, count = budget.tower(path, ipc)
        if tower:
            columns.append(_figure(tower, name, f' title="{html.escape(name)}, seed {seed}"'))
        if count > tallest:
            tallest, names = count, labels
    if names:
        columns.insert(0, _figure(names, "class", ' class="names"'))
    return columns, tallest


def pictures(results: Path, budget: Budget) -> str:
    """Diagnostics (``diagnostics/``) and plots of grids (``grids/*/plots/``), with the file's name as caption."""
    parts = []
    for title, pattern in (("Diagnostics", "diagnostics/**/*"), ("Grids", "grids/*/plots/*")):
        figures = []
        for path in sorted(p for p in results.glob(pattern) if p.suffix in (".svg", ".png")):
            where = path.relative_to(results)
            uri = budget.uri(where.as_posix())
            if uri:
                caption = where.parts[1] if title == "Grids" else where.stem.replace("_", " ")
                figures.append(_figure(uri, caption))
        if figures:
            parts.append(_folded(title, len(figures), f'<div class="plots">{"".join(figures)}</div>'))
    return "".join(parts)


def _folded(title: str, count: int, body: str) -> str:
    many = f"{count} picture{'s' * (count != 1)}"
    return f'<section id="{title.lower()}"><h2>{title}</h2><details><summary>{many}</summary>{body}</details></section>'
