"""A list of yes and no as short text, one bit each: which test images a student got right."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

import numpy as np


def pack(bits: Sequence[bool]) -> str:
    """``COUNT:BASE64``, the first bit the highest of the first byte: 450 bits are 80 characters."""
    return f"{len(bits)}:" + base64.b64encode(np.packbits(np.asarray(bits, dtype=bool)).tobytes()).decode()


def unpack(text: str) -> np.ndarray:
    """The bits of `pack` as a bool array.

    Raises:
        ValueError: not such a text.
    """
    count, colon, data = text.partition(":")
    try:
        packed = base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise ValueError(f"no base64: {error}") from error
    if not colon or not count.isdecimal() or len(packed) != -(-int(count) // 8):
        raise ValueError(f"not COUNT:BASE64 with the bytes that COUNT bits take: {text[:40]!r}")
    return np.unpackbits(np.frombuffer(packed, dtype=np.uint8), count=int(count)).astype(bool)
