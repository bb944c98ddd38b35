"""A distilled set as a Hugging Face ``imagefolder``: class folders, dataset card, checksums; still a ddbench set.

Layout: ``<class>/<index>.png``, ``README.md`` (the card), ``manifest.json``, ``checksums.sha256``,
``contact_sheet.png``. The card names the images by pattern, so that a class called ``train`` or ``test`` is no split
and the contact sheet is no image of the set.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmark.core import escape
from benchmark.core.errors import DataError
from benchmark.core.foreign import inside, open_regular, opened_image
from benchmark.core.outputs import whole_folder
from benchmark.core.store import digest_file
from benchmark.core.store.keys import digest_open
from benchmark.sets.folder import MANIFEST, NEEDED, content_digest, read_manifest

CHECKSUMS = "checksums.sha256"
SHEET = "contact_sheet.png"
NAMED = (*NEEDED, "dataset.name", "dataset.digest", "method.name", "method.version", "method.params")  # on the card


def checked_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a distilled set, with every image's digest checked.

    Raises:
        MissingError: no such folder, or no manifest.
        DataError: an image is missing, is a link or is not the one that was written; the manifest names other paths.
    """
    manifest = read_manifest(folder, need=NAMED)
    for name, known in manifest["files"].items():
        path = inside(folder, name)
        if not path.is_file():
            raise DataError(f"{name} is missing", where=str(folder), hint="distil again, or restore the file")
        with open_regular(path) as file:
            if digest_open(file) != known:
                raise DataError(f"{name} is not the image that was written (its SHA-256 differs)", where=str(folder))
    return manifest


def export(folder: Path, out: Path, *, name: str = "", licence: str = "", rows: Sequence[dict] = ()) -> Path:
    """Write the set in ``folder`` to ``out`` (which must not hold anything) as a whole or not at all.

    Args:
        name: title of the card; default method, dataset and IPC.
        licence: identifier for the card (``mit``, ``cc-by-4.0`` …); default ``other``.
        rows: leaderboard rows; those of sets that were made as this one was, but for the seed, go into the card.
    """
    manifest = checked_manifest(folder)
    with whole_folder(out, "--out") as temporary:
        for file in (*manifest["files"], MANIFEST):
            _copy(folder, file, temporary)
        if (folder / SHEET).is_file():
            with opened_image(inside(folder, SHEET)):  # has no digest: at least it is a picture
                _copy(folder, SHEET, temporary)
        text = card(manifest, name=name, licence=licence, rows=rows)
        (temporary / "README.md").write_text(text, encoding="utf-8")
        sums = [f"{digest_file(temporary / n)}  {n}\n" for n in (*sorted(manifest["files"]), MANIFEST, "README.md")]
        (temporary / CHECKSUMS).write_text("".join(sums), encoding="utf-8")
    return out


def _copy(folder: Path, name: str, target: Path) -> None:
    goal = inside(target, name)
    goal.parent.mkdir(parents=True, exist_ok=True)
    with open_regular(inside(folder, name)) as source, open(goal, "wb") as copy:
        shutil.copyfileobj(source, copy)


def card(manifest: dict[str, Any], *, name: str = "", licence: str = "", rows: Sequence[dict] = ()) -> str:
    """The dataset card: YAML head for the hub, then what it is, how it was made, how well it does, how to read it."""
    method, dataset, ipc = manifest["method"], manifest["dataset"], manifest["ipc"]
    public = _public(dataset["name"])
    title = name or f"{method['name']} distilled {public}, {ipc} images per class"
    count = len(manifest["files"])
    head = {
        "license": licence or "other",
        "pretty_name": title,
        "task_categories": ["image-classification"],
        "tags": ["dataset-distillation", "ddbench", method["name"]],
        "size_categories": ["n<1K" if count < 1000 else "1K<n<10K" if count < 10_000 else "10K<n<100K"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "*/*.png"}]}],
    }
    md = escape.markdown  # the manifest may be somebody else's
    params = "\n".join(f"| {md(k)} | {md(json.dumps(v))} |" for k, v in sorted(method["params"].items()))
    labels = "\n".join(
        f"| {i} | {md(folder)} | {md(label)} |"
        for i, (folder, label) in enumerate(zip(manifest["folders"], manifest["classes"]))
    )
    backbone = manifest.get("backbone")
    cost = manifest.get("cost") or {}
    facts = [
        f"- **Method**: {md(method['name'])}, version {md(method['version'])}",
        f"- **Source dataset**: {md(public)} (content digest `{_hex(dataset['digest'])}`), training split only",
        f"- **Images**: {count}, {ipc} per class, {manifest['size']} × {manifest['size']} px, "
        f"{'grey' if manifest['channels'] == 1 else 'RGB'}, PNG",
        f"- **Seed**: {md(manifest.get('seed'))}",
        f"- **Digest of the set**: `{content_digest(manifest)}`",
    ]
    if backbone:
        facts.append(f"- **Diffusion backbone**: {md(_public(backbone['name']))} (key `{_hex(backbone['key'])}`)")
    if cost.get("seconds") is not None:
        facts.append(f"- **Cost**: {cost['seconds']} s on {md(cost.get('device', 'an unknown device'))}")
    terms = (
        f"Licence given by the exporter: `{licence}`." if licence else "No licence was given by the exporter."
    ) + f" The images derive from {md(public)}; its terms apply as well."
    parts = [
        "---\n" + yaml.safe_dump(head, sort_keys=False, allow_unicode=True) + "---",
        f"# {md(title)}",
        f"A synthetic training set: {ipc} images for each of {len(manifest['classes'])} classes, made from the "
        f"training split of {md(public)} by dataset distillation with ddbench {md(manifest.get('ddbench', ''))}.",
        "## How it was made",
        "\n".join(facts),
        "| parameter | value |\n|:---|:---|\n" + params if params else "The method has no parameters.",
        "## How well it does",
        _scores(manifest, rows),
        "## Reading it",
        '```python\nfrom datasets import load_dataset\ndata = load_dataset("path/to/this/folder", '
        'split="train")\n```\n\n'
        "`ddbench evaluate .` trains students on it; `sha256sum -c checksums.sha256` checks every file.",
        "Folder names sort in label order:",
        "| label | folder | class |\n|---:|:---|:---|\n" + labels,
        "## Licence",
        terms,
    ]
    return "\n\n".join(parts) + "\n"


def _hex(digest: str) -> str:
    return "".join(c for c in digest[:16] if c.isalnum())


def _public(name: str) -> str:
    """A name without the path of the machine that it was made on: ``imagefolder:pets``."""
    kind, colon, path = name.partition(":")
    return (
        f"{kind}:{Path(path).name}" if colon and os.sep in path else Path(name).name if name.startswith("/") else name
    )


def _identity(manifest: dict[str, Any]) -> dict[str, Any]:
    """What a board's row says where it is about this method's own sets, made as this one was."""
    from benchmark.core.store.keys import canonical_json
    from benchmark.results.boards.cells import SHORT, inputs_text, precision_name

    method, backbone = manifest["method"], manifest.get("backbone") or {}
    return {
        "dataset_digest": manifest["dataset"]["digest"][:SHORT],
        "ipc": manifest["ipc"],
        "method": method["name"],
        "method_version": str(method["version"]),
        "params": canonical_json(method["params"]),
        "inputs": inputs_text(method.get("inputs", {})),
        "backbone_key": backbone.get("key", "")[:SHORT],
        "precision": precision_name(manifest.get("precision", {})),
        "set": "",  # else a folder that was evaluated under the method's name
    }


def _scores(manifest: dict[str, Any], rows: Sequence[dict]) -> str:
    from benchmark.results.boards.terminal import interval

    wanted = _identity(manifest)
    mine = [r for r in rows if r["seeds"] and all(r[name] == value for name, value in wanted.items())]
    if not mine:
        return "Not recorded with this export."
    lines = [
        f"| {escape.markdown(r['protocol'])} v{escape.markdown(r['protocol_version'])} | "
        f"{escape.markdown(r['student'])} | {escape.markdown(r['teacher'] or '–')} | "
        f"{interval(r['top1_last'], r['top1_last_half'])} | "
        f"{interval(r['gain_over_random'], r['gain_half'], signed=True)} | {r['seeds']} |"
        for r in mine
    ]
    head = "| protocol | student | teacher | top-1 % | gain over random | seeds |\n|:---|:---|:---|---:|---:|---:|\n"
    legend = "Last epoch, mean ± 95 % t interval over seeds; each seed is another set of the same method and settings."
    return head + "\n".join(lines) + "\n\n" + legend
