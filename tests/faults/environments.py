"""The main commands in every environment: as root and as an ordinary user, in UTF-8, Latin-1 and C locales, on a
terminal, a pipe and a closed pipe. By hand::

    python tests/faults/environments.py            everything; a line a command, then what ended badly
    python tests/faults/environments.py --only report --only list

A case fails with a traceback, another exit code than 0, after `SECONDS`, where its text lacks what it should say, and
where the command's work is not done: output that nobody reads stops nothing. Root's cases also run as user 65534, which
may read everything (``setpriv`` of util-linux; the interpreter may lie in root's home) and write its own folder only.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pty
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]

SECONDS = 300
NOBODY = 65534
PROGRAM = str(Path(sys.executable).parent / "ddbench")
CELL = "--method random --no-floor --dataset digits --ipc 1 --seeds 1 --protocol smoke --device cpu"
LOCALES = {
    "UTF-8": {"LC_ALL": "C.UTF-8"},
    "Latin-1": {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "iso-8859-1"},  # or a real locale: `compile_latin`
    "C": {"LC_ALL": "C"},
}
OUTPUTS = ("terminal", "pipe", "closed pipe")
NAME = "naïve ≈ 漢字 🙂"  # of a method; what a terminal cannot show becomes ?


class Command(NamedTuple):
    """Arguments, a word of what it prints, and whether its work is done, given the folder in which it ran."""

    arguments: str
    word: str
    done: Callable[[Path], bool] = lambda folder: True


def _has_record(folder: Path) -> bool:
    return len(list((folder / "made" / "records").glob("*.json"))) == 1 and (folder / "made/leaderboard.csv").is_file()


COMMANDS = {
    "list": Command("list methods", "random"),
    "plan": Command(f"plan {CELL} --results made", "1 cached"),
    "run": Command(f"run {CELL} --results made --jobs 1", "random", _has_record),
    "leaderboard": Command("leaderboard --results results", "ve "),
    "update": Command(
        "leaderboard --results results --update page.md",
        "1 table",
        lambda folder: (
            (folder / "page.md").read_bytes().startswith("naïve ±\n".encode())
            and NAME.encode() in (folder / "page.md").read_bytes()
        ),
    ),
    "report": Command(
        "report --results results --out page.html",
        "page.html",
        lambda folder: NAME in (folder / "page.html").read_text("utf-8"),
    ),
    "results verify": Command("results verify results", "good"),
    "doctor": Command("doctor --dataset digits --device cpu", "digits"),
}


class Ended(NamedTuple):
    """How a command ended; None: it was stopped after `SECONDS`."""

    code: int | None
    text: str


def compile_latin(folder: Path) -> bool:
    """Make a Latin-1 locale, which few systems have, in ``folder`` for the cases to come; False: only the streams are
    Latin-1, not the names of files."""
    name = "en_US.ISO-8859-1"
    if shutil.which("localedef"):
        subprocess.run(["localedef", "-i", "en_US", "-f", "ISO-8859-1", folder / name], capture_output=True)
    if (folder / name).is_dir():
        LOCALES["Latin-1"] = {"LC_ALL": name, "LOCPATH": str(folder)}
    return (folder / name).is_dir()


def prepare(folder: Path, store: Path | None) -> None:
    """Records, a document, and the store ``store`` with the teacher of digits."""
    from synthetic import make_record

    from benchmark.results.records import write_record

    for method in ("d3hr", "random", NAME):
        for seed in range(2):
            write_record(folder / "results", make_record(method, seed), durable=False)
    marker = "naïve ±\n<!-- ddbench leaderboard -->\nold\n<!-- /ddbench -->\n"
    (folder / "page.md").write_text(marker, encoding="utf-8")
    if store is not None:
        shutil.copytree(store, folder / "store")


def run(command: str, folder: Path, locale: str, output: str, user: int | None = None) -> Ended:
    """Run a command of `COMMANDS` in ``folder``."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHONIO"))}
    env |= {"HOME": str(folder), "DDBENCH_CACHE": str(folder / "store"), "PYTHONUTF8": "0"}
    env |= {"PYTHONCOERCECLOCALE": "0", "TMPDIR": str(folder), "OMP_NUM_THREADS": "1", **LOCALES[locale]}
    env["PYTHONPATH"] = os.pathsep.join([str(HERE.parents[1]), env.get("PYTHONPATH", "")])
    words = [PROGRAM, *COMMANDS[command].arguments.split()]
    if user is not None:
        drop = [f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        words = ["setpriv", *drop, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", *words]
    mine, theirs = pty.openpty() if output == "terminal" else os.pipe()
    process = subprocess.Popen(words, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs)
    os.close(theirs)
    text: list[bytes] = []
    reader = threading.Thread(target=_read, args=(mine, text))
    if output == "closed pipe":
        os.close(mine)
    else:
        reader.start()
    try:
        code: int | None = process.wait(SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        code = None
    if output != "closed pipe":
        reader.join(10)
        os.close(mine)
    return Ended(code, b"".join(text).decode("utf-8", "replace"))


def _read(descriptor: int, text: list[bytes]) -> None:
    with contextlib.suppress(OSError):  # a terminal whose last writer has gone
        while part := os.read(descriptor, 65536):
            text.append(part)


def faults(command: str, folder: Path, output: str, ended: Ended) -> list[str]:
    """What is wrong with how a command ended."""
    if ended.code is None:
        return [f"a hang of over {SECONDS} s"]
    found = [f"exit code {ended.code}"] if ended.code else []
    found += ["a traceback"] if "Traceback" in ended.text else []
    if output != "closed pipe" and COMMANDS[command].word not in ended.text:
        found.append(f"does not say {COMMANDS[command].word!r}")
    if not ended.code and not COMMANDS[command].done(folder):
        found.append("its work is not done")
    if left := [p.name for p in folder.rglob("*.tmp*")]:
        found.append(f"left behind: {left}")
    return found


def one(case: tuple[str, str, str, int | None], root: Path, store: Path | None) -> list[str]:
    """Run one case in a folder of its own; its faults."""
    command, locale, output, user = case
    folder = root / "-".join(map(str, case)).replace(" ", "_")
    folder.mkdir()
    prepare(folder, store if command in ("plan", "run", "doctor") else None)
    if user is not None:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, user, user)
    ended = run(command, folder, locale, output, user)
    found = faults(command, folder, output, ended)
    shutil.rmtree(folder, ignore_errors=True)
    return [f"{fault}: {ended.text[-600:]}" for fault in found]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", default=[], choices=COMMANDS)
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    users = [None, NOBODY] if os.geteuid() == 0 and shutil.which("setpriv") else [None]
    cases = [
        (command, locale, output, user)
        for command in given.only or COMMANDS
        for user in users
        for locale in LOCALES
        for output in OUTPUTS
    ]
    with tempfile.TemporaryDirectory(prefix="ddbench-environments-") as name, ThreadPoolExecutor(given.jobs) as pool:
        root = Path(name)
        root.chmod(0o755)
        (root / "locales").mkdir()
        print("Latin-1:", "a locale" if compile_latin(root / "locales") else "of the streams alone")
        (root / "first").mkdir()
        prepare(root / "first", None)
        assert run("run", root / "first", "UTF-8", "pipe").code == 0, "the undisturbed run failed"
        store = root / "store"
        shutil.copytree(root / "first" / "store" / "artifacts" / "teacher", store / "artifacts" / "teacher")
        found = list(pool.map(lambda case: one(case, root, store), cases))
    tried, bad = Counter(case[0] for case in cases), Counter(case[0] for case, f in zip(cases, found) if f)
    print("| command | tried | failed |\n|---|---:|---:|")
    for command in tried:
        print(f"| {command} | {tried[command]} | {bad[command]} |")
    print(f"| **sum** | {len(cases)} | {sum(bad.values())} |\n")
    who = {None: "root" if os.geteuid() == 0 else "user", NOBODY: "user"}
    for (command, locale, output, user), faulty in zip(cases, found):
        for fault in faulty:
            print(f"{command}, {who[user]}, {locale}, {output}: {fault}\n")
    return 1 if any(found) else 0


if __name__ == "__main__":
    sys.exit(main())
