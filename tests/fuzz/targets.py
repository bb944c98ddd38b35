"""What the fuzzer attacks: each target makes one hostile thing and hands it to the commands that would read it."""

from __future__ import annotations

import io
import json
import os
import random
from functools import lru_cache
from pathlib import Path

import numpy as np
from fuzz import NASTY, Report, mutate, mutate_bytes, nasty
from PIL import Image
from synthetic import make_record

FORMS = ("table", "csv", "markdown", "latex", "json", "html")


def text_of(value) -> str:
    """A value as somebody would type it, without what no command line can hold."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text.replace("\x00", "").encode("utf-8", "replace").decode()


# -- records ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def good_records() -> tuple[dict, ...]:
    from benchmark.results.records.files import sealed

    teacher = {"name": "convnet3_bn", "key": "b" * 64}
    made = [make_record(m, seed, teacher=teacher) for m in ("d3hr", "random") for seed in range(2)]
    made[0]["artifacts"] = {
        "contact_sheet": "sets/a.png",
        "tuning": {"on": "digits@val", "protocol": "hard", "student": "convnet3", "seeds": 3, "trials": 6, "top1": 1.0},
    }
    made[0]["identity"]["method"]["inputs"] = {"teacher": teacher}
    made[0]["provenance"]["hardware"] = {"cpu": "x", "cpus": 2}
    return tuple(sealed(record) for record in made)


def write(folder: Path, name: str, document) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(document), encoding="utf-8")
    return folder / name


def results_with(bad, folder: Path) -> Path:
    """A results folder of good records and one more file."""
    for i, record in enumerate(good_records()[1:]):
        write(folder / "records", f"good{i}.json", record)
    if isinstance(bad, bytes):
        (folder / "records" / "bad.json").write_bytes(bad)
    else:
        write(folder / "records", "bad.json", bad)
    return folder


def resealed(record):
    """The record with the id and the digest that belong to it, where it can have them."""
    from benchmark.results.records.schema import record_id, seal

    try:
        return record | {"id": record_id(record["identity"]), "digest": seal(record)}
    except (KeyError, TypeError, ValueError, RecursionError):
        return record


def records(report: Report, rng: random.Random, work: Path) -> None:
    record = mutate(good_records()[0], rng)
    if isinstance(record, dict) and rng.random() < 0.85:
        record = resealed(record)
    content = mutate_bytes(json.dumps(record).encode(), rng) if rng.random() < 0.15 else record
    results = results_with(content, work / "r")
    good = report.command("results", "verify", results) == 0
    shown = [
        report.command("leaderboard", "--results", results, "--format", rng.choice(FORMS)),
        report.command("report", "--results", results),
        report.command(
            "compare", "d3hr", "random", "--results", results, "--format", rng.choice(("table", "markdown"))
        ),
        report.command("results", "add", results, "--results", work / "ours"),
    ]
    if good and (any(shown[:2]) or shown[3]):
        report.faults.append(f"verified, yet exit codes {shown}: {report.text[-400:]}\n{json.dumps(record)[:3000]}")
    if not good and (work / "ours").exists():
        report.faults.append(f"a bad record was added: {json.dumps(record)[:3000]}")


# -- sets ------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def good_set() -> dict[str, bytes]:
    """The files of a distilled set of digits: relative name to content."""
    import tempfile

    from benchmark.data import load_dataset
    from benchmark.sets.folder import write_set

    images = [(c, 0, np.full((8, 8, 1), 20 * c, np.uint8)) for c in range(10)]
    meta = {"method": {"name": "d3hr", "version": 1, "params": {"depth": 30}}, "seed": 0, "ddbench": "0.1"}
    meta |= {"backbone": {"name": "tiny", "key": "a" * 64}, "cost": {"seconds": 1.5, "device": "cpu"}}
    with tempfile.TemporaryDirectory() as folder:
        write_set(Path(folder), load_dataset("digits"), 1, images, meta)
        return {str(p.relative_to(folder)): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def manifests(report: Report, rng: random.Random, work: Path) -> None:
    from benchmark.data import load_dataset
    from benchmark.sets.given import describe_set, open_set

    folder = work / "ship" / "set"
    for name, content in good_set().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    manifest = json.loads(good_set()["manifest.json"])
    kind = rng.random()
    victim = rng.choice([n for n in good_set() if n != "manifest.json"])
    if kind < 0.3:
        import hashlib

        payload = b"payload\n"
        depth = rng.randrange(1, 6)
        name = rng.choice(("../" * depth + "OWNED", "/tmp/ddbench-fuzz-OWNED", f"{manifest['folders'][0]}/../../OWNED"))
        manifest["files"][name] = hashlib.sha256(payload).hexdigest()
        goal = (folder / name).resolve()
        if goal.is_relative_to(work):
            goal.write_bytes(payload)
    elif kind < 0.5:
        (folder / victim).unlink()
        if rng.random() < 0.5:
            (folder / victim).symlink_to(work.parent / "secret.png")
        else:
            os.mkfifo(folder / victim)
    elif kind < 0.6:
        (folder / victim).write_bytes(mutate_bytes(good_set()[victim], rng))
    else:
        manifest = mutate(manifest, rng)
    text = json.dumps(manifest).encode()
    (folder / "manifest.json").write_bytes(mutate_bytes(text, rng) if rng.random() < 0.1 else text)
    report.command("export", folder, "--out", work / "out" / "exported")
    for file in (work / "out").rglob("*") if (work / "out").exists() else ():
        if file.is_symlink() or (file.is_file() and b"secret" in file.read_bytes()):
            report.faults.append(f"the secret was exported: {file}")
    report.call(describe_set, folder)
    report.call(open_set, folder, load_dataset("digits"))


# -- settings --------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def protocol_documents() -> dict[str, dict]:
    import yaml

    import benchmark.evaluation.protocols as package

    return {f.stem: yaml.safe_load(f.read_text()) for f in Path(package.__file__).parent.glob("*.yaml")}


def protocols(report: Report, rng: random.Random, work: Path) -> None:
    from benchmark.core.foreign import parse_yaml
    from benchmark.evaluation.protocols import load_protocol, parse

    documents = protocol_documents()
    name = rng.choice(sorted(documents))
    field = rng.choice(sorted(set(documents["rded-paper"]) | set(documents["dc"])))
    report.call(load_protocol, name, {field: text_of(nasty(rng)) if rng.random() < 0.7 else nasty(rng)})
    document = mutate(documents[name], rng)
    found = report.call(parse, document, "fuzz")
    if found is not None:
        report.call(lambda: (found.digest, found.batch_size(10, 10, 100), found.length(1, 10, 10), found.rate("")))
    report.call(parse_yaml, mutate_bytes(json.dumps(document).encode(), rng).decode("utf-8", "replace"))


GRID = {
    "name": "g", "summary": "s", "mode": "product", "base": {"dataset": "digits", "method": "random", "ipc": 1},
    "axes": {"ipc": [1, 2], "protocol": ["hard", "soft"], "protocol.steps": [2, 3]}, "include": [{"ipc": 3}],
    "exclude": [{"ipc": 2, "protocol": "soft"}], "beside": ["kmeans"],
}  # fmt: skip


def grids(report: Report, rng: random.Random, work: Path) -> None:
    import yaml

    from benchmark.studies.expand import expand, request_of
    from benchmark.studies.spec import read_grid

    document = mutate(GRID, rng)
    text = yaml.safe_dump(document, allow_unicode=True).encode("utf-8", "surrogatepass")
    (work / "g.yaml").write_bytes(mutate_bytes(text, rng) if rng.random() < 0.3 else text)

    def use():
        grid = read_grid(str(work / "g.yaml"))
        for cell in expand(grid)[:3]:
            request_of(cell, grid)

    report.call(use)


def markers(report: Report, rng: random.Random, work: Path) -> None:
    results_with(good_records()[0], work / "r")
    option = rng.choice(("--dataset digits", "--protocol", "--ipc 1", "--results r", "d3hr random", "--format csv"))
    option = text_of(nasty(rng)).replace("\n", " ") if rng.random() < 0.4 else option
    command = rng.choice(("leaderboard", "compare", "leaderboard --dataset digits", "run"))
    end = rng.choice(("\n", "\r\n", "\r"))
    text = f"# T{end}<!-- ddbench {command} {option} -->{end}old{end}<!-- /ddbench -->{end}"
    content = text.encode("utf-8", "replace")
    (work / "page.md").write_bytes(mutate_bytes(content, rng) if rng.random() < 0.5 else content)
    report.command("leaderboard", "--results", work / "r", "--update", work / "page.md")


# -- pictures --------------------------------------------------------------------------------------------------------

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(x) show\n%%EOF\n"


@lru_cache(maxsize=32)
def picture(kind: str, mode: str) -> bytes:
    array = np.random.default_rng(0).integers(0, 255, (24, 20, 4), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(array).convert(mode).save(out, kind)
    return out.getvalue()


def pictures(report: Report, rng: random.Random, work: Path) -> None:
    from benchmark.data.decode import header, open_image
    from benchmark.data.trees import tree_indexes
    from benchmark.sets.folder import read_png

    kinds = (("PNG", "RGB"), ("PNG", "P"), ("PNG", "LA"), ("JPEG", "L"), ("BMP", "RGB"), ("WEBP", "RGBA"), ("PPM", "L"))
    kinds += (("TIFF", "RGB"), ("GIF", "P"), ("PNG", "I;16"), ("JPEG", "CMYK"))
    kind, mode = rng.choice(kinds)
    base = work / "data"
    for part in ("train", "val"):
        for name in ("a", "b"):
            (base / part / name).mkdir(parents=True)
            (base / part / name / "0.png").write_bytes(picture("PNG", "RGB"))
    file = base / "train" / "a" / "1.png"
    what = rng.random()
    if what < 0.7:
        file.write_bytes(mutate_bytes(picture(kind, mode), rng))
    elif what < 0.8:
        file.write_bytes(EPS)
    elif what < 0.85:
        os.mkfifo(file)
    elif what < 0.9:
        file.mkdir()
    elif what < 0.95:
        file.symlink_to("nowhere")
    else:
        Image.new("L", (rng.choice((1, 3)), 60_000)).save(file)
    report.call(open_image, file, None, 224)
    report.call(header, file)
    report.call(read_png, file, 3)
    report.call(tree_indexes, base)
    if rng.random() < 0.05:
        skip = rng.choice((["--on-corrupt", "skip"], []))
        report.command("doctor", "--dataset", f"imagefolder:{base}", "--full", "--device", "cpu", *skip)


# -- archives and tables ---------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def good_archives() -> dict[str, bytes]:
    """Sets and data in one file each: name to content."""
    import gzip
    import tarfile
    import zipfile

    import torch

    pixels, labels = np.zeros((10, 8, 8), np.uint8), np.arange(10)
    found = {"table.csv": b"path,label\n" + b"".join(b"a/%d.png,%d\n" % (i, i) for i in range(10))}
    found["table.jsonl"] = b"".join(b'{"file_name": "%d.png", "label": "%d"}\n' % (i, i) for i in range(10))
    found["train-images-idx3-ubyte.gz"] = gzip.compress(b"\0\0\x08\x03\0\0\0\x0a\0\0\0\x08\0\0\0\x08" + bytes(640))
    out = io.BytesIO()
    np.savez_compressed(out, train_images=pixels, train_labels=labels, test_images=pixels, test_labels=labels)
    found["data.npz"] = out.getvalue()
    out = io.BytesIO()
    np.savez(out, images=pixels[:, None], labels=labels)
    found["set.npz"] = out.getvalue()
    out = io.BytesIO()
    torch.save({"images": torch.from_numpy(pixels[:, None]), "labels": torch.from_numpy(labels)}, out)
    found["set.pt"] = out.getvalue()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:") as tar:
        for i in range(10):
            for suffix, content in (("png", picture("PNG", "L")), ("cls", b"%d" % i)):
                info = tarfile.TarInfo(f"{i}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    found["train-0.tar"] = out.getvalue()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in good_set().items():
            archive.writestr(name, content)
    found["set.zip"] = out.getvalue()
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        return found
    out = io.BytesIO()
    rows = {"image": [picture("PNG", "L")] * 10, "label": list(range(10))}
    pyarrow.parquet.write_table(pyarrow.table(rows), out)
    return {**found, "train-0.parquet": out.getvalue()}


def mutate_inside(content: bytes, rng: random.Random) -> bytes:
    """A member of a zip, or the content of a gzip file, mutated, with the right checksum; other files' bytes."""
    import gzip
    import zipfile

    if content[:2] == b"\x1f\x8b":
        return gzip.compress(mutate_bytes(gzip.decompress(content), rng))
    if content[:2] != b"PK":
        return mutate_bytes(content, rng)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    victim, out = rng.choice(sorted(members)), io.BytesIO()
    members[victim] = mutate_bytes(members[victim][: 10 ** rng.choice((2, 9))], rng)
    with zipfile.ZipFile(out, "w") as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return out.getvalue()


def archives(report: Report, rng: random.Random, work: Path) -> None:
    from benchmark.data import load_dataset
    from benchmark.data.arrays import load_npz
    from benchmark.data.idx import read_idx
    from benchmark.data.listed import read_table
    from benchmark.data.packed import read_index
    from benchmark.sets.given import open_set
    from benchmark.teachers.external import read_weights

    name = rng.choice(sorted(good_archives()))
    file, digits = work / name, load_dataset("digits")
    inside = rng.random() < 0.5
    file.write_bytes((mutate_inside if inside else mutate_bytes)(good_archives()[name], rng))
    if name.startswith("table"):
        report.call(read_table, file)
    elif name.endswith("ubyte.gz"):
        report.call(read_idx, work, "train-images-idx3-ubyte")
    elif name == "data.npz":
        report.call(load_npz, "data", file)
    elif name.startswith("train"):
        index = report.call(read_index, [file], lambda labels, names: np.zeros(len(labels), np.int64))
        if index is not None and len(index):
            report.call(index.image, 0, "RGB")
    else:
        report.call(open_set, file, digits)
        if name == "set.pt":
            report.call(read_weights, file)


# -- command lines ---------------------------------------------------------------------------------------------------

LINES = (
    "list methods", "list", "show method d3hr", "show protocol hard", "show dataset digits", "plugins", "status",
    "leaderboard --results r", "leaderboard --results r --format csv --out o.csv", "report --results r --out o.html",
    "compare d3hr random --results r", "scores --results r", "results verify r", "results add r --results o",
    "export s --out e", "doctor --dataset digits --device cpu", "doctor", "grid g.yaml --plan --results r",
    "run --method random --no-floor --dataset digits --ipc 1 --seeds 1 --protocol smoke --results r --device cpu",
    "plan --method random --no-floor --dataset digits --ipc 1 --seeds 1 --protocol smoke --results r --device cpu",
    "distill --method random --dataset digits --ipc 1 --seeds 1 --out d --device cpu",
    "evaluate s --protocol smoke --seeds 1 --results r --device cpu", "tune --method random --dataset digits --plan",
    "backbone show none", "speed --device cpu --student nope",
)  # fmt: skip


def command_lines(report: Report, rng: random.Random, work: Path) -> None:
    results_with(good_records()[0], work / "r")
    words = rng.choice(LINES).split(" ")
    for _ in range(rng.choice((1, 1, 2))):
        at = rng.randrange(len(words) + 1)
        kind = rng.random()
        if kind < 0.55 and at < len(words) and at:
            words[at] = text_of(nasty(rng)).replace("../", "")  # a path of the user's own may lead anywhere
        elif kind < 0.7 and len(words) > 1:
            del words[max(1, at - 1)]
        elif kind < 0.85:
            words[at:at] = ["--set", f"protocol.{rng.choice(('lr', 'epochs', 'teacher', 'x'))}={text_of(nasty(rng))}"]
        else:
            words[at:at] = [rng.choice(("--time-limit", "--jobs", "--seeds", "--ipc")), text_of(rng.choice(NASTY))]
    words = [w for w in words if not w.startswith("/")]
    if words[:1] == ["speed"] and "nope" not in words:
        return  # it would measure
    report.command(*words)


TARGETS = {
    "records": records,
    "manifests": manifests,
    "protocols": protocols,
    "grids": grids,
    "markers": markers,
    "pictures": pictures,
    "archives": archives,
    "lines": command_lines,
}
