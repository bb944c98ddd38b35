"""``--config``, ``--print-config``, ``-v``, ``-q`` and the completion of names."""

import os

import pytest
import yaml
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from benchmark.cli import cli, console
from benchmark.core.errors import UsageError
from benchmark.core.progress import LEVEL, QUIET, VERBOSE


def printed(*words):
    ran = CliRunner().invoke(cli, [*words, "--print-config"], catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    return yaml.safe_load(ran.output)


def test_a_printed_file_gives_the_same_options(tmp_path):
    words = [
        "run",
        "--method",
        "d3hr,d4m",
        "--dataset",
        "digits",
        "--ipc",
        "1,10",
        "--set",
        "d3hr.m=1000",
        "--no-floor",
    ]
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(printed(*words)))
    assert printed("run", "--config", str(tmp_path / "run.yaml")) == printed(*words)
    assert printed(*words)["set"] == ["d3hr.m=1000"] and printed(*words)["floor"] is False


def test_the_command_line_goes_before_the_file(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(
        "method: [random, kmeans]\ndataset: digits\nipc: [1, 10]\nseeds: 7\nset: {random.x: 1}\ndownload: true"
    )
    found = printed("run", "--config", str(file), "--seeds", "2")
    assert found["method"] == ["random", "kmeans"] and found["ipc"] == "1,10" and found["seeds"] == 2
    assert found["set"] == ["random.x=1"] and found["download"] is True
    assert printed("run", "--seeds", "2", "--config", str(file)) == found


@pytest.mark.parametrize(
    ("text", "words"),
    [("methd: d3hr", "did you mean 'method'"), ("- a", "no mapping"), ("ipc: {a: {b: 1}}", "inside a value"),
     ("dataset: true", "no value"), ("a: [", "not YAML")],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_said(tmp_path, text, words):
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(UsageError) as caught:
        CliRunner().invoke(cli, ["run", "--config", str(tmp_path / "run.yaml")], catch_exceptions=False)
    assert words in str(caught.value) and "run.yaml" in str(caught.value) or "--config" in str(caught.value)


@pytest.mark.parametrize(
    ("words", "incomplete", "wanted"),
    [(["run", "--method"], "km", ["kmeans"]), (["run", "--method"], "random,km", ["random,kmeans"]),
     (["leaderboard", "--dataset"], "fash", ["fashionmnist", "fashionmnist@val"]), (["show"], "prot", ["protocols"]),
     (["show", "protocol"], "rded", ["rded-paper"]), (["grid"], "ipc", ["ipc-curves"]),
     (["compare"], "d3hr-", ["d3hr-modes"]), (["backbone", "train", "--dataset"], "digi", ["digits", "digits@val"]),
     (["d3hr-report", "--dataset"], "digi", ["digits", "digits@val"]),
     (["evaluate", "DIR", "--protocol"], "dc-", ["dc-dsa"])],
)  # fmt: skip
def test_the_shell_completes_names(words, incomplete, wanted):
    found = ShellComplete(cli, {}, "ddbench", "_DDBENCH_COMPLETE").get_completions(words, incomplete)
    assert [item.value for item in found] == wanted


def test_verbosity_may_stand_anywhere_and_reaches_workers(monkeypatch):
    monkeypatch.setenv(LEVEL, "")
    assert console.verbosity(["run", "-q", "--method", "x"]) == ["run", "--method", "x"] and os.environ[LEVEL] == QUIET
    assert console.verbosity(["--verbose", "list"]) == ["list"] and os.environ[LEVEL] == VERBOSE
    assert console.verbosity(["export", "--", "-v"]) == ["export", "--", "-v"]
