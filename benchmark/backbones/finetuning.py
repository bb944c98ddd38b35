"""``ddbench backbone finetune``: a backbone's DiT on another dataset, all of it or a few of its parameters.

This is how D3HR's paper reaches datasets beyond ImageNet. The VAE stays as it is.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DiTTransformer2DModel
from torch import nn

from benchmark.backbones import folder as folders
from benchmark.backbones.backbone import Backbone, load_backbone, load_parts
from benchmark.backbones.dit import Denoising, fix_label_dropout, label_tables, validation_error
from benchmark.backbones.report import write_report
from benchmark.backbones.settings import check_training_precision
from benchmark.backbones.stages import hold_out
from benchmark.backbones.training import save_folder, split_moments
from benchmark.core import compute, distributed
from benchmark.core.compute import Precision
from benchmark.core.errors import UsageError
from benchmark.core.store import Stage, Store
from benchmark.data.base import Dataset
from benchmark.training.loop import Averaged, rate_at, train

FINETUNE_VERSION = 2


@dataclass(frozen=True)
class FinetuneSettings:
    """A fine-tuning run.

    ``parameters``: ``full``, or ``light``: biases, norms and label embeddings only (as in DiffFit, arXiv 2304.06648;
    diffusers' DiT has no norm weights of its own unless its configuration asks for them).
    """

    parameters: str = "full"
    steps: int = 2000
    batch: int = 64  # images an optimizer step, over all accumulated parts
    accumulate: int = 1
    lr: float = 2e-4
    weight_decay: float = 0.0
    warmup: float = 0.02
    label_dropout: float = 0.1
    snr_gamma: float = 5.0
    ema_width: float = 0.05
    precision: str = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.parameters not in ("full", "light"):
            raise UsageError(f"cannot fine-tune {self.parameters!r}", where="--parameters", allowed="full, light")
        for key in ("steps", "batch", "accumulate"):
            if getattr(self, key) < 1:
                raise UsageError(f"{key} must be at least 1, not {getattr(self, key)}", where=f"--{key}")
        if self.batch % self.accumulate:
            raise UsageError(
                f"a batch of {self.batch} does not divide into {self.accumulate} parts", where="--accumulate"
            )
        if not 0 <= self.label_dropout < 1:
            raise UsageError(f"label dropout must be in [0, 1), not {self.label_dropout}", where="--label-dropout")
        check_training_precision(self.policy())

    def policy(self) -> Precision:
        return Precision.named(self.precision)


def finetune_stage(dataset: Dataset, source_key: str, chosen: FinetuneSettings) -> Stage:
    """The stage of a fine-tuned backbone; ``source_key`` is :func:`folder.external_key` of what it starts from."""
    inputs = {"dataset": dataset.digest, "backbone": source_key}
    params = dataclasses.asdict(chosen)
    return Stage("backbone.finetuned", FINETUNE_VERSION, params, inputs, chosen.seed, chosen.policy().document())


def finetune_backbone(
    store: Store, source: str | Path, dataset: Dataset, chosen: FinetuneSettings, device: str = "cpu", judge: str = ""
) -> Path:
    """The folder of ``source`` fine-tuned on ``dataset``: from the store, or trained now (resuming after a kill).

    ``judge`` is the teacher that the report card asks; "" is that of the protocol ``soft``.

    ``report.json`` holds the report card after, and under ``before`` the validation loss before the first step.

    Raises:
        MissingError, UsageError: ``source`` is not there or not a backbone.
    """
    key = folders.external_key(source)
    stage = finetune_stage(dataset, key, chosen)
    found = store.open(stage) if distributed.decide(store.has(stage)) else None
    if found is not None:
        return found
    with compute.prepared("backbone", chosen.policy()):
        return distributed.build(
            store, stage, lambda folder: _make(store, stage, source, dataset, chosen, device, judge, folder)
        )


def _make(
    store: Store,
    stage: Stage,
    source: str | Path,
    dataset: Dataset,
    chosen: FinetuneSettings,
    device: str,
    judge: str,
    folder: Path,
) -> None:
    path = folders.resolve(source)
    folders.check(path)
    origin = folders.about(path)
    vae, dit, scheduler = load_parts(path, torch.float32)
    relabel(dit, known_rows(dit, origin.get("classes"), dataset), dataset.classes, chosen.seed)
    select(dit, chosen.parameters)
    vae, dit = vae.to(device).eval().requires_grad_(False), dit.to(device)
    coder = around(vae, dit, scheduler, dataset, device, chosen.policy(), origin, path)
    training, held_out = split_moments(store, dataset, coder, hold_out(dataset))
    task = Denoising(
        training,
        len(dataset.classes),
        chosen.label_dropout,
        chosen.snr_gamma,
        scheduler,
        chosen.policy(),
        device,
        ("finetune", chosen.seed),
    )
    state = Averaged(dit, chosen.lr, chosen.weight_decay, chosen.ema_width)

    def validate(limit: int = 512) -> list[tuple[int, float]]:
        return validation_error(dit, held_out, task.alphas, chosen.policy(), device, limit=limit)

    def step(index: int) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float64, device=device)
        for part in range(chosen.accumulate):
            # each part is a batch of its own: parts of one step never share images before the data runs out
            loss = task.loss(dit, index * chosen.accumulate + part, chosen.batch // chosen.accumulate)
            (loss / chosen.accumulate).backward()
            total += loss.detach().double() / chosen.accumulate
        state.step(index, rate_at(index, chosen.steps, chosen.warmup))
        return total

    def evaluate() -> float:
        found = validate(limit=256)
        return sum(error for _, error in found) / len(found)

    before = validate()
    dit.train()
    curve = train(store, stage, "backbone finetune", chosen.steps, state, step, evaluate)
    state.swap()
    dit.eval().requires_grad_(False)
    about = {
        "schema": 1,
        "dataset": dataset.name,
        "classes": list(dataset.classes),
        "label_dropout": chosen.label_dropout,
        "padding": coder.padding,
        "vae_key": coder.vae_key,
        "settings": {**origin.get("settings", {}), "finetune": dataclasses.asdict(chosen)},
        "from": {"name": str(source), "key": stage.inputs["backbone"], "dataset": origin.get("dataset")},
    }
    curves = {"columns": ["step", "seconds", "training", "held_out"], "dit": curve}
    save_folder(folder, vae, dit, scheduler, about, curves)
    backbone = load_backbone(folder, dataset, device, chosen.policy(), stage.key)
    report = write_report(store, folder, backbone, dataset, held_out, judge)
    report["before"] = {"validation": {"loss": sum(e for _, e in before) / len(before), "levels": before}}
    (folder / folders.REPORT).write_text(json.dumps(report, indent=1))


def known_rows(dit: DiTTransformer2DModel, old: list[str] | None, dataset: Dataset) -> dict[str, int]:
    """Rows of the old label table by name of the dataset's class: by the names that the backbone was trained with.

    Where these are unknown (a backbone from the hub): ImageNet-1K's rows for a dataset of ImageNet's classes, and all
    rows where the count is the same.
    """
    count = dit.config.num_embeds_ada_norm
    if old is not None:
        return {name: row for row, name in enumerate(old)}
    if dataset.backbone_classes is not None and count == 1000:
        return dict(zip(dataset.classes, dataset.backbone_classes))
    return {name: row for row, name in enumerate(dataset.classes)} if count == len(dataset.classes) else {}


def relabel(dit: DiTTransformer2DModel, known: dict[str, int], new: tuple[str, ...], seed: int) -> None:
    """Give every block a label table for the classes ``new``; the unconditional row is last, as diffusers has it.

    Rows of ``known`` classes are kept (:func:`known_rows`). Others start at the unconditional row (the block's best
    guess for an unknown class) plus noise of the table's initial scale.
    """
    draw = compute.generator("relabel", seed)
    for table in label_tables(dit):
        weight = table.embedding_table.weight.detach()
        null = weight[-1]
        rows = []
        for name in new:
            noise = 0.02 * torch.randn(null.shape, generator=draw).to(null)
            rows.append(weight[known[name]] if name in known else null + noise)
        table.embedding_table = nn.Embedding.from_pretrained(torch.stack([*rows, null]), freeze=False)
        table.num_classes = len(new)
    dit.register_to_config(num_embeds_ada_norm=len(new))
    fix_label_dropout(dit)


def select(dit: DiTTransformer2DModel, parameters: str) -> None:
    """Mark what is trained: everything, or (``light``) biases, norm weights and label embeddings."""
    for name, parameter in dit.named_parameters():
        light = name.endswith("bias") or "embedding_table" in name or ("norm" in name and parameter.ndim == 1)
        parameter.requires_grad_(parameters == "full" or light)


def around(
    vae, dit, scheduler, dataset: Dataset, device: str, precision: Precision, about: dict, path: Path
) -> Backbone:
    """A `Backbone` of loaded parts, to encode with."""
    side, factor = int(dit.config.sample_size), 2 ** (len(vae.config.block_out_channels) - 1)
    count = len(dataset.classes)
    return Backbone(
        vae=vae,
        dit=dit,
        scheduler=scheduler,
        device=device,
        precision=precision,
        image_size=side * factor,
        latent_shape=(int(dit.config.in_channels), side, side),
        num_classes=count,
        null_class=count,
        learned_sigma=int(dit.config.out_channels or dit.config.in_channels) == 2 * int(dit.config.in_channels),
        class_map=torch.arange(count),
        key="",
        padding=int(about.get("padding", 0)),
        vae_key=about.get("vae_key") or folders.digest(path / "vae"),
    )
