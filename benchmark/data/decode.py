"""Image files to pixels: any mode becomes ``L`` or ``RGB``; what cannot be read is an error with the file's path."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from benchmark.core.foreign import opened_image

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm")
GREY_MODES = ("1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
DRAFT_GAP = 2  # JPEGs are decoded at no less than twice the wanted size (PIL's `thumbnail` keeps the same gap)


def open_image(
    path: Path | str | IO[bytes], mode: str | None = None, size: int | None = None, name: str = ""
) -> Image.Image:
    """The image in ``path``, whole and decoded, in mode ``L`` or ``RGB``; an open file is called ``name`` in errors.

    Args:
        mode: ``L`` or ``RGB``; None keeps grey images grey and makes everything else RGB.
        size: the caller will resize the shorter side to this, so a JPEG may be decoded at a fraction of its size.

    Raises:
        DataError: missing, truncated or no image at all; names the file.
    """
    with opened_image(path, name=name, links=True) as image:
        if size is not None and image.format == "JPEG":
            scale = DRAFT_GAP * size / min(image.size)
            if scale < 1:
                width, height = image.size
                image.draft(None, (max(1, int(width * scale)), max(1, int(height * scale))))
        image.load()
        return to_mode(image, mode or ("L" if image.mode in GREY_MODES else "RGB"))


def to_mode(image: Image.Image, mode: str) -> Image.Image:
    """``image`` in mode ``L`` or ``RGB``: 16-bit grey scaled rather than clipped, transparency laid over white."""
    if image.mode == mode:
        return image
    if image.mode.startswith("I") or image.mode == "F":  # PIL clips these at 255
        array = np.asarray(image)
        scale = 257.0 if image.mode.startswith("I;16") or array.max(initial=0) > 255 else 1.0
        image = Image.fromarray(np.clip(np.rint(array / scale), 0, 255).astype(np.uint8))
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def header(path: Path | str | IO[bytes], name: str = "") -> tuple[tuple[int, int], str]:
    """(width, height) and mode of an image file, without decoding it.

    Raises:
        DataError: as :func:`open_image`.
    """
    with opened_image(path, name=name, links=True) as image:
        return image.size, image.mode
