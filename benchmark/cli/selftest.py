"""``ddbench selftest``: the first command on a new machine."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from benchmark.cli.options import NamedPath, shared


@click.command(
    epilog="""\b
Examples:
  ddbench selftest --device cuda
  ddbench selftest --device cpu --quick
  ddbench selftest --device cuda --add throughput.csv        rows to send in with a pull request
"""
)
@shared("device")
@click.option("--quick", is_flag=True, help="Leave out ranks, speed and all methods but d3hr: seconds.")
@click.option("--add", type=NamedPath(), help="Also write the measured speeds into this table.")
def selftest(device: str, quick: bool, add: Path | None) -> int:
    """Check this machine: is what it computes right, the same twice, and how fast.

    Every stage and method on tiny inputs against float64 on the CPU, determinism, mixed precision, running out of
    memory, two ranks, then speeds: on a GPU of DiT-XL/2 and ResNet-18 at 224 px with random weights. Nothing is
    downloaded. At most ten minutes. `ddbench plan` uses the speeds. Exit code 1 if a check fails.
    """
    from benchmark.core.compute import resolve_device
    from benchmark.core.outputs import room_for
    from benchmark.core.provenance import provenance
    from benchmark.pipeline.cost import table
    from benchmark.testing.selftest import FAILED, NOT_RUN, OK, selftest

    if add is not None:
        room_for(add, "--add")
    device = resolve_device(device)
    versions = {k: v for k, v in provenance().items() if isinstance(v, str)}
    click.echo(", ".join([table.device_name(device), *(f"{k} {v}" for k, v in versions.items())]))
    colours, count = {OK: "green", FAILED: "red", NOT_RUN: "yellow"}, dict.fromkeys((OK, FAILED, NOT_RUN), 0)

    def keep(rows: list) -> None:
        click.echo(f"{'':8} speeds kept in {table.keep(rows)}, for `ddbench plan`")
        if add is not None:
            table.add(add, rows)

    command = shlex.join(["ddbench", *sys.argv[1:]])
    for found in selftest(device, quick, keep, command):
        count[found.state] += 1
        click.echo(f"{click.style(f'{found.state:8}', fg=colours[found.state])} {found.name:28} {found.text}")
    click.echo(f"\n{count[OK]} ok, {count[FAILED]} failed, {count[NOT_RUN]} not run")
    return 1 if count[FAILED] else 0
