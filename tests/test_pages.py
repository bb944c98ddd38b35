"""Every ``ddbench`` command that README, CONTRIBUTING and docs show is one that the command line understands."""

import re
import shlex
from pathlib import Path

import click
import pytest

from benchmark import cli
from benchmark.core.errors import DDBenchError
from benchmark.plugins import registry

ROOT = Path(__file__).parents[1]
PAGES = [
    p for p in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))) if p.is_file()
]
LINKED = [
    *PAGES,
    *(ROOT / name for name in ("CHANGELOG.md", "results/README.md")),
    *sorted(ROOT.glob("results/*/*/README.md")),
]
PLACEHOLDERS = ("…", "METHODS", "NAME", "I/N", "$")


def commands(text):
    """Commands of the code blocks and of inline code, continued lines joined, comments off."""
    inline = re.findall(r"`(ddbench [^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    blocks = "\n".join(re.findall(r"```[a-z]*\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    lines = [part.strip() for line in blocks.splitlines() for part in line.split("&&")]
    return [line for line in [*lines, *inline] if re.match(r"ddbench [a-z-]", line)]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_of_the_page_are_understood(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    found = commands(page.read_text())
    assert found or page.name != "README.md"
    for line in found:
        words = [w for w in shlex.split(line, comments=True)[1:] if not any(mark in w for mark in PLACEHOLDERS)]
        context, command = click.Context(cli.cli), cli.cli
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            name, *words = words
            command = command.get_command(context, name)
            assert command is not None, f"{page.name}: no command {name!r} in {line!r}"
        try:
            if words and not isinstance(command, click.Group):  # without: only mentioned
                command.make_context(name, list(words))
        except (click.UsageError, DDBenchError) as error:
            if not any(mark in line for mark in PLACEHOLDERS):  # a placeholder's value was taken out
                pytest.fail(f"{page.name}: {line!r}: {error}")
            assert "No such option" not in str(error), f"{page.name}: {line!r}: {error}"
        except click.exceptions.Exit:
            pass  # --help


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_names_of_the_page_are_registered(page):
    for line in commands(page.read_text()):
        for kind in ("method", "dataset", "protocol", "student"):
            for value in re.findall(rf"--{kind} ([\w,@:-]+)(?![\w,@:=-])", line):
                for name in value.split(","):
                    if name.islower() and name not in ("mymethod", "mine"):
                        known = name.removesuffix("@val").partition(":")[0] + ":" * (":" in name)
                        registry().get(kind, name if kind == "student" else known, where=f"{page.name}: {line}")


def test_the_readme_names_every_method_and_dataset():
    text = (ROOT / "README.md").read_text()
    rows = {k: next(x for x in text.splitlines() if x.startswith(f"| {k} |")) for k in ("methods", "datasets")}
    for kind, row in rows.items():
        named = set(re.findall(r"[\w:+-]+", row.split("|")[2]))
        owner = registry().owner
        own = {n.rstrip(":") for n in registry().names(kind[:-1]) if "(ddbench " in owner[kind[:-1], n]}
        own = {n for n in own if not n.startswith(("imagewoof", "imageidc", "synthetic"))}
        assert own <= {n.split(":")[0] for n in named}, (kind, own - named)


@pytest.mark.parametrize("page", LINKED, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_of_the_page_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not re.match(r"https?://|mailto:|#", target):
            assert (page.parent / target.partition("#")[0]).exists(), f"{page.name}: no {target}"


def test_every_page_is_in_the_site():
    named = set(re.findall(r": ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert named == {page.name for page in (ROOT / "docs").glob("*.md")}


def test_the_front_page_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
