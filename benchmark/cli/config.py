"""Options from a file: ``--config run.yaml``, and ``--print-config``, which writes such a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from benchmark.core.errors import UsageError, unknown_name
from benchmark.core.foreign import read_yaml

OWN = ("config", "print_config")


class Configured(click.Command):
    """A command that takes its options from a YAML file too; what stands on the command line goes first.

    The file names options as the command line does, without the dashes: ``method: [d3hr, d4m]``, ``ipc: 1,10``,
    ``set: {d3hr.m: 1000}``. A path in it is relative to the working folder.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.params += [
            click.Option(
                ["--config"],
                type=click.Path(path_type=Path),
                is_eager=True,
                expose_value=False,
                callback=_read,
                help="Options from a YAML file; the command line goes first.",
            ),
            click.Option(["--print-config"], is_flag=True, help="Print all options as such a file (and do nothing)."),
        ]

    def invoke(self, ctx: click.Context) -> Any:
        if ctx.params.pop("print_config"):
            click.echo(text(ctx), nl=False)
            return 0
        return super().invoke(ctx)


def _named(command: click.Command) -> dict[str, click.Option]:
    """Options by the name that a file has for them."""
    found = {}
    for param in command.params:
        if isinstance(param, click.Option) and param.name not in OWN:
            found[max(param.opts, key=len).lstrip("-")] = param
    return found


def _read(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    """Make the file's values the command's defaults.

    Raises:
        UsageError: no mapping, an option that the command lacks (the nearest named), a value that no option can be.
    """
    if path is None:
        return
    document = read_yaml(path, where="--config")
    if not isinstance(document, dict):
        raise UsageError(f"{path} is no mapping of options", where="--config", allowed="OPTION: value, one a line")
    options, values = _named(ctx.command), {}
    for key, value in document.items():
        option = options.get(str(key))
        if option is None:
            raise unknown_name("option", str(key), sorted(options), where=f"--config {path}")
        values[option.name] = _value(option, value, f"--config {path}: {key}")
    ctx.default_map = {**(ctx.default_map or {}), **{k: v for k, v in values.items() if v is not None}}


def _value(option: click.Option, value: Any, where: str) -> Any:
    """A value of the file as the command line would give it."""
    if value is None or isinstance(value, bool):
        if isinstance(value, bool) and not option.is_flag:
            raise UsageError(f"{value} is no value", where=where, allowed="text or a number")
        return value
    if isinstance(value, dict):
        value = [f"{name}={_plain(part, where)}" for name, part in value.items()]
    if option.multiple:
        return [_plain(part, where) for part in (value if isinstance(value, list) else [value])]
    return ",".join(_plain(part, where) for part in value) if isinstance(value, list) else _plain(value, where)


def _plain(value: Any, where: str) -> str:
    if isinstance(value, dict):
        raise UsageError("a mapping inside a value", where=where, allowed="text, a number or a list of them")
    if isinstance(value, list):
        return "[" + ",".join(_plain(part, where) for part in value) + "]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def text(ctx: click.Context) -> str:
    """The options in force as a file for ``--config``."""
    import yaml

    document = {}
    for name, option in _named(ctx.command).items():
        value = ctx.params.get(option.name or "")
        if value in (None, "", ()):
            continue
        value = list(value) if isinstance(value, tuple) else value
        document[name] = value if isinstance(value, (bool, int, float, list)) else str(value)
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, default_flow_style=False)
