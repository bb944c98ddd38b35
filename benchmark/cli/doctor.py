"""``ddbench doctor``: is everything there for a dataset, is it what it should be, and what to do if not."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import time
from pathlib import Path
from typing import Any

import click

from benchmark.cli.options import DATA, dataset_options, shared, table_format
from benchmark.core.sheet import render, simple

OK, WARN, BAD = "ok", "warning", "FAULT"
SHOWN = 20  # corrupt files listed one by one
CORRUPT = "get those files again, remove them, or add --on-corrupt skip (they are counted in the record)"


class Findings:
    """Lines printed as they are found (unless ``quiet``); the commands to run are kept for the end."""

    def __init__(self, quiet: bool = False) -> None:
        self.bad, self.fixes, self.quiet = 0, [], quiet
        self.said: list[dict[str, str]] = []

    def say(self, state: str, name: str, text: str, fix: str = "") -> None:
        self.bad += state == BAD
        if fix:
            self.fixes.append(fix)
        self.said.append({"state": state, "name": name, "text": text, "fix": fix})
        if self.quiet:
            return
        style = {OK: "green", WARN: "yellow", BAD: "red"}[state]
        click.echo(f"{click.style(f'{state:8}', fg=style)} {name:10} {text}")


@click.command(
    epilog="""\b
Examples:
  ddbench doctor --dataset imagenet1k --data-root /data
  ddbench doctor --dataset cifar10 --data-root ~/data --full
  ddbench doctor
"""
)
@click.option("--dataset", default="", help="The dataset. Default: say which are there.")
@click.option("--full", is_flag=True, help="Read every image anew: names corrupt and changed ones.")
@shared(*DATA, "backbone", "teacher")
@table_format()
def doctor(dataset: str, full: bool, form: str, **given: Any) -> int:
    """Check data, disk, backbone, teacher and GPU memory, and print what to do.

    Counts, class order and a sample of images are checked; --full reads every image. Exit code 3 if something is
    missing or cannot be right.
    """
    findings = Findings(quiet=form != "table")
    if not dataset:
        return _survey(given["data_root"], form)
    from benchmark.core.store.keys import hashing_anew
    from benchmark.data.decode import EXTENSIONS
    from benchmark.methods import Needs
    from benchmark.pipeline.request import Request
    from benchmark.pipeline.requirements import backbone_requirements, requirements

    asked = Request(
        dataset,
        (),
        protocols=("soft",),
        teacher=given["teacher"],
        data_root=given["data_root"],
        dataset_options=dataset_options({**given, "on_corrupt": None}),
    )
    needed = requirements(asked, given["device"])
    needed += backbone_requirements(dataset, given["backbone"], given["device"], Needs(backbone=True))
    data = next((r for r in needed if r.name == "data"), None)
    if data is not None:
        findings.say(OK if data.ok else BAD, "data", data.found, "" if data.ok else data.fix)
    loaded = None
    if data is None or data.ok:
        with hashing_anew() if full else contextlib.nullcontext():
            loaded = _load(findings, dataset, full, given)
        _changed(findings)
    if loaded is not None:
        _contents(findings, dataset.removesuffix("@val"), loaded)
        _skipped(findings, loaded, WARN)
        if "not read" in loaded.notes:
            text = f"files in class folders that are not read: {loaded.notes['not read']}"
            findings.say(WARN, "unread", f"{text}; read are {', '.join(EXTENSIONS)}")
        _sample(findings, loaded)
        if full:
            _full(findings, loaded)
    for r in needed:
        if r.name != "data":
            findings.say(OK if r.ok else BAD, r.name, r.found, "" if r.ok else r.fix)
    if loaded is not None:
        _made_here(findings, loaded, given)
    _disk(findings, loaded, large=any(r.name == "GPU" for r in needed))
    if form != "table":
        rows = [(f["state"], f["name"], f["text"], f["fix"]) for f in findings.said]
        sheet = simple("", ["state", "what", "found", "what to do"], rows, "llll", documents=findings.said)
        click.echo(render([sheet], form, f"ddbench doctor {dataset}"), nl=False)
        return 3 if findings.bad else 0
    if findings.bad:
        click.echo("\nWhat to do:")
        for number, fix in enumerate(dict.fromkeys(findings.fixes), 1):
            click.echo(f"  {number}. {fix}")
        return 3
    names = ("data_root", "image_size", "split", "classes", "backbone", "teacher", "on_corrupt")
    chosen = {n: given[n] for n in names if given[n] not in (None, "", "error")}
    more = "".join(f" --{name.replace('_', '-')} {shlex.quote(str(value))}" for name, value in chosen.items())
    click.echo(f"\nReady:  ddbench run --method d3hr --dataset {shlex.quote(dataset)}{more} --ipc 1")
    return 0


def _survey(root: str | None, form: str) -> int:
    """Which datasets are there."""
    from benchmark.data.loading import data_root
    from benchmark.pipeline.request import Request
    from benchmark.pipeline.requirements import data_requirement
    from benchmark.plugins import registry

    base = data_root(root)
    rows = []
    for name in registry().names("dataset"):
        if name.endswith(":"):
            continue
        found = data_requirement(Request(name, (), data_root=root))
        state = "nothing to get" if found is None else found.found if found.ok else "not there"
        rows.append((name, state))
    if form != "table":
        click.echo(render([simple("", ["dataset", "found"], rows, "ll")], form, "ddbench doctor"), nl=False)
        return 0
    click.echo(f"Data root: {base or 'none (give --data-root or set DDBENCH_DATA)'}")
    for name, state in rows:
        click.echo(f"{name:14} {state}")
    click.echo("\nOne in detail, and how to get it:  ddbench doctor --dataset NAME")
    return 0


def _load(findings: Findings, name: str, full: bool, given: dict[str, Any]):
    """The dataset, or None with what is wrong said; with ``full``, corrupt files do not stop the loading."""
    from benchmark.core.errors import DDBenchError, UsageError
    from benchmark.data import load_dataset

    options = dataset_options(given)
    try:
        return load_dataset(name, given["data_root"], **options)
    except UsageError:
        raise
    except DDBenchError as error:
        text = error.what + (f"\n{'':20}where: {error.where}" if error.where else "")
        findings.say(BAD, "data", text, error.hint)
    if full:  # a corrupt file stopped it: read the others all the same
        try:
            _skipped(findings, load_dataset(name, given["data_root"], **{**options, "on_corrupt": "skip"}), BAD)
        except DDBenchError as error:
            findings.say(BAD, "full scan", f"{error.what} ({error.where})", error.hint)
    return None


def _changed(findings: Findings) -> None:
    """Say that the content changed although sizes and time stamps did not: only --full looks."""
    from benchmark.data import external

    if "content" in external.changed:
        text = "the files' content changed while their sizes and time stamps did not (cp -p, rsync -t, a restored tar?)"
        fix = "sets, teachers and records made before belong to the old content: bring it back, or repeat the runs"
        findings.say(BAD, "content", text, fix)
    external.changed.clear()


def _skipped(findings: Findings, data, state: str) -> None:
    """Say which files were left out."""
    if "skipped" not in data.notes:
        return
    files = data.notes["skipped files"].split("; ")
    shown = "".join(f"\n{'':20}{text}" for text in files[:SHOWN])
    more = f"\n{'':20}… and {len(files) - SHOWN} more" if len(files) > SHOWN else ""
    findings.say(state, "corrupt", f"{data.notes['skipped']}{shown}{more}", CORRUPT if state == BAD else "")


def _contents(findings: Findings, name: str, data) -> None:
    """Counts, class order, digest."""
    from benchmark.data.sources import SOURCES

    source = SOURCES.get(name)
    own = data.notes.get("layout") != "imagenet1k" or name == "imagenet1k"
    for part, split in (("train", data.train), ("test", data.test)):
        expected = (
            getattr(source, part) if source and (own or part == "test") and "held out" not in data.notes else None
        )
        if expected and not own:  # a subset of ImageNet-1K: 50 validation images a class
            expected = 50 * len(data.classes)
        counts = [len(members) for members in data_by_class(split, len(data.classes))]
        text = f"{part}: {len(split):,} images in {len(counts)} classes, {min(counts):,} to {max(counts):,} a class"
        if expected and len(split) != expected:
            findings.say(WARN, "counts", f"{text}; the original has {expected:,}")
        else:
            findings.say(OK, "counts", text)
    order = ", ".join(data.classes[:3]) + (f", …, {data.classes[-1]}" if len(data.classes) > 3 else "")
    findings.say(OK, "classes", f"label order: {order}" + ("" if data.folders == data.classes else _folders(data)))
    notes = "".join(f", {key} {data.notes[key]}" for key in ("format", "layout", "skipped") if key in data.notes)
    findings.say(OK, "identity", f"digest {data.digest[:16]}{notes}, {data.image_size} px, {data.channels} channel(s)")


def _folders(data) -> str:
    return f"  (folders {data.folders[0]} … {data.folders[-1]})"


def data_by_class(split, classes: int) -> list:
    """Positions by class, empty lists for classes without images."""
    return [*split.by_class, *([[]] * (classes - len(split.by_class)))]


def _sample(findings: Findings, data) -> None:
    """Decode a few images of every part of the data."""
    import numpy as np
    import torch  # noqa: F401 - so that its import is not timed

    from benchmark.core.errors import DDBenchError

    for part, split in (("train", data.train), ("test", data.test)):
        chosen = np.unique(np.linspace(0, len(split) - 1, min(len(split), 64)).round().astype(int))
        began = time.perf_counter()
        try:
            pixels = split.images(chosen)
        except DDBenchError as error:
            findings.say(BAD, "images", f"{part}: {error.what}\n{'':20}where: {error.where}", error.hint)
            continue
        rate = len(chosen) / max(time.perf_counter() - began, 1e-9)
        flat = [int(i) for i, image in zip(chosen, pixels) if int(image.max()) == int(image.min())]
        text = f"{part}: {len(chosen)} sampled, all readable, {rate:,.0f} a second"
        if flat:
            findings.say(WARN, "images", f"{text}; of one colour only: positions {flat[:5]}")
        else:
            findings.say(OK, "images", text)


def _full(findings: Findings, data) -> None:
    """Read every file of splits that are files."""
    from benchmark.data.external import corrupt_files

    for part, split in (("train", data.train), ("test", data.test)):
        index = getattr(split, "index", None)  # of @val: that of the whole training split
        if index is None:
            findings.say(OK, "full scan", f"{part}: every image was read when the dataset was first loaded")
            continue
        bad = corrupt_files(index)
        if not bad:
            findings.say(OK, "full scan", f"{part}: all {len(index):,} images can be decoded")
            continue
        shown = "".join(f"\n{'':20}{path}: {fault}" for _, path, fault in bad[:SHOWN])
        more = f"\n{'':20}… and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        findings.say(BAD, "full scan", f"{part}: {len(bad)} of {len(index):,} cannot be decoded{shown}{more}", CORRUPT)


def _made_here(findings: Findings, data, given: dict[str, Any]) -> None:
    """Backbone and teacher that are trained here: in the store already, or on first use."""
    from benchmark.backbones.resolve import resolve_backbone
    from benchmark.backbones.settings import settings
    from benchmark.backbones.shape import shape_of_settings
    from benchmark.core.errors import DDBenchError
    from benchmark.core.store import Store
    from benchmark.evaluation.protocols import load_protocol
    from benchmark.methods import Needs
    from benchmark.teachers import is_external, teacher_stage

    store = Store()
    try:
        ref = resolve_backbone(data, given["backbone"])
        if ref.stage is not None:
            state = "in the store" if store.has(ref.stage) else "not there yet; trained on first use"
            findings.say(OK, "backbone", f"{ref.name}: {state}")
            shape = shape_of_settings(settings(data, ref.name), len(data.classes), data.channels)
            _room(findings, shape.memory(Needs().batch), given["device"])
    except DDBenchError:
        pass  # said already
    for part in (given["teacher"] or load_protocol("soft").teacher_of(data)).split("+"):
        if not is_external(part):
            state = "in the store" if store.has(teacher_stage(data, part)) else "not there yet; trained on first use"
            findings.say(OK, "teacher", f"{part}: {state}")


def _room(findings: Findings, need: int, device: str) -> None:
    """Memory of the device that will be used, against what inverting a batch takes."""
    from benchmark.methods import Needs
    from benchmark.pipeline.requirements import gpu_requirement, gpus, memory_requirement

    gpu = device != "cpu" and gpus()
    found = gpu_requirement("the backbone", need, Needs()) if gpu else memory_requirement(need, Needs())
    findings.say(OK if found.ok else BAD, found.name, found.found, "" if found.ok else found.fix)


def _disk(findings: Findings, data, large: bool) -> None:
    """Free space where the store is, against the largest thing that will be written there."""
    from benchmark.backbones.shape import DIT_XL_2_256
    from benchmark.core.store import default_cache

    store = default_cache()
    there = next(p for p in (store, *store.parents) if p.exists())
    free = shutil.disk_usage(there).free
    text = f"{free / 1e9:,.0f} GB free for the store {store}"
    need = 1e9
    if large and data is not None:
        need = DIT_XL_2_256.latent_bytes(len(data.train), half=False)
        text += f"; latents of {len(data.train):,} images take {need / 1e9:.1f} GB, half of it with --precision bf16"
    if not _writable(there):
        findings.say(BAD, "disk", f"{store} cannot be written", "set DDBENCH_CACHE to a folder that can be written")
    elif free < 1.2 * need:
        findings.say(BAD, "disk", text, f"free {1.2 * need / 1e9:.0f} GB there, or set DDBENCH_CACHE to a larger disk")
    else:
        findings.say(OK, "disk", text)


def _writable(folder: Path) -> bool:
    import os

    return os.access(folder, os.W_OK | os.X_OK)
