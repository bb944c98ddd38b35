"""Tables inside Markdown files that equal what the command prints: between two comments, the first is the command.

::

    <!-- ddbench leaderboard --dataset digits --protocol hard -->
    …table…
    <!-- /ddbench -->

``--results`` is relative to the file.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable

from benchmark.core.errors import DDBenchError, UsageError

_BLOCK = re.compile(
    r"(<!-- ddbench (?P<command>leaderboard|compare|reproduction|methods)(?P<args>[^\r\n]*?) ?-->(?P<end>\r?\n))"
    r"(?P<body>.*?)"
    r"(<!-- /ddbench -->)",
    re.DOTALL,
)


def blocks(text: str) -> list[tuple[str, list[str], str]]:
    """(command, its arguments, present table) of each block.

    Raises:
        UsageError: a marker whose options cannot be split (a quote that does not end); names the line.
    """
    return [(m["command"], _arguments(m), m["body"]) for m in _BLOCK.finditer(text)]


def _arguments(block: re.Match) -> list[str]:
    try:
        return shlex.split(block["args"])
    except ValueError as error:
        line = block.string.count("\n", 0, block.start()) + 1
        raise UsageError(
            f"the options of the marker in line {line} cannot be read: {error}",
            where=f"line {line}: {block[1].strip()}",
            allowed="options as on the command line",
        ) from error


def refresh(text: str, render: Callable[[str, list[str]], str]) -> str:
    """The text with every block's table replaced by ``render(command, arguments)``.

    The new lines end as the marker's line does; the rest of the text is untouched.

    Raises:
        UsageError: a marker's options are wrong; names the line.
    """

    def replaced(m: re.Match) -> str:
        try:
            table = render(m["command"], _arguments(m))
        except DDBenchError as error:
            error.where = f"line {text.count(chr(10), 0, m.start()) + 1}: {m[1].strip()}; {error.where}".rstrip("; ")
            raise
        return m[1] + table.replace("\n", m["end"]) + "<!-- /ddbench -->"

    return _BLOCK.sub(replaced, text)
