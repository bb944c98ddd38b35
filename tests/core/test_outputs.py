"""Paths that cannot be written, by every command that takes one: exit code 2, a message, nothing half-written."""

import contextlib
import errno
import os
import stat
import subprocess
import sys
import threading
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
        if folder.stat().st_uid == os.getuid() and folder.name.startswith(("pytest-", "popen-", "test_")):
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


@pytest.mark.parametrize("what", ["a record", "a folder"])
def test_what_must_survive_a_power_loss_is_on_the_disk_before_it_takes_its_place(what, tmp_path, monkeypatch):
    """The content before the name points at it, the name after."""
    seen, replace, fsync = [], os.replace, os.fsync
    monkeypatch.setattr(os, "replace", lambda a, b: (seen.append("named"), replace(a, b)))
    monkeypatch.setattr(os, "fsync", lambda d: (seen.append(Path(os.readlink(f"/proc/self/fd/{d}")).name), fsync(d)))
    if what == "a record":
        name = write_record(tmp_path, make_record()).name
        assert seen[-1] == "records" and seen[0].endswith(".json") and seen.index("named") == 1, seen
        assert (tmp_path / "records" / name).is_file()
    else:
        with outputs.whole_folder(tmp_path / "set", "--out") as temporary:
            (temporary / "manifest.json").write_text("{}")
        assert seen[0] == "manifest.json" and seen[-2:] == ["named", tmp_path.name], seen


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


# -- what is at the path already -------------------------------------------------------------------------------------


def written(path, capsys, results, *more):
    """The exit code of a command that writes its board to ``path``, and what it said."""
    return code_of(["leaderboard", "--results", str(results), "--format", "csv", "--out", str(path), *more], capsys)


def test_a_fifo_is_written_to_and_stays_one(results, tmp_path, capsys, monkeypatch):
    fifo = tmp_path / "board.csv"
    os.mkfifo(fifo)
    got = []
    reader = threading.Thread(target=lambda: got.append(fifo.read_text()))
    reader.start()
    code, text = written(fifo, capsys, results)
    reader.join(10)
    assert code == 0 and fifo.is_fifo() and got and got[0].startswith("dataset,"), text
    monkeypatch.setattr(outputs, "READER_SECONDS", 0.2)
    code, text = written(fifo, capsys, results)  # nobody reads: says so, does not wait for ever
    assert code == 2 and "nobody reads" in text and fifo.is_fifo()
    assert [n for n in listing(tmp_path) if ".tmp" in n] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_a_device_survives(results, tmp_path, capsys):
    """Never a device of this machine: a null device of our own."""
    device = tmp_path / "null"
    try:
        os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        device.write_text("")
    except OSError:
        pytest.skip("this file system has no devices")
    before = device.stat()
    for arguments in (
        ["leaderboard", "--results", str(results), "--out", str(device)],
        ["report", "--results", str(results), "--out", str(device)],
    ):
        code, text = code_of(arguments, capsys)
        assert code == 0, text
    after = device.stat()
    assert stat.S_ISCHR(after.st_mode) and (before.st_ino, before.st_mode) == (after.st_ino, after.st_mode)


def test_links_are_followed_and_modes_and_hard_links_kept(results, tmp_path, capsys):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "keep").write_text("old")
    (tmp_path / "real" / "keep").chmod(0o600)
    (tmp_path / "link").symlink_to("real/keep")
    (tmp_path / "dangling").symlink_to("real/new")
    os.link(tmp_path / "real" / "keep", tmp_path / "twin")
    assert written(tmp_path / "link", capsys, results)[0] == 0
    assert written(tmp_path / "dangling", capsys, results)[0] == 0
    keep = tmp_path / "real" / "keep"
    assert (tmp_path / "link").is_symlink() and keep.read_text().startswith("dataset,")
    assert stat.S_IMODE(keep.stat().st_mode) == 0o600 and (tmp_path / "real" / "new").is_file()
    assert (tmp_path / "twin").read_text() == keep.read_text() and keep.stat().st_nlink == 2
    (tmp_path / "twin").unlink()
    assert written(keep, capsys, results)[0] == 0 and stat.S_IMODE(keep.stat().st_mode) == 0o600
    assert sorted(os.listdir(tmp_path / "real")) == ["keep", "new"]


def test_a_file_in_a_folder_that_may_not_be_written(tmp_path):
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder.name.startswith(("pytest-", "popen-", "test_")):
            folder.chmod(0o755)
    file = tmp_path / "shared.csv"
    file.write_text("a long old text")
    file.chmod(0o666)
    tmp_path.chmod(0o555)
    try:
        with nobody():
            outputs.write_text("new", file, "--out")
    finally:
        tmp_path.chmod(0o755)
    assert file.read_text() == "new" and stat.S_IMODE(file.stat().st_mode) == 0o666


def test_a_full_disk_leaves_the_old_text(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("old")
    os.link(tmp_path / "a", tmp_path / "b")  # in place

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(outputs, "_extend", full)
    with pytest.raises(JobError, match="no space left"):
        outputs.write_text("something longer", tmp_path / "a", "--out")
    monkeypatch.setattr(outputs.os, "replace", full)
    (tmp_path / "b").unlink()
    with pytest.raises(JobError, match="no space left"):
        outputs.write_text("something longer", tmp_path / "a", "--out")
    assert (tmp_path / "a").read_text() == "old" and listing(tmp_path) == ["a"]


def test_an_open_descriptor_is_written_to(results, tmp_path):
    command = [str(Path(sys.executable).parent / "ddbench"), "leaderboard", "--results", str(results)]
    with open(tmp_path / "all.txt", "w") as out:
        done = subprocess.run([*command, "--format", "csv", "--out", "/dev/stdout"], stdout=out, stderr=-1, text=True)
    text = (tmp_path / "all.txt").read_text()
    assert done.returncode == 0 and text.startswith("dataset,") and "rows written to /dev/stdout" in text, done.stderr
    piped = subprocess.run([*command, "--format", "csv", "--out", "/dev/stdout"], capture_output=True, text=True)
    assert piped.stdout == text and Path("/dev/stdout").exists()


def test_what_is_written_in_a_results_folder_does_not_follow_its_links(results, tmp_path, capsys):
    (tmp_path / "mine").write_text("mine")
    for name, command in (("leaderboard.csv", ["leaderboard"]), ("report.html", ["report"])):
        (results / name).unlink(missing_ok=True)
        (results / name).symlink_to(tmp_path / "mine")
        code, text = code_of([*command, "--results", str(results)], capsys)
        assert code == 3 and "is a link" in text, text
        (results / name).unlink()
    assert (tmp_path / "mine").read_text() == "mine"


MARKER = "naïve ±{e}<!-- ddbench leaderboard --protocol clean-hard -->{e}old{e}<!-- /ddbench -->{e}after{e}"


@pytest.mark.parametrize("end, locale", [("\n", "C"), ("\r\n", "C.UTF-8")])
def test_a_document_keeps_its_bytes_outside_the_table(results, tmp_path, end, locale):
    (tmp_path / "real.md").write_bytes(MARKER.format(e=end).encode())
    (tmp_path / "page.md").symlink_to("real.md")
    run = [str(Path(sys.executable).parent / "ddbench"), "leaderboard", "--results", str(results), "--update"]
    run += [str(tmp_path / "page.md")]
    env = {**os.environ, "LC_ALL": locale, "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run(run, capture_output=True, env=env)
    assert done.returncode == 0, done.stderr
    content = (tmp_path / "real.md").read_bytes()
    assert (tmp_path / "page.md").is_symlink()
    assert content.startswith(f"naïve ±{end}".encode()) and content.endswith(f"after{end}".encode())
    assert "mean ± 95 %".encode() in content and content.count(b"\n") == content.count(end.encode())


def test_documents_that_cannot_be_refreshed_say_why(results, tmp_path, capsys):
    page = tmp_path / "page.md"
    for content, words in (
        (b"\xff\xfe\x00binary", ("not UTF-8", "--update")),
        (MARKER.format(e="\n").replace("--protocol", "'--protocol").encode(), ("line 2", "quotation")),
        (MARKER.format(e="\n").replace("--protocol", "--protokoll").encode(), ("line 2", "--protokoll")),
    ):
        page.write_bytes(content)
        code, text = code_of(["leaderboard", "--results", str(results), "--update", str(page)], capsys)
        assert code == 2 and all(word in text for word in words), text
        assert page.read_bytes() == content
