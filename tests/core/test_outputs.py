"""Paths that cannot be written, by every command that takes one: exit code 2, a message, nothing half-written."""

import contextlib
import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from synthetic import make_record

from benchmark import cli
from benchmark.core import outputs
from benchmark.core.errors import JobError, UsageError
from benchmark.data import load_dataset
from benchmark.results.records import write_record
from benchmark.sets.folder import write_set

pseudo = pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc here")


@pytest.fixture
def results(tmp_path):
    for method in ("d3hr", "random"):
        for seed in range(3):
            write_record(tmp_path / "results", make_record(method, seed, top1=60 + seed + len(method)))
    return tmp_path / "results"


@pytest.fixture
def made(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    images = [(c, 0, np.full((8, 8, 1), 20 * c, np.uint8)) for c in range(10)]
    meta = {"method": {"name": "d3hr", "version": 1, "params": {}}, "seed": 0, "backbone": None, "ddbench": "0.1"}
    write_set(folder, load_dataset("digits"), 1, images, meta)
    return folder


def commands(results, made, path):
    """Arguments of every command that writes where its user says; ``path`` has no suffix."""
    common = ["--results", str(results)]
    yield ["leaderboard", *common, "--out", f"{path}.csv"]
    yield ["leaderboard", *common, "--format", "latex", "--out", f"{path}.tex"]
    yield ["report", *common, "--out", f"{path}.html"]
    yield ["compare", "d3hr", "random", *common, "--plot", f"{path}.svg"]
    yield ["results", "add", str(results), "--results", f"{path}-ours"]
    yield ["export", str(made), *common, "--out", f"{path}"]
    yield ["d3hr-report", "--dataset", "digits", "--out", f"{path}"]
    yield ["distill", "--method", "noise", "--dataset", "digits", "--seeds", "1", "--out", f"{path}"]
    yield ["backbone", "train", "--dataset", "digits", "--out", f"{path}"]
    yield ["grid", "ipc-curves", "--dataset", "digits", "--ipc", "1", "--results", f"{path}"]


def code_of(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    return end.value.code, capsys.readouterr().err


def listing(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """Commands that reach their work fail here: the path is to be refused before."""
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("d3hr_plugin.command._task", lambda *_: pytest.fail("work began"))
    monkeypatch.setattr("benchmark.pipeline.run.run_plan", lambda *_, **__: pytest.fail("work began"))
    monkeypatch.setattr("benchmark.cli.backbone._finish", lambda *_: pytest.fail("work was done"))
    monkeypatch.setattr("benchmark.cli.backbone._dataset", lambda *_: pytest.fail("work began"), raising=False)


@pseudo
@pytest.mark.parametrize("path", ["/proc/new", "/proc/none/new"])
def test_a_pseudo_file_system(results, made, path, quick, capsys):
    for arguments in commands(results, made, path):
        code, text = code_of(arguments, capsys)
        assert code == 2, (arguments, text)
        option = next(a for a in reversed(arguments) if a in ("--out", "--plot", "--results"))
        assert path in text and option in text and "next:" in text, text


def test_a_file_where_a_folder_is_meant(results, made, tmp_path, quick, capsys):
    (tmp_path / "file").write_text("mine")
    before = listing(tmp_path)
    for arguments in commands(results, made, tmp_path / "file" / "new"):
        code, text = code_of(arguments, capsys)
        assert code == 2 and "file" in text, (arguments, text)
    for arguments in commands(results, made, tmp_path / "file"):
        if arguments[0] in ("export", "d3hr-report", "backbone", "distill"):
            code, text = code_of(arguments, capsys)
            assert code == 2 and "is a file" in text and "--out" in text
    assert (tmp_path / "file").read_text() == "mine"
    assert [n for n in listing(tmp_path) if not n.startswith("cache")] == before  # nothing was begun


def test_a_folder_where_a_file_is_meant(results, made, tmp_path, quick, capsys):
    for suffix in ("csv", "tex", "html", "svg"):
        (tmp_path / f"new.{suffix}").mkdir()
    for arguments in commands(results, made, tmp_path / "new"):
        if arguments[0] in ("leaderboard", "report", "compare"):
            code, text = code_of(arguments, capsys)
            assert code == 2 and "director" in text, text  # click's own words


def test_a_missing_parent_is_made(results, made, tmp_path, capsys):
    for arguments in commands(results, made, tmp_path / "deep" / "er" / "new"):
        if arguments[0] not in ("d3hr-report", "grid", "distill", "backbone"):
            code, text = code_of(arguments, capsys)
            assert code == 0, text
    found = listing(tmp_path / "deep" / "er")
    assert {"new.csv", "new.tex", "new.html", "new.svg", "new/README.md"} <= set(found)
    assert not [n for n in found if ".tmp" in n or n.startswith(".")]


@contextlib.contextmanager
def nobody():
    """Root may write anywhere; nobody may not."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(was)


def test_a_folder_that_may_not_be_written(tmp_path):
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder.name.startswith(("pytest-", "test_")):
            folder.chmod(0o755)
    tmp_path.chmod(0o555)
    try:
        with nobody():
            for use in (
                lambda: outputs.write_text("x", tmp_path / "a.csv", "--out"),
                lambda: outputs.writable_folder(tmp_path, "--out"),
                lambda: outputs.writable_folder(tmp_path / "new", "--out"),
                lambda: outputs.whole_folder(tmp_path / "set", "--out").__enter__(),
            ):
                with pytest.raises(UsageError, match="permission denied") as error:
                    use()
                assert "--out" in str(error.value)
    finally:
        tmp_path.chmod(0o755)
    assert listing(tmp_path) == []


def test_nothing_is_left_of_what_broke(tmp_path):
    (tmp_path / "a.csv").write_text("old")
    with pytest.raises(ZeroDivisionError), outputs.whole_file(tmp_path / "a.csv", "--out") as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), outputs.whole_folder(tmp_path / "set", "--out") as temporary:
        (temporary / "half").write_text("")
        raise ZeroDivisionError
    assert listing(tmp_path) == ["a.csv"] and (tmp_path / "a.csv").read_text() == "old"
    with pytest.raises(JobError, match="no space left"), outputs.whole_file(tmp_path / "a.csv", "--out"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_set_goes_into_the_working_folder_if_it_is_empty(made, tmp_path):
    (tmp_path / "here").mkdir()
    run = [sys.executable, "-c", "from benchmark.cli import main; main()", "export", str(made), "--out", "."]
    done = subprocess.run(run, cwd=tmp_path / "here", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "here" / "README.md").is_file()


def test_plots_are_svg_png_or_pdf(results, tmp_path, capsys):
    code, text = code_of(
        ["compare", "d3hr", "random", "--results", str(results), "--plot", str(tmp_path / "p.xyz")], capsys
    )
    assert code == 2 and ".svg" in text and not (tmp_path / "p.xyz").exists()
