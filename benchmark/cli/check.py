"""``check``: does a method keep the contract?"""

from __future__ import annotations

import importlib
import sys
import tempfile
import traceback
from pathlib import Path

import click

from benchmark.core.errors import UsageError


@click.command(
    epilog="""\b
Examples:
  ddbench check mymethod
  ddbench check mymethod --set steps=2
  ddbench check mymodule:MyMethod          a class that is not registered yet
"""
)
@click.argument("method", metavar="METHOD")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="A parameter, so that it takes a moment.")
def check(method: str, sets: tuple[str, ...]) -> int:
    """Run a method on tiny data and say which rules of the contract it keeps.

    Four classes of 8x8 digits, a tiny backbone, an untrained teacher: no data and no weights are needed. The method's
    own `quick` parameters are used. Exit code 1 if a rule is broken.
    """
    import torch

    from benchmark.pipeline.request import parse_sets
    from benchmark.plugins import registry
    from benchmark.testing import NOT_TRIED, RULES, check_method
    from benchmark.testing.bench import Bench

    torch.set_num_threads(1)
    cls = None
    if ":" in method:
        cls, method = _load(method), method.rpartition(":")[2].lower()
    else:
        registry().get("method", method, where="METHOD")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        if cls is not None:
            bench.classes[method] = cls
        found = check_method(bench, method, parse_sets(sets))
    for name, fault in found.items():
        tried = not fault.startswith(NOT_TRIED)
        state = click.style("ok    " if tried else "-     ", fg="green")
        if fault and tried:
            state = click.style("BROKEN", fg="red")
        click.echo(f"{state}  {name:13} {RULES[name][0]}")
        for line in fault.splitlines():
            click.echo(f"        {line}")
    broken = sum(bool(fault) and not fault.startswith(NOT_TRIED) for fault in found.values())
    rules = f"{broken} of {len(found)} rules" if broken > 1 else "a rule"
    click.echo(f"\n{method} breaks {rules}" if any(found.values()) else f"\n{method} keeps the contract")
    return 1 if any(found.values()) else 0


def _load(target: str):
    """The class behind ``module:Class``, also of a module in this folder."""
    from benchmark.methods import Method

    module, _, name = target.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        cls = getattr(importlib.import_module(module), name)
    except Exception as error:  # noqa: BLE001 - the module is the user's, and may do anything wrong
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = "" if isinstance(error, AttributeError) else f" ({last.filename}:{last.lineno})"
        raise UsageError(
            f"{target} cannot be imported: {type(error).__name__}: {error}{place}",
            where="METHOD",
            allowed="NAME or module:Class",
        ) from error
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise UsageError(f"{target} is no subclass of benchmark.api.Method", where="METHOD")
    return cls
