# ruff: noqa: E501 - a table of inputs
"""The table of kinds of the review of November 2026, made again: bad input by kind, how each ended. By hand::

    python tests/faults/kinds.py            all kinds; a line a kind, then every input that ended badly
    python tests/faults/kinds.py --only env --only stdout

Each input has the exit codes that are right for it. A traceback, a hang (over 10 s, on an idle machine), another exit
code, or a file outside the folder is a failure; a refusal that does not name the option, file or value is unclear.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import stat
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "fuzz"), str(HERE.parents[1])]

import fuzz  # noqa: E402
import targets  # noqa: E402
from synthetic import make_record  # noqa: E402

PROGRAM = str(Path(sys.executable).parent / "ddbench")
SMALL = "--dataset digits --ipc 1 --seeds 1 --protocol smoke --device cpu --results r"
RUN = f"run --method random --no-floor {SMALL}"
Case = tuple[str, list[str], tuple[int, ...], str]  # what it is, arguments, right exit codes, word of a clear message


def words(text: str, *more: str) -> list[str]:
    return [*text.split(), *more]


def with_options(base: str, pairs: list[tuple[str, str, str]], codes=(2,)) -> Iterator[Case]:
    for option, value, word in pairs:
        yield f"{option} {value[:40]}", words(base, option, value), codes, word


def names() -> Iterator[Case]:
    base = "plan --no-floor --ipc 1 --seeds 1 --device cpu --results r"
    kinds = {
        "--method": "d3h",
        "--dataset": "digit",
        "--student": "resnet19",
        "--protocol": "harrd",
        "--teacher": "convnet3bn",
    }
    for option, typo in kinds.items():
        for value in (typo, "", "../x", "\x1b[31mx", "x" * 300):
            given = {"--method": "random", "--dataset": "digits"} | {option: value}
            yield (
                f"{option} {value[:12]!r}",
                [*words(base), *(w for kv in given.items() for w in kv)],
                (0, 2) if (option == "--teacher" and value in ("", "../x")) else (2, 3),
                option,
            )
    yield (
        "--backbone tinny",
        words(base, "--method", "d3hr", "--dataset", "digits", "--backbone", "tinny"),
        (2,),
        "tiny",
    )
    yield "--executor locl", words(f"{base} --method random --dataset digits --executor locl"), (2,), "local"
    yield "--precision fp31", words(f"{base} --method random --dataset digits --precision fp31"), (2,), "fp32"
    yield "no command", ["rnu"], (2,), "run"


def ints() -> Iterator[Case]:
    values = ("0", "-1", "x", "1.5", "", "9" * 30, "9" * 5000, "nan")
    for option in ("--seeds", "--ipc", "--jobs", "--time-limit"):
        for value in values:
            codes = (0, 1, 2) if (option, value) in (("--time-limit", "1.5"), ("--ipc", "")) else (2,)
            yield f"{option} {value[:10]}", words(f"{RUN} {option}", value), codes, option


PROTOCOL = [
    "lr=nan",
    "lr=-1",
    "lr=true",
    "lr=x",
    "lr={a:1}",
    "temperature=.inf",
    "temperature=-1",
    "temperature=0",
    "teacher=[1,2]",
    "teacher={a:1}",
    "teacher=",
    "augment=[1,2]",
    "augment=x",
    "augment=[{op:flip,p:.nan}]",
    "augment=[{op:nope}]",
    "accumulate=0",
    "accumulate=-1",
    "label_smoothing=7",
    "betas=3",
    "betas=[1,2,3]",
    "betas=[.nan,1]",
    "mix_probability=5",
    "mix_alpha=-1",
    "ema=2",
    "evaluate_every=-1",
    "epochs=0",
    "epochs=-5",
    "epochs=&a_[*a]",
    "steps=1e3",
    "batch=0",
    "batch_factor={a:1}",
    "milestones=[x]",
    "normalize=x",
    "resolution=1",
    "optimizer=adan",
    "schedule=cos",
    "nope=1",
]


def protocol_set() -> Iterator[Case]:
    for pair in PROTOCOL:
        yield (
            pair,
            words(f"{RUN} --set", f"protocol.{pair.replace('_', ' ', 1) if '&' in pair else pair}"),
            (2,),
            "protocol",
        )


def method_set() -> Iterator[Case]:
    base = f"plan --method d3hr --no-floor {SMALL} --set"
    for pair in ("m=1e308", "m=0", "m=nan", "m=x", "m=9" + "9" * 400, "depth=-1", "keep_depths=[nan]", "nope=1", "=1"):
        yield pair[:20], words(base, pair), (2,), pair.partition("=")[0] or "KEY=VALUE"


def conflict() -> Iterator[Case]:
    yield "--ddp alone", words(f"{RUN} --ddp"), (2,), "--ddp"
    yield "--address with local", words(f"{RUN} --address auto"), (2,), "--address"
    yield "--emit without --jobs", words(f"plan --method random {SMALL} --emit slurm"), (2,), "--jobs"
    yield "two methods to distill", words("distill --method random,kmeans --dataset digits --out d"), (2,), "--method"
    yield "two IPC to distill", words("distill --method random --dataset digits --ipc 1,2 --out d"), (2,), "--ipc"
    yield "--shard 2/2", words("distill --method random --dataset digits --shard 2/2 --out d"), (2,), "--shard"
    yield (
        "ipc too large",
        words("run --method random --no-floor --dataset digits --ipc 5000 --results r --device cpu"),
        (0, 1, 2),
        "",
    )
    yield "backbone for a set", words("evaluate s --backbone tiny --results r"), (2,), "--backbone"
    yield "no dataset", words("run --method random"), (2,), "--dataset"
    yield "--seed in each", words("grid bad.yaml --plan"), (2,), "axis"


def record_crash() -> Iterator[Case]:
    for command in ("leaderboard", "leaderboard --ignore-bad", "report", "compare d3hr random", "scores"):
        ok = (0,) if "ignore" in command else (0, 1, 2, 3)
        yield command, words(f"{command} --results hostile"), ok, "left out" if command != "scores" else ""
    yield "verify", words("results verify hostile"), (1,), "bad"
    yield "add", words("results add hostile --results o"), (3,), "nothing was added"


PICTURES = ("empty", "text", "cut", "eps", "fifo", "folder", "dangling", "long", "gif", "bomb", "device")


def images() -> Iterator[Case]:
    for kind in PICTURES:
        for more in ("", " --on-corrupt skip"):
            base = f"doctor --dataset imagefolder:data-{kind} --full --device cpu{more}"
            yield f"{kind}{more}", words(base), (0, 3), "ready" if more else ""
        yield (
            f"{kind}, released",
            words(
                f"evaluate released-{kind} --dataset digits --ipc 1 --protocol smoke --device cpu --results r --seeds 1"
            ),
            (2, 3),
            "",
        )


def eps() -> Iterator[Case]:
    yield "in a dataset", words("doctor --dataset imagefolder:data-eps --full --device cpu"), (3,), "image"
    yield "as contact sheet", words("report --results sheet"), (0,), ""


def paths() -> Iterator[Case]:
    for option, command in (
        ("--out", "leaderboard --results good"), ("--out", "report --results good"), ("--plot", "compare d3hr random --results good"),
        ("--results", RUN.removesuffix(" --results r")), ("--out", "export s"),
    ):  # fmt: skip
        for value in ("/proc/none/x.svg", "file/x.svg", "", "~nosuchuser/x.svg", "x" * 300 + ".svg"):
            fine = (0, 1) if value.startswith("~") else ()
            yield f"{command[:12]} {option} {value[:12]!r}", words(f"{command} {option}", value), (2, *fine), option
    yield "--data-root ~nosuchuser", words(f"{RUN} --data-root ~nosuchuser"), (2,), "nosuchuser"
    yield "--data-root none", words(f"{RUN} --data-root none"), (3,), "none"


def update() -> Iterator[Case]:
    for name in ("plain", "binary", "latin1", "quote", "option", "empty", "crlf", "link", "bom"):
        codes = (0,) if name in ("crlf", "link", "bom") else (2,)
        yield (
            name,
            words(f"leaderboard --results good --update {name}.md"),
            codes,
            f"{name}.md" if codes == (2,) else "",
        )
    yield "folder", words("leaderboard --results good --update good"), (2,), "--update"
    yield "none", words("leaderboard --results good --update none.md"), (2,), "--update"


def out() -> Iterator[Case]:
    for name in ("fifo-read", "null", "link", "dangling", "hard", "private", "readonly"):
        yield name, words(f"leaderboard --results good --format csv --out o-{name}"), (0,), ""


def filters() -> Iterator[Case]:
    for option, value in (
        ("--method", "d3h"), ("--method", "["), ("--method", "*"), ("--ipc", "x"), ("--ipc", "1,,"), ("--dataset", ""),
        ("--student", "\x00".replace("\x00", "?")), ("--protocol", "soft"), ("--teacher", "*x*"), ("--precision", "bf16"),
        ("--backbone", "**"),
    ):  # fmt: skip
        yield f"{option} {value}", words(f"leaderboard --results good {option}", value), (0, 2), ""


def inject() -> Iterator[Case]:
    for form in targets.FORMS:
        yield form, words(f"leaderboard --results inject --format {form}"), (0,), ""
    yield "compare", words("compare d3hr *<script>* --results inject"), (0, 2), ""
    yield "report", words("report --results inject"), (0,), ""
    yield "verify", words("results verify inject"), (0,), ""
    yield "scores", words("scores --results inject"), (3,), ""


def newest() -> Iterator[Case]:
    """Some classes, one's own named data, variants on boards, pilots, released parquet files and tensors."""
    run = f"run --method random --no-floor {SMALL} --classes"
    for value in ("50", "3,tre", "0", "-3", "1.5", "", "3,3", "1", "0-99", "9" * 30, ",", "3-"):
        yield f"--classes {value[:12]!r}", words(run, value), (2,), "--classes"
    for value in ("pets=/nowhere", "pets=file", "pets=s", "pets=tensors.pt"):
        yield f"--dataset {value}", words(RUN.replace("digits", value)), (3,), value.partition("=")[2]
    for value in ("digits=.", "=x", "pets=", "a!b=.", "pets"):
        yield f"--dataset {value}", words(RUN.replace("digits", value)), (2,), "--dataset"
    for value in ("d3hr:depth=99", "d3hr:nonsense", "d3hr:deph=30", "d3hr:", ":x", "d3hr:depth=[", "x:depth=30"):
        for command in ("leaderboard --results good --method", "compare random --results good"):
            yield f"{command[:11]} {value}", words(command, value), (2, 3), value.partition(":")[0]
    yield "run --method d3hr:m=3", words(RUN.replace("random", "d3hr:m=3")), (2,), "--set d3hr.m=3"
    pilot = f"run --method random --dataset imagenet1k --pilot {SMALL.partition('digits')[2]}"
    yield "--pilot without data", words(pilot), (3,), "1. data"
    yield "plan, too many classes", words("plan --method random --dataset imagenet1k --classes 2000"), (2,), "1000"
    for name in ("soft", "tensors.pt", "fifo-parquet", "file", "nowhere", "bomb.npz", "bomb.pt"):
        yield (
            f"evaluate {name}",
            words(f"evaluate {name} --protocol smoke --seeds 1 --dataset digits --results r --device cpu"),
            (3,),
            name,
        )


HERE_KINDS = {
    "newest": newest,
    "names": names, "ints": ints, "protocol-set": protocol_set, "method-set": method_set, "conflict": conflict,
    "record-crash": record_crash, "images": images, "eps": eps, "paths": paths, "update": update, "out": out,
    "filter": filters, "inject": inject,
}  # fmt: skip


# -- what needs a process of its own ---------------------------------------------------------------------------------


def outside() -> Iterator[tuple[str, str, str, dict, tuple[int, ...]]]:
    """(kind, name, shell line, environment, right exit codes)."""
    board = f"{PROGRAM} leaderboard --results good"
    for name, value in (
        ("HOME", None), ("HOME", ""), ("HOME", "/nonexistent"), ("DDBENCH_CACHE", "file"), ("DDBENCH_CACHE", "~nosuchuser"),
        ("DDBENCH_DATA", "~nosuchuser"), ("COLUMNS", "1"), ("TERM", "nope"), ("TMPDIR", "/nonexistent"), ("DDBENCH_DEBUG", "0"),
        ("PYTHONIOENCODING", "ascii"), ("LANG", "nope"), ("PYTHONWARNINGS", "error"), ("NO_COLOR", "1"), ("TZ", "nope"),
    ):  # fmt: skip
        yield "env", f"{name}={value}", f"{board} && {PROGRAM} status", {name: value}, (0, 2)
    for locale in ("C.UTF-8", "C", "latin1"):
        env = {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "latin-1"} if locale == "latin1" else {"LC_ALL": locale}
        env |= {"PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
        for line in (
            board,
            f"{board} --format markdown",
            f"{board} --update crlf.md",
            f"{PROGRAM} list methods",
            f"{PROGRAM} report --results good",
        ):
            yield "locale", f"{locale}: {line[len(PROGRAM) :]}", line, env, (0,)
    for line in (board, f"{PROGRAM} list methods"):
        for end, codes in (
            ("| head -1; exit ${PIPESTATUS[0]}", (0,)), ("| true; exit ${PIPESTATUS[0]}", (0,)), ("> /dev/full", (1,)), (">&-", (0, 1)),
            ("2>&-", (0,)), ("<&-", (0,)), ("> o.txt 2>&1 < /dev/null", (0,)),
        ):  # fmt: skip
            yield "stdout", f"{line[len(PROGRAM) :]} {end}", f"{line} {end}", {}, codes
    for name in ("benchmark", "click", "json", "torch"):
        yield "shadow", name, f"cd shadow-{name} && {PROGRAM} list methods", {}, (0,)


def prepare(work: Path) -> None:
    """Everything that the inputs above name."""
    import numpy as np
    from PIL import Image

    from benchmark.results.records import write_record

    for folder in ("good", "sheet", "inject"):
        for method in ("d3hr", "random"):
            for seed in range(2):
                write_record(work / folder, make_record(method, seed))
    sheet = make_record("kmeans", 0)
    sheet["artifacts"]["contact_sheet"] = "sets/a.png"
    write_record(work / "sheet", sheet)
    (work / "sheet" / "sets").mkdir()
    (work / "sheet" / "sets" / "a.png").write_bytes(targets.EPS)
    for name in ("=cmd|' /C calc'!A0", "<script>", "![t](http://x)", "a|b", "<!--<script>"):
        write_record(work / "inject", make_record(name, 0))
    rng = random.Random(0)
    for number in range(12):
        record = fuzz.mutate(targets.good_records()[0], rng)
        targets.results_with(targets.resealed(record) if isinstance(record, dict) else record, work / "hostile")
        bad = work / "hostile" / "records" / "bad.json"
        bad.rename(bad.with_name(f"bad{number}.json"))
    (work / "hostile" / "records" / "deep.json").write_text("[" * 200_000)
    os.mkfifo(work / "hostile" / "records" / "fifo.json")
    for name, content in targets.good_set().items():
        (work / "s" / name).parent.mkdir(parents=True, exist_ok=True)
        (work / "s" / name).write_bytes(content)
    (work / "file").write_text("mine")
    newest_files(work)
    (work / "bad.yaml").write_text("axes: {}\neach: {seed: [1]}\n")
    mark = "<!-- ddbench leaderboard {} -->\nold\n<!-- /ddbench -->\n"
    good = mark.format("--protocol clean-hard")
    pages = {
        "plain": b"no marker\n", "binary": bytes(range(256)), "latin1": "naïve\n".encode("latin-1") + good.encode(),
        "quote": mark.format("--method 'x").encode(), "option": mark.format("--nope").encode(), "empty": b"",
        "crlf": good.replace("\n", "\r\n").encode(), "bom": b"\xef\xbb\xbf" + good.encode(), "real": good.encode(),
    }  # fmt: skip
    for name, content in pages.items():
        (work / f"{name}.md").write_bytes(content)
    (work / "link.md").symlink_to("real.md")
    for name in ("benchmark", "click", "json", "torch"):
        (work / f"shadow-{name}" / name).mkdir(parents=True)
        (work / f"shadow-{name}" / name / "__init__.py").write_text("raise SystemExit('shadowed')")
    (work / "o-link").symlink_to("real-out")
    (work / "real-out").write_text("old")
    (work / "o-dangling").symlink_to("new-out")
    (work / "o-hard").write_text("old")
    os.link(work / "o-hard", work / "o-twin")
    (work / "o-private").write_text("old")
    (work / "o-private").chmod(0o600)
    (work / "o-readonly").write_text("old")
    os.mkfifo(work / "o-fifo-read")
    with contextlib.suppress(OSError):  # a null device of our own, never the machine's
        os.mknod(work / "o-null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    for kind in PICTURES:
        for root, places in (
            (work / f"data-{kind}", ("train/a", "train/b", "val/a", "val/b")),
            (work / f"released-{kind}", tuple(f"{c:02d}" for c in range(10))),
        ):
            for place in places:
                (root / place).mkdir(parents=True)
                Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(
                    root / place / "0.png"
                )
            bad = root / places[0] / ("1.png" if "data" in root.name else "0.png")
            bad.unlink(missing_ok=True)
            spoil(bad, kind)


def newest_files(work: Path) -> None:
    """What `newest` names."""
    import zipfile

    for folder in ("soft", "fifo-parquet"):
        (work / folder).mkdir()
    os.mkfifo(work / "tensors.pt")
    os.mkfifo(work / "fifo-parquet" / "train-0.parquet")
    for name in ("bomb.npz", "bomb.pt"):  # 64 GB of zeros say their headers
        with zipfile.ZipFile(work / name, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("images.npy", bytes(1000))
        content = (work / name).read_bytes().replace((1000).to_bytes(4, "little"), (0xFFFFFFF0).to_bytes(4, "little"))
        (work / name).write_bytes(content)
    with contextlib.suppress(ImportError):
        import pyarrow
        import pyarrow.parquet

        rows = {"image": [targets.picture("PNG", "L")] * 10, "label": list(range(10)), "soft_label": [[0.1] * 10] * 10}
        pyarrow.parquet.write_table(pyarrow.table(rows), work / "soft" / "train-0.parquet")


def spoil(file: Path, kind: str) -> None:
    from PIL import Image

    if kind in ("empty", "text", "cut", "eps", "gif"):
        content = {"empty": b"", "text": b"no picture", "cut": targets.picture("PNG", "RGB")[:60], "eps": targets.EPS}
        file.write_bytes(content.get(kind) or (targets.picture("GIF", "P") if kind == "gif" else b""))
    elif kind == "fifo":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    elif kind == "dangling":
        file.symlink_to("nowhere")
    elif kind == "long":
        Image.new("L", (1, 65_000)).save(file)
    elif kind == "bomb":
        Image.new("1", (20_000, 12_000)).save(file)
    else:
        with contextlib.suppress(OSError):
            os.mknod(file, 0o666 | stat.S_IFCHR, os.makedev(1, 5))  # endless zeros


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", default=[])
    only = parser.parse_args().only
    table: dict[str, Counter] = {}
    told: list[str] = []
    with tempfile.TemporaryDirectory(prefix="ddbench-kinds-") as name, fuzz.quiet(Path(name)):
        box = fuzz.Sandbox(Path(name) / "box")
        for kind, cases in HERE_KINDS.items():
            if only and kind not in only:
                continue
            table[kind] = Counter()
            box.clean()
            prepare(box.work)
            box.before = box.outside()
            for what, arguments, codes, word in cases():
                reader = subprocess.Popen(["cat", box.work / "o-fifo-read"], stdout=-3) if what == "fifo-read" else None

                def one(report, rng, work, arguments=arguments):
                    report.command(*arguments)

                report = keep(one, box)
                if reader:
                    reader.kill()
                judge(table[kind], told, f"{kind}: {what}", report, codes, word)
        for kind, what, line, change, codes in outside():
            if only and kind not in only:
                continue
            if kind not in table:
                table[kind] = Counter()
                box.clean()
                prepare(box.work)
            env = {
                k: v
                for k, v in {**os.environ, "DDBENCH_CACHE": str(Path(name) / "c"), **change}.items()
                if v is not None
            }
            report = fuzz.Report()
            try:
                done = subprocess.run(
                    ["bash", "-c", line], cwd=box.work, env=env, capture_output=True, timeout=fuzz.limit()
                )
                report.codes, report.text = [done.returncode], (done.stdout + done.stderr).decode("utf-8", "replace")
                if "Traceback" in report.text:
                    report.faults.append(f"a traceback: {report.text[-600:]}")
            except subprocess.TimeoutExpired:
                report.faults.append("a hang")
            judge(table[kind], told, f"{kind}: {what}", report, codes, "")
    columns = ("tried", "clear", "unclear", "traceback", "hang", "wrong code", "outside")
    print("| kind | " + " | ".join(columns) + " |\n|---|" + "---:|" * len(columns))
    table["**sum**"] = sum(table.values(), Counter())
    for kind, counts in table.items():
        print(f"| {kind} | " + " | ".join(str(counts[c]) for c in columns) + " |")
    print("\n" + "\n".join(told))
    return 1 if any(table["**sum**"][c] for c in columns[3:]) else 0


def keep(one, box: fuzz.Sandbox) -> fuzz.Report:
    """`fuzz.run_case` in a sandbox that stays filled."""
    clean, box.clean = box.clean, lambda: None
    try:
        return fuzz.run_case(one, random.Random(0), box)
    finally:
        box.clean = clean


def judge(counts: Counter, told: list[str], name: str, report: fuzz.Report, codes: tuple[int, ...], word: str) -> None:
    counts["tried"] += 1
    fault = "".join(report.faults)
    code = report.codes[0] if report.codes else None
    if fault:
        how = "hang" if "a hang" in fault else "outside" if "outside its folder" in fault else "traceback"
    elif code not in codes:
        how = "wrong code"
    elif word and code and word.lower() not in report.text.lower():
        how = "unclear"
    else:
        how = "clear"
    counts[how] += 1
    if how != "clear":
        told.append(f"{how}: {name}: exit {code}, right {codes}: {(fault or report.text)[-700:]}")


if __name__ == "__main__":
    sys.exit(main())
