"""Every ``ddbench`` command in a message is one that the command line understands.

Messages are found in two ways: all texts of the source, with placeholders where values go, whose commands and options
must exist; and messages as they are printed, whose commands must be accepted as they stand.
"""

import ast
import re
import shlex
from pathlib import Path

import click
import pytest

from benchmark import cli
from benchmark.core.errors import DDBenchError, MissingError, UsageError
from benchmark.data import load_dataset
from benchmark.pipeline.request import Request
from benchmark.plugins import registry

ROOT = Path(__file__).parents[2]
VALUE = "VALUE"  # stands where an f-string has an expression
PROSE = {"wrote", "reads", "made", "command", "digits", "split", "holdout"}  # what follows the word in other texts
FILES = [f for top in ("benchmark", "baselines", "d3hr_plugin") for f in sorted((ROOT / top).rglob("*.py"))]


def texts(file):
    """The texts of a module, f-strings and joined ones whole, without its docstrings."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    inner, docs = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inner |= {id(part) for part in ast.walk(node)} - {id(node)}
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            docs.add(id(body[0].value))
    for node in ast.walk(tree):
        if id(node) in inner | docs:
            continue
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(p.value if isinstance(p, ast.Constant) else VALUE for p in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def commands(text):
    """What follows ``ddbench `` up to where the command ends: a line, a back quote, wide space, or a clause."""
    for found in re.findall(r"(?<![\w/-])ddbench ((?:[a-z0-9][a-z0-9-]*|VALUE)\b[^`\n]*)", text):
        if found.split()[0] not in PROSE:
            yield re.split(r"\s{2,}|; |, (?!\S*--)| \(|: (?=[a-z])|\. |\)(?=[\s,.;]|$)| && | -->", found)[0].strip()


def fault(command):
    """Why the command line would refuse the command's names and options; "" where it would not."""
    words = command.replace("'", "").replace('"', "").split()
    context, found, path = click.Context(cli.cli), cli.cli, []
    while isinstance(found, click.Group) and words and not words[0].startswith("-"):
        name, *words = words
        if name.strip(".,:;") in (VALUE, "…"):
            return ""
        found = found.get_command(context, name.strip(".,:;"))
        path.append(name)
        if found is None:
            return f"no command {' '.join(path)!r}"
    options = {o: p for p in found.params if isinstance(p, click.Option) for o in (*p.opts, *p.secondary_opts)}
    words = [word.strip(".,:;…") for word in words]
    for word, value in zip(words, [*words[1:], ""]):
        name, equals, after = word.partition("=")
        if not word.startswith("-") or name == "--help" or name.strip("-") == "":
            continue
        if name not in options:
            return f"{' '.join(path)} has no option {name}"
        kind = options[name].type
        given = after if equals else value
        if isinstance(kind, click.Choice) and re.fullmatch(r"[a-z]+", given) and given not in kind.choices:
            return f"{name} takes {', '.join(kind.choices)}, not {given}"
    return ""


@pytest.mark.parametrize("package", ["benchmark", "baselines", "d3hr_plugin"])
def test_commands_in_the_source_exist(package):
    found = [
        (f"{file.relative_to(ROOT)}:{line}", command)
        for file in FILES
        if file.relative_to(ROOT).parts[0] == package
        for line, text in texts(file)
        for command in commands(text)
    ]
    assert len(found) > {"benchmark": 100}.get(package, 0)
    faults = [f"{where}: ddbench {command}: {why}" for where, command in found if (why := fault(command))]
    assert faults == []


@pytest.mark.parametrize(
    "command",
    ["distil --method d3hr", "run --methods d3hr", "backbone tune --from X", "plan --emit slrum"],
)
def test_this_check_can_fail(command):
    assert fault(command) and fault(next(commands(f"next: ddbench {command}, then again")))


def accepts(command):
    """Why the command line refuses the whole command with its values; "" where it accepts it."""
    try:
        words = shlex.split(command.replace("…", ""))
        words = ["1" if word == "N" else "0/2" if word == "I/N" else word for word in words]
        found, name = cli.cli, ""
        while isinstance(found, click.Group):
            name, *words = words
            found = found.get_command(click.Context(cli.cli), name)
            if found is None:
                return f"no command {name!r}"
        found.make_context(name, words)
    except (click.UsageError, DDBenchError, ValueError) as error:
        return str(error)
    return ""


def printed(monkeypatch, tmp_path):
    """Messages as users see them: what is missing, the plan, errors."""
    from benchmark.core.store import Store
    from benchmark.pipeline.cost import forecast, predict
    from benchmark.pipeline.requirements import check_requirements, requirements

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "store"))
    assert Store().root == tmp_path / "store"
    for dataset in (*registry().names("dataset"), "pets=no where"):
        if dataset == "imagefolder:":
            continue
        for method in ("d3hr", "sre2l", "dm"):
            request = Request(dataset, (method,), data_root=str(tmp_path), dataset_options={"image_size": 64})
            for requirement in requirements(request, "cpu"):
                yield from (requirement.fix, requirement.found)
    try:
        check_requirements(Request("pets=no where", ("d3hr",)))
    except MissingError as error:
        yield str(error)
    digits = load_dataset("digits")
    place = predict.Place("a CPU without rows", "fp32", gpu=False)
    for options in ({}, {"classes": "0,1"}):
        request = Request("digits", ("d3hr", "sre2l", "rded"), (1, 10), dataset_options=options, seeds=(0,))
        facts = forecast.Facts.of(digits)
        yield from forecast.forecast(request, facts, forecast.everything(request, facts), place, digits)
    for name in ("digit", "he-yang/sets", "imagefolder:nowhere", "cifar10", "pets=no where", "imagenet1k"):
        try:
            load_dataset(name, str(tmp_path))
        except (UsageError, MissingError) as error:
            yield str(error)


def test_commands_that_are_printed_are_accepted_as_they_stand(monkeypatch, tmp_path):
    found = {command for text in printed(monkeypatch, tmp_path) for command in commands(text)}
    assert len(found) >= 8, found
    faults = [f"ddbench {command}: {why}" for command in sorted(found) if (why := fault(command) or accepts(command))]
    assert faults == []
