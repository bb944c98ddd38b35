"""What somebody else made and ddbench reads: checked before it is used, by the functions of this module and no others.

A manifest, record, grid or board from elsewhere may name any path and hold any value; a file may be a link, a FIFO, a
device or larger than memory. `inside` checks a name, `open_regular` a file, `read_json` and `read_yaml` a document,
`opened_image` a picture.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import stat
import unicodedata
import warnings
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from benchmark.core.errors import DataError, UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

DOCUMENT_BYTES = 256 << 20  # of a manifest: 1.3 million files take 130 MB
YAML_BYTES = 4 << 20
DEPTH = 40  # of a document's nesting
VALUES = 20_000_000  # in a document, aliases of YAML counted each time
YAML_VALUES = 500_000
LARGEST = 10**18  # of whole numbers: they must fit where they go (pandas' Int64, a float without an overflow)
IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "PPM")  # decoded in this process: no helper program, no PostScript
IMAGE_PIXELS = 180_000_000
IMAGE_RATIO = 1000  # of the sides: resizing the short one to 224 px makes the long one at most 224,000
BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


# -- names -----------------------------------------------------------------------------------------------------------


def inside(folder: Path | str, name: Any, *, where: str = "") -> Path:
    """``folder / name``, where ``name`` is a plain relative path that stays in the folder and passes no link.

    Raises:
        DataError: it is absolute, empty, no text, has ``..`` or control characters, or a part of it is a link.
    """
    if not is_plain_path(name):
        raise DataError(
            f"{name!r} is no plain path inside the folder {folder}",
            where=where or str(folder),
            allowed="names like class/00000.png: relative, without .. and control characters",
            hint="the folder was made by something else than ddbench, or was changed: do not trust it",
        )
    path = str(folder)
    for part in name.split("/"):
        path = os.path.join(path, part)
        try:
            link = stat.S_ISLNK(os.lstat(path).st_mode)
        except OSError:
            break  # not there: opening it will say so
        if link:
            raise DataError(
                f"{path} is a link",
                where=where or str(folder),
                allowed="regular files and folders: a link could lead anywhere",
                hint="copy the folder with its links resolved: cp -rL",
            )
    return Path(folder) / name


def is_plain_path(name: Any) -> bool:
    """Whether a name is a relative path without ``..``, empty parts and control characters, no part over 255 bytes."""
    if not isinstance(name, str) or is_odd(name):
        return False
    return all(part not in ("", ".", "..") and len(part.encode("utf-8")) <= 255 for part in name.split("/"))


def is_odd(text: str) -> bool:
    """Whether a name holds what no name should: control characters, lone surrogates, changes of writing direction."""
    if text.isprintable():
        return not text.isascii() and not BIDI.isdisjoint(text)
    return any(c in BIDI or unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text)


def check_name(text: str, kind: str, where: str) -> str:
    """``text``, to be used as a name in records and tables.

    Raises:
        UsageError: it is empty, is no valid text (a path that is not UTF-8) or holds control characters.
    """
    if not text or is_odd(text):
        shown = text.encode("unicode_escape", "backslashreplace").decode("ascii")
        raise UsageError(
            f"{shown!r} is no name for a {kind}" if text else f"the name of the {kind} is empty",
            where=where,
            allowed="printable characters in UTF-8",
            hint="rename it, or make a link with a plain name to it" if text else "give a name",
        )
    return text


# -- files -----------------------------------------------------------------------------------------------------------


def open_regular(path: Path | str, *, links: bool = False, most: int | None = None) -> IO[bytes]:
    """A regular file, open for reading; never waits.

    Args:
        links: whether ``path`` itself may be a link (a user's own data may).
        most: bytes that it may have.

    Raises:
        DataError: a FIFO, a device, a folder, a link, too large. OSError: not there, no permission.
    """
    descriptor = -1
    try:
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        descriptor = os.open(path, flags | (0 if links else os.O_NOFOLLOW))
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise DataError("is no regular file", where=str(path), allowed="a file: no FIFO, device, socket, folder")
        if most is not None and state.st_size > most:
            raise DataError(f"is too large: {state.st_size:,} bytes", where=str(path), allowed=f"at most {most:,}")
        return os.fdopen(descriptor, "rb")
    except BaseException as error:
        if descriptor >= 0:
            os.close(descriptor)
        if isinstance(error, OSError) and not links and os.path.islink(path):
            raise DataError("is a link", where=str(path), allowed="a regular file", hint="copy with cp -L") from error
        if isinstance(error, OSError) and os.path.exists(path) and not os.path.isfile(path):  # a socket, a device
            raise DataError("is no regular file", where=str(path), allowed="a file") from error
        raise


def read_bytes(path: Path | str, *, links: bool = False, most: int = DOCUMENT_BYTES) -> bytes:
    """The content of a file, by `open_regular`."""
    with open_regular(path, links=links, most=most) as file:
        return file.read(most + 1)


# -- documents -------------------------------------------------------------------------------------------------------


def parse_json(content: bytes | str) -> Any:
    """A JSON document of plain values: see `check_plain`.

    Raises:
        ValueError: says what is wrong.
    """
    text = content if isinstance(content, str) else content.decode("utf-8")
    try:
        document = json.loads(text)
    except RecursionError:
        raise ValueError(f"nested more than {DEPTH} deep") from None
    if not _surely_plain(text):
        check_plain(document)
    return document


_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_DOUBTFUL = re.compile(r"\d{18}|[NI]|[eE]\+?\d{3}")  # long numbers, NaN, Infinity, 1e999
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_NOT_BRACKETS = {code: None for code in range(128) if chr(code) not in "[]{}"}


def _surely_plain(text: str) -> bool:
    """Whether JSON text passes `check_plain` for certain, told from the text alone: several times as fast."""
    bare = _STRINGS.sub("", text)
    if len(text) > VALUES or not bare.isascii() or _DOUBTFUL.search(bare) or _SURROGATE.search(text):
        return False
    nested = bare.translate(_NOT_BRACKETS)
    for _ in range(DEPTH):
        if not nested:
            return True
        nested = nested.replace("[]", "").replace("{}", "")
    return not nested


def read_json(path: Path | str, *, links: bool = False, most: int = DOCUMENT_BYTES) -> Any:
    """A JSON file by `open_regular` and `parse_json`.

    Raises:
        DataError: no regular file, too large, no JSON, values that cannot be used. OSError: not there, no permission.
    """
    try:
        return parse_json(read_bytes(path, links=links, most=most))
    except ValueError as error:
        raise DataError(f"cannot be read as JSON ({error})", where=str(path)) from error


def parse_yaml(text: str, where: str = "") -> Any:
    """A YAML document of plain values: no tags, no recursion, no bombs of aliases.

    Raises:
        UsageError: says what is wrong.
    """
    import yaml

    try:
        if len(text) > YAML_BYTES:
            raise ValueError(f"{len(text):,} characters are too many")
        document = yaml.safe_load(text)
        check_plain(document, finite=False, most=YAML_VALUES)
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise UsageError(f"cannot read {_short(text)}: not YAML: {reason}", where=where) from error
    return document


def read_yaml(path: Path | str, where: str = "") -> Any:
    """A YAML file in UTF-8, by `open_regular` and `parse_yaml`.

    Raises:
        UsageError: cannot be read.
    """
    try:
        text = read_bytes(path, links=True, most=YAML_BYTES).decode("utf-8")
    except (OSError, ValueError, DataError) as error:
        what = error.what if isinstance(error, DataError) else error
        raise UsageError(f"{path} cannot be read as text: {what}", where=where, allowed="a YAML file") from error
    return parse_yaml(text, where)


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}…")


def check_plain(document: Any, *, finite: bool = True, most: int = VALUES) -> None:
    """Refuse what JSON or YAML can hold and no code expects: deep nesting, endless numbers, broken characters.

    Raises:
        ValueError: says what.
    """
    left = most
    stack: list[tuple[Any, int]] = [(document, 0)]
    while stack:
        value, depth = stack.pop()
        left -= 1
        if left < 0:
            raise ValueError(f"more than {most:,} values")
        if depth > DEPTH:
            raise ValueError(f"nested more than {DEPTH} deep")
        if isinstance(value, str):
            if not value.isascii():
                value.encode("utf-8")  # UnicodeEncodeError, a ValueError: a lone surrogate
        elif isinstance(value, dict):
            stack += [(k, depth + 1) for k in value]
            stack += [(v, depth + 1) for v in value.values()]
        elif isinstance(value, (list, tuple, set)):
            if depth + 1 > DEPTH:
                raise ValueError(f"nested more than {DEPTH} deep")
            stack += [(v, depth + 1) for v in value]
        elif isinstance(value, bool):
            continue
        elif isinstance(value, int):
            if abs(value) > LARGEST:
                raise ValueError("a whole number of more than 18 digits")
        elif isinstance(value, float) and finite and not math.isfinite(value):
            raise ValueError(f"{value} is no number of JSON")


# -- pictures --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def opened_image(source: Path | str | IO[bytes], *, name: str = "", links: bool = False) -> Iterator[Image]:
    """A picture of one of `IMAGE_FORMATS`, its header read; whatever decoding raises inside becomes a `DataError`.

    Raises:
        DataError: missing, no regular file, another format, truncated, absurd sides; names the file.
        OSError: `is_transient`: of the disk or the network, not of the file.
    """
    from PIL import Image, UnidentifiedImageError

    _quiet()
    where = name or str(source)
    with contextlib.ExitStack() as stack:
        try:
            file = source
            if isinstance(source, (str, Path)):
                file = stack.enter_context(open_regular(source, links=links))
            image = stack.enter_context(Image.open(file, formats=IMAGE_FORMATS))
            width, height = image.size
            if width * height > IMAGE_PIXELS or max(width, height) > IMAGE_RATIO * min(width, height):
                raise DataError(f"absurd size {width} x {height} px", allowed=f"{IMAGE_PIXELS:,} pixels, sides 1:1000")
            yield image
        except UnidentifiedImageError as error:
            raise _no_image(f"not a picture in {', '.join(IMAGE_FORMATS)}", where) from error
        except DataError as error:
            raise _no_image(error.what, where) from error
        except MemoryError as error:
            raise _no_image("too large for the memory", where) from error
        except Exception as error:  # noqa: BLE001 - decoders raise anything for a damaged file
            if is_transient(error):
                raise
            raise _no_image(str(error) or type(error).__name__, where) from error


def is_transient(error: BaseException) -> bool:
    """Whether reading the same file may work in a moment: a network file system, or a process short of handles."""
    return isinstance(error, OSError) and error.errno in TRANSIENT


TRANSIENT = (
    *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EBUSY),
    *(errno.EMFILE, errno.ENFILE, errno.ENOTCONN, errno.ECONNRESET, errno.EHOSTDOWN),
)


@lru_cache(maxsize=1)
def _quiet() -> None:
    """PIL's warning of large pictures is off: `IMAGE_PIXELS` is the limit here, and threads cannot each set filters."""
    from PIL import Image

    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def _no_image(reason: str, where: str) -> DataError:
    return DataError(
        f"cannot be read as an image: {reason}",
        where=where,
        hint="get the file again or remove it; for a dataset, --on-corrupt skip leaves such files out and counts them",
    )
