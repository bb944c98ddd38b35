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

_BLOCK = re.compile(
    r"(<!-- ddbench (?P<command>leaderboard|compare)(?P<args>[^\n]*?) ?-->\n)(?P<body>.*?)(<!-- /ddbench -->)",
    re.DOTALL,
)


def blocks(text: str) -> list[tuple[str, list[str], str]]:
    """(command, its arguments, present table) of each block."""
    return [(m["command"], shlex.split(m["args"]), m["body"]) for m in _BLOCK.finditer(text)]


def refresh(text: str, render: Callable[[str, list[str]], str]) -> str:
    """The text with every block's table replaced by ``render(command, arguments)``."""
    return _BLOCK.sub(lambda m: m[1] + render(m["command"], shlex.split(m["args"])) + m[5], text)
