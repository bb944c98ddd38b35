"""A seeded fuzzer of what strangers hand to ddbench: records, manifests, YAML, documents, pictures, command lines.

By hand, for as long as wanted::

    python tests/fuzz/fuzz.py --minutes 60 --seed 1
    python tests/fuzz/fuzz.py --seed 1 --only records --case 4711      one case again, with its traceback

A case fails where the command ends with something that nobody foresaw (a traceback for a user), takes over `SECONDS`,
answers with an exit code other than 0 to 3, writes outside the folder that it was given, or where what
`results verify` calls good cannot be shown. Everything happens in this process, in a folder of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import hashlib
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1])]

SECONDS = 10
NASTY = (
    None, True, False, 0, -1, 1, 2**31, 10**17, 10**30, 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf"), "",
    " ", "\x00", "\x1b]0;title\x07", "\x1b[2J", "\u202egnp", "<!--<script>", "</script><script>fetch('http://x')",
    "<img src=http://x onerror=alert(1)>", "=cmd|' /C calc'!A0", "@SUM(1)", "-2+3", "![t](http://x/y.png)", "a|b`c`",
    "[a]: http://x", "\\input{/etc/passwd}", "../../OWNED", "/etc/passwd", "..", "a/../b", "con\tnul\r\n", "\ud800",
    "x" * 5000, "é ± 漢字 🙂", "nan", "1e5", "&a [*a]", "{a: 1}", "[1,", "!!python/object/apply:os.system [id]", "~",
    [], {}, [[]], [None], [1, "a"], {"": 1}, {"a": {"b": []}}, "9" * 5000,
)  # fmt: skip


class Hang(BaseException):
    """A case took too long."""


def deep(levels: int, leaf=1):
    """A list in a list in a list …"""
    for _ in range(levels):
        leaf = [leaf]
    return leaf


def nasty(rng: random.Random):
    if rng.random() < 0.05:
        return deep(rng.choice((30, 45, 300)))
    return copy.deepcopy(rng.choice(NASTY))


def places(document, path=()):
    """Every path in a JSON document, containers too."""
    yield path
    if isinstance(document, dict):
        for key in list(document):
            yield from places(document[key], (*path, key))
    elif isinstance(document, list):
        for index in range(min(len(document), 5)):
            yield from places(document[index], (*path, index))


def mutate(document, rng: random.Random, times: int | None = None):
    """A copy of a JSON document with a few values replaced, removed, renamed or added."""
    document = copy.deepcopy(document)
    for _ in range(times or rng.choice((1, 1, 1, 2, 4))):
        *parents, last = rng.choice([p for p in places(document) if p] or [("",)])
        parent = document
        for step in parents:
            parent = parent[step]
        if not isinstance(parent, (dict, list)) or (isinstance(parent, list) and not isinstance(last, int)):
            continue
        kind = rng.random()
        if kind < 0.65:
            parent[last] = nasty(rng)
        elif kind < 0.8:
            del parent[last]
        elif isinstance(parent, dict):
            value = parent.pop(last) if rng.random() < 0.5 else nasty(rng)
            key = nasty(rng)
            parent[key if isinstance(key, str) else "new"] = value
    return document


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """Flipped, cut, doubled or inserted bytes."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 2, 8))):
        at = rng.randrange(len(data) + 1)
        kind = rng.random()
        if kind < 0.4 and data:
            data[at % len(data)] = rng.randrange(256)
        elif kind < 0.6:
            del data[at:]
        elif kind < 0.8:
            data[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 9)))
        else:
            data[at:at] = data[: rng.randrange(64)]
    return bytes(data)


# -- running one case ------------------------------------------------------------------------------------------------


class Sandbox:
    """A folder ``work`` that a case may write in, and canaries beside it that must stay as they are."""

    def __init__(self, root: Path) -> None:
        self.root, self.work = root, root / "deep" / "er" / "work"
        self.work.mkdir(parents=True)
        for folder in (root, root / "deep", root / "deep" / "er"):
            (folder / "canary").write_text("mine")
            (folder / "secret.png").write_text("secret")
        self.before = self.outside()

    def outside(self) -> dict[str, str]:
        found = {}
        for folder, folders, names in os.walk(self.root):
            folders[:] = [f for f in folders if Path(folder) / f != self.work]
            for name in (*names, *folders):
                path = Path(folder) / name
                content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
                found[str(path)] = hashlib.sha256(content).hexdigest()
        return found

    def clean(self) -> None:
        for entry in self.work.iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


class Report:
    """What a case did: exit codes, the text that it printed, what was not foreseen."""

    def __init__(self) -> None:
        self.codes: list[int] = []
        self.faults: list[str] = []
        self.text = ""

    def command(self, *arguments) -> int:
        """Run the command line in this process; its exit code."""
        from benchmark import cli
        from benchmark.cli import console

        def unexpected(error, debug, where=""):
            self.faults.append("".join(traceback.format_exception(error)))

        out, before = io.StringIO(), console.unexpected
        console.unexpected = unexpected
        code = -1
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
                cli.main([str(a) for a in arguments])
        except SystemExit as error:
            code = error.code
        finally:
            console.unexpected = before
        self.text = out.getvalue()
        self.codes.append(code)
        if code not in (0, 1, 2, 3):
            self.faults.append(f"exit code {code}: {arguments}")
        if "Traceback" in self.text:
            self.faults.append(f"a traceback: {self.text[-500:]}")
        return code

    def call(self, function: Callable, *arguments):
        """Call a function that may raise a `DDBenchError` and nothing else; what it returned, or None."""
        from benchmark.core.errors import DDBenchError

        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                found = function(*arguments)
            self.codes.append(0)
            return found
        except DDBenchError as error:
            self.codes.append(error.exit_code)
            str(error).encode("utf-8", "backslashreplace")
        except Exception:  # noqa: BLE001 - that is what is looked for
            self.faults.append(traceback.format_exc())
        return None


def limit() -> int:
    """Seconds that a case may take: more where other work has the machine."""
    busy = os.getloadavg()[0] / len(os.sched_getaffinity(0))
    return SECONDS if busy < 2 else 6 * SECONDS


def run_case(target: Callable, rng: random.Random, box: Sandbox) -> Report:
    """One case, stopped after `SECONDS`."""
    report = Report()

    def ring(*_):
        raise Hang

    box.clean()
    old = signal.signal(signal.SIGALRM, ring)
    here = os.getcwd()
    os.chdir(box.work)
    signal.alarm(limit())
    try:
        target(report, rng, box.work)
    except Hang:
        report.faults.append(f"a hang of over {limit()} s:\n{traceback.format_exc()[-1500:]}")
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)
        os.chdir(here)
    after = box.outside()
    if after != box.before:
        changed = sorted(set(after.items()) ^ set(box.before.items()))
        report.faults.append(f"written outside its folder: {changed}")
        box.before = after
    return report


def run(seed: int, seconds: float, only: tuple[str, ...] = (), cases: int | None = None) -> tuple[Counter, list[str]]:
    """Cases of all targets in turn until the time is over: how many of each, and the faults."""
    from targets import TARGETS

    names = [name for name in TARGETS if not only or name in only]
    counts: Counter = Counter()
    faults: list[str] = []
    end, number = time.monotonic() + seconds, 0
    with tempfile.TemporaryDirectory(prefix="ddbench-fuzz-") as folder, quiet(Path(folder)):
        box = Sandbox(Path(folder) / "box")
        while time.monotonic() < end and (cases is None or number < cases * len(names)):
            name = names[number % len(names)]
            report = run_case(TARGETS[name], random.Random(f"{seed} {name} {number}"), box)
            counts[name] += 1
            counts.update(f"exit {code}" for code in report.codes)
            faults += [f"--seed {seed} --only {name} --case {number}\n{fault}" for fault in report.faults]
            number += 1
    return counts, faults


@contextlib.contextmanager
def quiet(folder: Path):
    """A store of its own, no progress bars, no training: commands end where their work would begin."""
    import targets
    import torch  # noqa: F401 - here, not in the first case

    import benchmark.pipeline.run
    from benchmark.plugins import registry

    for form in ("PNG", "JPEG", "BMP", "WEBP", "PPM", "TIFF", "GIF"):
        targets.picture(form, "L")
    targets.good_set(), targets.good_records(), targets.protocol_documents()
    for name in ("random", "kmeans", "d3hr"):
        registry().get("method", name).load()
    kept = {name: os.environ.get(name) for name in ("DDBENCH_CACHE", "DDBENCH_PROGRESS", "DDBENCH_DEBUG")}
    os.environ["DDBENCH_CACHE"], os.environ["DDBENCH_PROGRESS"] = str(folder / "cache"), "0"
    before, benchmark.pipeline.run.run_plan = benchmark.pipeline.run.run_plan, lambda *_, **__: {}
    try:
        yield
    finally:
        benchmark.pipeline.run.run_plan = before
        for name, value in kept.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--case", type=int, help="only this case of the one target of --only")
    given = parser.parse_args()
    if given.case is not None:
        from targets import TARGETS

        name = given.only[0]
        with tempfile.TemporaryDirectory() as folder, quiet(Path(folder)):
            rng = random.Random(f"{given.seed} {name} {given.case}")
            report = run_case(TARGETS[name], rng, Sandbox(Path(folder) / "box"))
        print(report.codes, report.text[-3000:], *report.faults, sep="\n")
        return 1 if report.faults else 0
    counts, faults = run(given.seed, 60 * given.minutes, tuple(given.only))
    print("\n\n".join(faults[:50]))
    print(f"{len(faults)} faults; " + ", ".join(f"{name} {n}" for name, n in sorted(counts.items())))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
