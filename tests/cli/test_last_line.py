"""The last line of defence: what nobody foresaw, a reader that left, a full output, a missing home."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark import cli
from benchmark.cli import console

DDBENCH = str(Path(sys.executable).parent / "ddbench")


@pytest.fixture
def broken(monkeypatch, tmp_path):
    """A command whose code has a mistake."""
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(console.DEBUG, "")  # main() sets it: undone after the test
    monkeypatch.setattr("benchmark.results.records.iter_records", lambda *_: 1 / 0)


def test_an_unexpected_error_is_one_line_with_a_log(broken, tmp_path, capsys, monkeypatch):
    with pytest.raises(SystemExit) as end:
        cli.main(["leaderboard", "--results", str(tmp_path)])
    text = capsys.readouterr().err
    assert end.value.code == 1 and text.count("\n") == 1 and "ZeroDivisionError" in text and "Traceback" not in text
    log = Path(re.search(r"traceback: (\S+);", text)[1])
    assert "Traceback" in log.read_text() and log.stat().st_mode & 0o777 == 0o600
    with pytest.raises(SystemExit):
        cli.main(["leaderboard", "--results", str(tmp_path), "--debug"])
    assert "Traceback" in capsys.readouterr().err
    assert console.wants_debug(["export", "--", "--debug"])[0] == ["export", "--", "--debug"]


def test_an_error_in_a_thread_is_one_line_too(capsys, monkeypatch, tmp_path):
    import threading

    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    console.catch_threads(False)
    thread = threading.Thread(target=lambda: 1 / 0, name="stray")
    thread.start()
    thread.join()
    text = capsys.readouterr().err
    assert "in the thread stray: ZeroDivisionError" in text and "Traceback" not in text


def test_a_reader_that_leaves_ends_nothing(tmp_path):
    done = subprocess.run(
        ["bash", "-c", f"{DDBENCH} list methods | head -1 >/dev/null; exit ${{PIPESTATUS[0]}}"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    full = subprocess.run(["bash", "-c", f"{DDBENCH} list methods > /dev/full"], capture_output=True, text=True)
    assert full.returncode == 1 and "no space left" in full.stderr and "Traceback" not in full.stderr
    closed = subprocess.run(["bash", "-c", f"{DDBENCH} list methods >&- 2>&-"], capture_output=True, text=True)
    assert closed.returncode == 0


def test_a_late_interrupt_changes_nothing():
    """All is done and written: the command ends as it would have."""
    code = "import atexit, os; from benchmark import cli; atexit.register(os.kill, os.getpid(), 2); cli.main()"
    done = subprocess.run([sys.executable, "-c", code, "list", "methods"], capture_output=True, text=True)
    assert done.returncode == 0 and "Traceback" not in done.stderr and "kmeans" in done.stdout, done.stderr


def test_text_for_a_terminal_shows_control_characters(monkeypatch, tmp_path):
    code = "from benchmark.cli import console; console.open_streams(); print('a\\x1b]0;x\\x07b \\x1b[31mred\\x1b[0m ≈')"
    env = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=env)
    assert done.returncode == 0 and done.stdout == b"a\\x1b]0;x\\x07b \x1b[31mred\x1b[0m ?\n", done


def test_a_missing_home_is_a_message(monkeypatch, capsys):
    def nobody(number):
        raise KeyError(number)

    monkeypatch.setattr("pwd.getpwuid", nobody)
    for name in ("HOME", "DDBENCH_CACHE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit) as end:
        cli.main(["status"])
    text = capsys.readouterr().err
    assert end.value.code == 2 and "DDBENCH_CACHE" in text and "~/.cache" in text, text


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["run", "--method", "", "--dataset", "digits"], "method is empty"),
        (["run", "--method", "random", "--student", "", "--dataset", "digits"], "student is empty"),
        (["run", "--method", "random", "--results", "", "--dataset", "digits"], "empty"),
        (["leaderboard", "--results", ""], "empty"),
        (["run", "--method", "random", "--dataset", "digits", "--seeds", "1000000000"], "10000"),
        (["run", "--method", "random", "--dataset", "digits", "--time-limit", "inf"], "time-limit"),
        (["run", "--method", "random", "--dataset", "digits", "--time-limit", "nan"], "finite"),
        (["run", "--method", "random", "--dataset", "digits", "--teacher", "resnet19"], "resnet18"),
        (
            ["plan", "--method", "random", "--dataset", "digits", "--set", "protocol.student=resnet19"],
            "protocol.student",
        ),
        (
            ["plan", "--method", "random", "--dataset", "digits", "--set", "protocol.teacher=resnet19"],
            "protocol.teacher",
        ),
        (["run", "--method", "random", "--dataset", "imagefolder:/x/go\udcff"], "\\udcff"),
        (["run", "--method", "random", "--dataset", "digits", "--data-root", "~nosuchuser"], "nosuchuser"),
        (["plan", "--method", "d3hr", "--dataset", "digits", "--backbone", "tinny"], "tiny"),
    ],
)
def test_senseless_options_are_refused_before_any_work(arguments, words, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr("benchmark.pipeline.run.run_plan", lambda *_, **__: pytest.fail("work began"))
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    text = capsys.readouterr().err
    assert end.value.code == 2 and words in text, text
