"""``ddbench backbone``: train, fine-tune and show diffusion backbones."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import shutil
import time
from pathlib import Path
from typing import Any

import click

from benchmark.cli.guidance import guidance
from benchmark.cli.options import COUNT, DATA, SEED, NamedPath, Number, dataset_options, shared
from benchmark.core import distributed
from benchmark.core.errors import UsageError


@click.group(
    epilog="""\b
Examples:
  ddbench backbone train --dataset digits
  ddbench backbone train --dataset fashionmnist --preset small
  ddbench backbone finetune --from facebook/DiT-XL-2-256 --dataset cifar10 --parameters light
  ddbench backbone show DIR
"""
)
def backbone() -> None:
    """Train, fine-tune and show diffusion backbones: folders in diffusers' DiTPipeline format.

    Training goes on where a killed one stopped; the result is kept in $DDBENCH_CACHE and used by `ddbench run`.
    """


def _data(function):
    for option in reversed(
        [
            click.option("--dataset", required=True, help="e.g. digits, cifar10, NAME=PATH for your own."),
            shared(*DATA),
            click.option("--out", type=NamedPath(), help="Also copy the folder here."),
        ]
    ):
        function = option(function)
    return function


@backbone.command(
    epilog="\b\nExamples:\n  ddbench backbone train --dataset fashionmnist --preset small\n"
    "  ddbench backbone train --dataset digits --set dit_steps=2000 --set width=192"
)
@_data
@click.option("--preset", default="", help="tiny, small, strong or base. Default: the dataset's.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="A training setting, e.g. dit_steps=5000.")
@click.option(
    "--teacher", default="", help="Who judges the samples, as in `run`. Default: that of the protocol `soft`."
)
@click.option("--retrain", is_flag=True, help="Train anew, in a store of its own, what came with the package too.")
@click.option("--ladder", is_flag=True, help="Keep the DiT at about 1, 3, 10 and 30 % of its steps too.")
@click.option(
    "--card-images", type=click.IntRange(0), default=0, help="Samples a class in the card. Default: 10 to 50."
)
@click.option(
    "--time-limit", type=click.FloatRange(1), help="Seconds after which to stop; repeat the command to go on."
)
def train(
    *,
    out: Path | None,
    preset: str,
    sets: tuple[str, ...],
    teacher: str,
    device: str,
    retrain: bool,
    ladder: bool,
    card_images: int,
    time_limit: float | None,
    **data: Any,
):
    """Train a VAE and a DiT on a dataset and print the report card.

    With --retrain nothing that the package brings is used: VAE, DiT and the card's classifiers are trained in
    $DDBENCH_CACHE/retrained, and the result is compared with what the package brings.

    With --ladder, --out holds a folder a rung: rung-STEPS.
    """
    deadline = None if time_limit is None else time.monotonic() + time_limit
    _check_out(out)
    values = dict(_pair(text) for text in sets)
    from benchmark.core.compute import resolve_device
    from benchmark.core.store import Store

    found = _dataset(data)
    from benchmark.backbones import backbone_stage, default_preset, train_backbone
    from benchmark.teachers import teacher_key

    preset = preset or default_preset(found.name)
    stage = backbone_stage(found, preset, **values)  # refuses wrong settings before anything runs
    if teacher:
        teacher_key(found, teacher)  # and a teacher that is not there
    from benchmark.backbones.folder import difference
    from benchmark.backbones.training import Run, rung_folders
    from benchmark.core.store import default_cache
    from benchmark.core.store.shipped import shipped
    from benchmark.training.loop import OutOfTime

    run = Run(teacher, ladder, card_images, deadline)
    store = Store(default_cache() / "retrained") if retrain else Store()
    brought = shipped(stage.name, stage.key) if retrain else None
    if retrain:
        os.environ["DDBENCH_SHIPPED"] = "0"
    try:
        with distributed.together():
            folder = train_backbone(store, found, preset, resolve_device(device), run=run, **values)
    except OutOfTime as stopped:
        click.echo(f"{stopped}; the same command goes on there")
        folder = None
    if not ladder:
        if folder is not None:
            _finish(folder, stage.key, out)
        if folder is not None and brought is not None:
            click.echo(f"beside the package {difference(brought, folder)}")
        return
    from benchmark.backbones.settings import settings

    rungs = rung_folders(store, found, settings(found, preset, **values))
    _finish_ladder(rungs, out)


@backbone.command(
    epilog="\b\nExamples:\n  ddbench backbone finetune --from DIR --dataset fashionmnist --steps 2000\n"
    "  ddbench backbone finetune --from facebook/DiT-XL-2-256 --dataset cifar10 --parameters light --precision bf16"
)
@_data
@click.option("--from", "source", required=True, metavar="FOLDER|HUB_ID", help="The backbone to start from.")
@click.option("--parameters", default="full", show_default=True, help="full, or light: biases, norms, embeddings.")
@click.option("--steps", type=COUNT, default=2000, show_default=True, help="Optimizer steps.")
@click.option("--batch", type=COUNT, default=64, show_default=True, help="Images an optimizer step.")
@click.option(
    "--accumulate", type=COUNT, default=1, show_default=True, help="Parts a batch is computed in, to save memory."
)
@click.option(
    "--lr", type=Number(max=100), default=2e-4, show_default=True, help="Peak learning rate (light: try 1e-3)."
)
@click.option(
    "--label-dropout",
    type=Number(0, 1),
    default=0.1,
    show_default=True,
    help="Share of unconditional images; 0: no guidance.",
)
@click.option("--precision", default="fp32", show_default=True, help="fp32, tf32 or bf16 (autocast).")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of the run.")
@click.option("--teacher", default="", help="Who judges the samples, as in `run`. Default: that of `soft`.")
def finetune(
    *,
    dataset: str,
    device: str,
    out: Path | None,
    source: str,
    teacher: str,
    **given: Any,
):
    """Fine-tune a backbone's DiT on another dataset, and print the report card before and after."""
    _check_out(out)
    from benchmark.backbones.folder import external_key
    from benchmark.core.compute import resolve_device
    from benchmark.core.store import Store

    key = external_key(source)
    data = _dataset({"dataset": dataset, **given})
    from benchmark.backbones.finetuning import FinetuneSettings, finetune_backbone, finetune_stage

    names = {field.name for field in dataclasses.fields(FinetuneSettings)}
    chosen = FinetuneSettings(**{name: value for name, value in given.items() if name in names})
    with distributed.together():
        folder = finetune_backbone(Store(), source, data, chosen, resolve_device(device), teacher)
    _finish(folder, finetune_stage(data, key, chosen).key, out)


@backbone.command(
    "export", epilog="\b\nExample:\n  ddbench backbone export DIR --out results/backbones/cifar10 --command '...'"
)
@click.argument("source", metavar="FOLDER")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A new folder.")
@click.option("--command", default="", help="What made it, for its README.")
def export_command(source: str, out: Path, command: str) -> None:
    """Copy a backbone with bfloat16 weights (half the bytes), its card and the command that made it."""
    _check_out(out)
    from benchmark.backbones import folder as folders
    from benchmark.backbones.export import export
    from benchmark.core.outputs import whole_folder

    with whole_folder(out, "--out") as temporary:
        export(folders.resolve(source), temporary, command)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    click.echo(f"folder             {out} ({size / 1e6:.1f} MB)")


backbone.add_command(guidance)


@backbone.command(epilog="\b\nExamples:\n  ddbench backbone show DIR\n  ddbench backbone show fashionmnist")
@click.argument("name", metavar="FOLDER|HUB_ID|DATASET")
@click.option("--preset", default="", help="With a dataset: its preset. Default: the dataset's.")
@shared("data-root")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def show(name: str, preset: str, data_root: str | None, as_json: bool) -> None:
    """Print a backbone's report card: of a folder, a hub id, or what was trained for a dataset."""
    from benchmark.backbones import folder as folders

    path = folders.resolve(name) if _looks_like_path(name) else _trained(name, preset, data_root)
    folders.check(path)
    card, about = folders.report(path), folders.about(path)
    if as_json:
        click.echo(json.dumps({"folder": str(path), "report": card, "about": about}, indent=1))
        return
    from benchmark.backbones.card import text

    click.echo(f"folder             {path}")
    click.echo(text(card))
    for line in _guidance(path, name):
        click.echo(line)
    if (path / "report.png").is_file():
        click.echo(f"picture            {path / 'report.png'}")


def _guidance(path: Path, name: str) -> list[str]:
    """What was chosen for the folder, or for the preset of a dataset."""
    from benchmark.backbones import guidance as rule

    found = rule.read(path) or ({} if _looks_like_path(name) else {name: rule.chosen(name)})
    return [
        f"guidance           {entry['guidance']:g} for {dataset}, chosen by plain sampling on held-out training images"
        for dataset, entry in found.items()
        if entry
    ]


def _looks_like_path(name: str) -> bool:
    from benchmark.plugins import registry
    from benchmark.plugins.registry import OWN_DATA, named_path

    return name not in registry().items["dataset"] and not name.startswith(OWN_DATA) and named_path(name) is None


def _trained(dataset: str, preset: str, data_root: str | None) -> Path:
    """What `ddbench run` uses for the dataset: a backbone of ``results/backbones``, or the preset's in the store."""
    from benchmark.backbones import backbone_stage, default_preset
    from benchmark.backbones import folder as folders
    from benchmark.backbones.resolve import shipped
    from benchmark.core.errors import MissingError
    from benchmark.core.store import Store
    from benchmark.data import load_dataset

    data = load_dataset(dataset, data_root)
    if not preset and (given := shipped(data.name, data.classes)) is not None:
        return folders.resolve(given)
    preset = preset or default_preset(data.name)
    found = Store().open(backbone_stage(data, preset))
    if found is None:
        raise MissingError(
            f"no backbone {preset} for {dataset} in the store",
            hint=f"ddbench backbone train --dataset {shlex.quote(dataset)} --preset {preset}",
        )
    return found


def _dataset(given: dict[str, Any]):
    """The dataset that the options of `_data` name."""
    from benchmark.data import load_dataset

    return load_dataset(given["dataset"], given["data_root"], **dataset_options(given))


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"{text!r} is not KEY=VALUE", where="--set")
    return key.strip(), value.strip()


def _check_out(out: Path | None) -> None:
    from benchmark.core.outputs import new_folder

    if out is not None:
        new_folder(out, "--out")  # before hours of training


def _finish_ladder(rungs: dict[int, Path], out: Path | None) -> None:
    from benchmark.backbones import folder as folders
    from benchmark.backbones.card import row, row_names
    from benchmark.core.outputs import whole_folder

    if out is not None and rungs:
        with whole_folder(out, "--out") as temporary:
            for step, folder in rungs.items():
                place = temporary / f"rung-{step:07d}"
                shutil.copytree(folder, place, ignore=shutil.ignore_patterns("artifact.json"))
    click.echo("steps    " + "  ".join(row_names()))
    for step, folder in sorted(rungs.items()):
        click.echo(f"{step:<8d} " + "  ".join(row(folders.report(folder))))
    for step, folder in sorted(rungs.items()):
        click.echo(f"rung {step:<8d} {out / f'rung-{step:07d}' if out else folder}")


def _finish(folder: Path, key: str, out: Path | None) -> None:
    from benchmark.backbones import folder as folders
    from benchmark.backbones.card import text
    from benchmark.core.outputs import whole_folder

    if not distributed.leads():
        return
    if out is not None:
        with whole_folder(out, "--out") as temporary:
            shutil.copytree(folder, temporary, dirs_exist_ok=True, ignore=shutil.ignore_patterns("artifact.json"))
    click.echo(text(folders.report(folder)))
    click.echo(f"picture            {(out or folder) / 'report.png'}")
    click.echo(f"folder             {out or folder}")
    click.echo(f"key                {key}")
