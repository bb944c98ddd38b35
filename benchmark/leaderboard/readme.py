"""Tables inside Markdown files that equal what the command prints: between two comments, the first is the command.

::

    <!-- ddbench leaderboard --dataset digits --protocol hard -->
    …table…
    <!-- /ddbench -->
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable

_BLOCK = re.compile(r"(<!-- ddbench leaderboard ?(?P<args>[^\n]*?) ?-->\n)(?P<body>.*?)(<!-- /ddbench -->)", re.DOTALL)


def blocks(text: str) -> list[tuple[list[str], str]]:
    """(arguments, present table) of each block."""
    return [(shlex.split(m["args"]), m["body"]) for m in _BLOCK.finditer(text)]


def refresh(text: str, render: Callable[[list[str]], str]) -> str:
    """The text with every block's table replaced by ``render(arguments)``."""
    return _BLOCK.sub(lambda m: m[1] + render(shlex.split(m["args"])) + m[4], text)
