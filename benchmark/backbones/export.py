"""A trained backbone in half the bytes: bfloat16 weights in diffusers' format, with its card and how it was made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

from benchmark.backbones import folder as folders
from benchmark.backbones.backbone import load_parts
from benchmark.backbones.card import text

KEPT = (folders.REPORT, "report.png", "curve.json")


def export(source: Path, out: Path, command: str = "") -> None:
    """Write ``source`` into the empty folder ``out`` with bfloat16 weights and a ``README.md`` (card, ``command``).

    The VAE's key in the store is left behind: rounded weights give other latents, so the copy is known by its content.
    Its card is that of ``source``; ddbench and diffusers load it in any precision (``torch_dtype``).

    Raises:
        UsageError: ``source`` is not a backbone.
    """
    from diffusers import DiTPipeline

    folders.check(source)
    vae, dit, scheduler = load_parts(source, torch.bfloat16)
    about = {**folders.about(source), "weights": "bfloat16"}
    about.pop("vae_key", None)
    DiTPipeline(dit, vae, scheduler).save_pretrained(out)
    (out / folders.ABOUT).write_text(json.dumps(about, indent=1, sort_keys=True) + "\n")
    for name in KEPT:
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)
    (out / "README.md").write_text(_readme(about, folders.report(source), command))


def _readme(about: dict, card: dict, command: str) -> str:
    dataset = about.get("dataset", "a dataset")
    steps = about.get("rung", about.get("settings", {}).get("dit_steps"))
    lines = [
        f"# A diffusion backbone for {dataset}",
        "",
        f"A VAE and a class-conditional DiT in diffusers' `DiTPipeline` format, {steps} steps of the DiT's training, "
        "weights rounded to bfloat16. The card was measured before rounding.",
        "",
        "```",
        text(card),
        "```",
        "",
    ]
    if command:
        lines += ["Made by", "", "```", command, "```", ""]
    lines += [
        "Used by `ddbench run --dataset "
        f"{dataset}` where no `--backbone` is given and this folder is found, and by `--backbone FOLDER` elsewhere.",
        "",
    ]
    return "\n".join(lines)
