"""``ddbench d3hr-report``: D3HR's assumptions drawn for a dataset and a backbone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from benchmark.api import Task
    from d3hr_plugin.method import D3HR


@click.command(
    epilog="""\b
Examples:
  ddbench d3hr-report --dataset digits
  ddbench d3hr-report --dataset fashionmnist --images 200 --set depth=20 --out figures
"""
)
@click.option("--dataset", required=True, help="e.g. digits, fashionmnist, NAME=PATH.")
@click.option("--data-root", default=None, help="Where the data lies. Default: $DDBENCH_DATA.")
@click.option("--backbone", default="", help="Preset, folder or hub id. Default: the dataset's.")
@click.option("--classes", default=10, show_default=True, help="Classes to look at, from the first.")
@click.option("--images", default=100, show_default=True, help="Images a class; at least 20 for the normality test.")
@click.option("--ipc", default=10, show_default=True, help="Group size for the score and the contact sheet.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="A parameter of d3hr, e.g. depth=20.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--precision", default="fp32", show_default=True, help="fp32, tf32, bf16, fp16; bf16+compile …")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for figures. Default: d3hr-report-DATASET.")
def d3hr_report(dataset: str, out: Path | None, sets: tuple[str, ...], classes: int, images: int, **use: Any) -> None:
    """Are D3HR's inverted latents Gaussian, do they come back to the images, and what does the search gain?

    Writes normality.png, quantiles.png, reconstruction.png, score.png, sheet.png and report.json, and prints the
    tables. Trains the dataset's backbone first if there is none.
    """
    from benchmark.api import chosen_settings, make_params, parse_sets, writable_folder, write_text
    from d3hr_plugin.method import D3HR

    if images < 2 or classes < 1:
        raise click.UsageError("--images must be at least 2 and --classes at least 1")
    chosen = chosen_settings(dataset, use["backbone"])
    method = D3HR(make_params(D3HR, "d3hr", dataset, parse_sets(sets), chosen))
    folder = out or Path(f"d3hr-report-{dataset.replace(':', '-').replace('/', '_')}")
    writable_folder(folder, "--out")
    task = _task(dataset, use)
    found = examine(task, method, list(range(min(classes, len(task.dataset.classes)))), images, folder)
    write_text(json.dumps(found, indent=1), folder / "report.json", "--out")
    for line in tables(found):
        click.echo(line)
    click.echo(f"figures: {folder}")


@click.command(
    epilog="""\b
Examples:
  ddbench d3hr-solvers --dataset digits
  ddbench d3hr-solvers --dataset cifar10 --classes 5 --images 50 --guidance 4
"""
)
@click.option("--dataset", required=True, help="e.g. digits, cifar10, NAME=PATH.")
@click.option("--data-root", default=None, help="Where the data lies. Default: $DDBENCH_DATA.")
@click.option("--backbone", default="", help="Preset, folder or hub id. Default: the dataset's.")
@click.option("--classes", default=5, show_default=True, help="Classes to look at, from the first.")
@click.option("--images", default=50, show_default=True, help="Images a class; at least 20 for the normality test.")
@click.option("--guidance", default=1.0, show_default=True, help="Classifier-free guidance, both ways.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--precision", default="fp32", show_default=True, help="fp32, tf32, bf16, fp16; bf16+compile …")
def d3hr_solvers(dataset: str, classes: int, images: int, guidance: float, **use: Any) -> None:
    """How many evaluations of the network does inverting need?

    Inverts with each solver, from the authors' 30 steps to 6 evaluations, and prints for each the error against a
    solution of 200 steps, whether the result is normal, and whether it comes back to the image. Then what the search
    does at one image a class, by the size of a latent.
    """
    from d3hr_plugin import diagnostics as measure

    if images < 2 or classes < 1:
        raise click.UsageError("--images must be at least 2 and --classes at least 1")
    task = _task(dataset, {**use, "ipc": 1})
    few = measure.Sample.take(task, list(range(min(classes, len(task.dataset.classes)))), images)
    rows = measure.solver_rows(task, few, guidance)
    click.echo(f"\nInversion to noise level 600, guidance {guidance:g}, {len(few.classes)} images of {dataset}\n")
    click.echo(_table(rows, ".4f"))
    shapes = [task.backbone.latent_shape, (4, 4, 4), (4, 8, 8), (4, 32, 32)]
    lengths = measure.shrinkage(list(dict.fromkeys(shapes)), [1, 1000, 1_000_000])
    click.echo("\nSearch at IPC 1: length of the best of m draws, over that of a plain draw\n")
    click.echo(_table(lengths, ".3f"))


def _table(rows: list[dict[str, Any]], digits: str) -> str:
    from benchmark.api import plain_table

    def text(value: Any) -> Any:
        return format(value, digits) if isinstance(value, float) else value

    return plain_table(list(rows[0]), [[text(row.get(name)) for name in rows[0]] for row in rows])


def _task(dataset: str, use: dict[str, Any]) -> Task:
    from benchmark.api import (
        Precision,
        Store,
        Task,
        load_backbone,
        load_dataset,
        prepare,
        resolve_backbone,
        resolve_device,
    )

    data, device = load_dataset(dataset, use["data_root"]), resolve_device(use["device"])
    precision, store = Precision.named(use["precision"]), Store()
    found = resolve_backbone(data, use["backbone"])
    task = Task("d3hr", data, use["ipc"], 0, store, device, precision, backbone_key=found.key)
    prepare("distill", precision)
    task.load_backbone = lambda: load_backbone(found.build(store, data, device), data, device, precision, found.key)
    return task


def examine(task: Task, method: D3HR, classes: list[int], images: int, folder: Path) -> dict[str, Any]:
    """Measure, draw into ``folder`` and return the numbers."""
    import numpy as np

    from d3hr_plugin import diagnostics as measure
    from d3hr_plugin import pictures

    p, backbone = method.params, task.backbone
    sample = measure.Sample.take(task, classes, images, p.sample_posterior)
    depths = sorted({0, p.depth, *range(0, p.steps, max(1, p.steps // 10)), p.steps - 1})
    guidances = sorted({1.0, p.invert_guidance} if backbone.null_class is None else {1.0, 4.0, p.invert_guidance})
    rows, kept = [], {}
    for guidance in guidances:
        kept[guidance] = sample.inverted(task, p.steps, depths, guidance)
        for depth in depths:
            found = measure.normality(kept[guidance][depth], sample.classes)
            rows.append({"guidance": guidance, "depth": depth, **found})
    floor = measure.gaussian_floor(tuple(sample.latents.flatten(1).shape), sample.classes)
    pictures.normality(folder / "normality.png", rows, floor, p.depth)
    chosen = {d: kept[p.invert_guidance][d] for d in depths[:: max(1, len(depths) // 5)] + [p.depth]}
    pools = {d: measure.standardised(x, sample.classes).ravel() for d, x in sorted(chosen.items())}
    pictures.quantiles(folder / "quantiles.png", pools, p.invert_guidance)

    few = measure.Sample.take(task, classes, min(images, 16), p.sample_posterior)
    by_steps, by_depth = [], []
    for steps in (p.steps // 5, p.steps * 2 // 5, p.steps, 2 * p.steps):
        for pair, shift, ending in (("exact pair", 0, "exact"), ("released pair", 1, "released")):
            error, _ = measure.reconstruction(task, few, steps, steps * 3 // 5, (1.0, 1.0), shift, ending)
            by_steps.append({"steps": steps, "pair": pair, "rmse": error})
    for depth in [p.steps * part // 10 for part in (1, 2, 4, 6, 8)] + [p.steps - 1]:
        for label, pair in {
            "guidance 1, 1": (1.0, 1.0),
            "guidance 4, 4": (4.0, 4.0),
            "guidance 1, 4": (1.0, 4.0),
        }.items():
            if backbone.null_class is None and max(pair) > 1:
                continue
            by_depth.append(
                {"depth": depth, "pair": label, "rmse": measure.reconstruction(task, few, p.steps, depth, pair)[0]}
            )
    pictures.reconstruction(folder / "reconstruction.png", by_steps, by_depth)

    moments = method.statistics(task, classes[0])
    counts = [1, 10, 100, 1000, 10_000, 100_000, 1_000_000]
    scores = measure.score_against_m(moments.std.float(), max(task.ipc, 2), counts)
    pictures.scores(folder / "score.png", counts, scores, max(task.ipc, 2))

    size, channels, shown = task.dataset.image_size, task.dataset.channels, min(4, images)
    pick = [row + i for row in few.first for i in range(shown)]
    _, back = measure.reconstruction(task, few, p.steps, p.depth, (p.invert_guidance, p.decode_guidance))
    units = [u for u in method.units(task) if u.cells[0][0] in classes]
    real = [task.train.images(task.train.by_class[c][:shown]) for c in classes]
    blocks = {
        "real": np.stack([x.numpy() for x in real]),
        "through the VAE": backbone.decode(few.latents[pick], size, channels).numpy(),
        "inverted, sampled back": backbone.decode(back[pick], size, channels).numpy(),
        "distilled": np.stack([method.distill(task, u).numpy()[:6] for u in units]),
    }
    columns = {k: v.reshape(len(classes), -1, channels, size, size).transpose(0, 1, 3, 4, 2) for k, v in blocks.items()}
    pictures.sheet(folder / "sheet.png", columns, [task.dataset.classes[c] for c in classes])
    return {
        "dataset": task.dataset.name,
        "backbone": task.backbone_key,
        "images": len(sample.classes),
        "normality": rows,
        "normal_draws": floor,
        "reconstruction_by_steps": by_steps,
        "reconstruction_by_depth": by_depth,
        "score": {"m": counts, **scores},
    }


def tables(found: dict[str, Any]) -> list[str]:
    """The numbers as text."""
    floor = {"guidance": "normal draws", "depth": "", **found["normal_draws"]}
    return [
        f"\nNormality of a coordinate within its class, {found['images']} images ({found['dataset']})\n",
        _table([*found["normality"], floor], ".3f"),
        "\nInvert, then sample back, guidance 1, to 3/5 of the schedule\n",
        _table(found["reconstruction_by_steps"], ".4f"),
        "\nInvert, then sample back, by depth and (inverting, sampling) guidance\n",
        _table(found["reconstruction_by_depth"], ".4f"),
        "\nScore of a group\n",
        _table(
            [{"group": f"search, m = {m:,}", "score": s} for m, s in zip(found["score"]["m"], found["score"]["search"])]
            + [{"group": k, "score": v[0]} for k, v in found["score"].items() if k not in ("m", "search")],
            ".4f",
        ),
    ]
