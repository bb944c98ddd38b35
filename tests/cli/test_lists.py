"""``show``, ``env``, and what the command says of errors."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmark import cli
from benchmark.cli import lists
from benchmark.pipeline.cost import table
from benchmark.plugins.infos import USES

ROOT = Path(__file__).resolve().parents[2]


def test_a_backbone_preset_is_a_table(monkeypatch):
    row = table.Row(
        "GPU", "dit 4x128/2 4x16x16, vae 16-32-64 3x64px", "bf16", "invert", 4.0, 30, 64, 0, 77.5, 1, "d", "c"
    )
    monkeypatch.setattr(table, "committed", lambda: [row])
    text = CliRunner().invoke(lists.show, ["backbone", "tiny"]).output
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line[:2].strip().isdigit()}
    assert "dit_steps=1000" in text and lines["256"][2] == "4x32x32" and lines["32"][2] == "4x8x8"
    assert "77.5" in text and "77.5" not in CliRunner().invoke(lists.show, ["backbone", "small"]).output


def test_env_without_a_gpu(monkeypatch):
    monkeypatch.setattr("benchmark.core.provenance.gpu_name", lambda: "")
    from benchmark.core.provenance import _environment

    _environment.cache_clear()
    try:
        assert "gpu          none" in CliRunner().invoke(lists.env, []).output
    finally:
        _environment.cache_clear()


def test_a_method_shows_what_tuning_tries():
    assert "[tune: 0.3, 0.5, 0.7]" in CliRunner().invoke(lists.show, ["method", "d4m"]).output


def test_an_error_of_the_file_system_is_a_message_and_no_traceback(monkeypatch, capsys):
    def broken(*arguments, **more):
        raise PermissionError(13, "Permission denied", "/data/locked")

    monkeypatch.setattr(cli.cli, "main", broken)
    with pytest.raises(SystemExit) as stopped:
        cli.main([])
    said = capsys.readouterr().err
    assert stopped.value.code == 1 and "Permission denied" in said and "/data/locked" in said


ASKED = [
    ["list"], ["list", "methods"], ["show", "method", "d4m"], ["show", "protocol", "hard", "soft"], ["plugins"],
    ["env"], ["status"], ["speed"], ["doctor", "--dataset", "digits"], ["doctor"],
    ["plan", "--method", "random", "--dataset", "digits", "--protocol", "hard"],
    ["scores", "--results", "results"], ["compare", "d3hr:decode_guidance=3", "random", "--results", "results"],
    ["leaderboard", "--results", "results", "--dataset", "digits"],
]  # fmt: skip


@pytest.mark.parametrize("words", ASKED, ids=" ".join)
def test_every_command_that_prints_a_table_has_its_formats(words, monkeypatch, tmp_path):
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(ROOT)
    for form in ("json", "latex"):
        ran = CliRunner().invoke(cli.cli, [*words, "--format", form], catch_exceptions=False)
        assert ran.exit_code == 0, ran.output
        if form == "json":
            json.loads(ran.stdout)
        else:
            assert "\\begin{tabular}" in ran.stdout


def test_methods_are_listed_by_what_they_need():
    text = CliRunner().invoke(lists.list_, ["methods"]).output
    parts = text.split("\n\n")
    assert [part.splitlines()[0] for part in parts] == [f"methods of {what}" for what in USES.values()]
    assert "\nforgetting " in parts[0] and "\nkmeans " in parts[1] and "\nd3hr " in parts[2]
