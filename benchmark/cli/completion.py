"""Shell completion that knows names: methods, datasets, students, protocols, grids …

Click completes commands and options by itself. `with_names` gives the options and arguments that take a registered
name a type that completes it; nothing else of them changes.
"""

from __future__ import annotations

from collections.abc import Iterable

import click
from click.shell_completion import CompletionItem

from benchmark.core.errors import LISTED

OPTIONS = {
    "--method": "method", "--dataset": "dataset", "--student": "student", "--protocol": "protocol",
    "--hard": "protocol", "--soft": "protocol", "--backbone": "backbone", "--teacher": "student",
    "--executor": "executor", "--metric": "metric",
}  # fmt: skip
ARGUMENTS = {
    ("list", "kinds"): "kinds", ("show", "kind"): "kinds", ("show", "names"): "names", ("grid", "name"): "grid",
    ("check", "method"): "method", ("compare", "first"): "method", ("compare", "second"): "method",
}  # fmt: skip


class Name(type(click.STRING)):
    """Text, of which the shell can complete what is registered as ``kind``; after a comma the next name."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Names that begin as the last of the comma-separated ones does, with their summaries."""
        before, comma, last = incomplete.rpartition(",")
        kind = str(ctx.params.get("kind") or "").removesuffix("s") if self.kind == "names" else self.kind
        return [
            CompletionItem(f"{before}{comma}{name}", help=about) for name, about in known(kind) if name.startswith(last)
        ]


def known(kind: str) -> Iterable[tuple[str, str]]:
    """(name, summary) of what there is of a kind; nothing of an unknown one."""
    if kind == "kinds":
        return [(f"{name}s", "") for name in LISTED]
    if kind == "grid":
        from benchmark.studies.spec import shipped

        return list(shipped().items())
    from benchmark.plugins import registry

    found = registry().items.get(kind, {})
    return [(name, info.summary) for name, info in sorted(found.items())]


def with_names(command: click.Command, name: str) -> click.Command:
    """The command; its options and arguments that take names can complete them."""
    for part in getattr(command, "commands", {}).values():
        with_names(part, f"{name} {part.name}")
    for param in command.params:
        kind = ARGUMENTS.get((name, param.name or ""))
        kind = kind or next((OPTIONS[opt] for opt in param.opts if opt in OPTIONS), None)
        if kind and param.type is click.STRING:
            param.type = Name(kind)
    return command
