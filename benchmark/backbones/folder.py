"""Backbone folders on disk: where they are, whether they are one, what they say about themselves, their digest."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from benchmark.core.errors import DataError, MissingError, UsageError
from benchmark.core.outputs import expanded
from benchmark.core.store import MANIFEST, default_cache, digest_file, digest_of
from benchmark.core.store.keys import is_hashing_anew

ABOUT = "ddbench.json"  # dataset, classes, label dropout, settings: what diffusers' format has no field for
REPORT = "report.json"
CHECKOUT = Path(__file__).parents[2]
SHIPPED = Path("results/backbones")  # in a checkout: a folder a dataset, in none of the packages
PARTS = ("transformer", "vae", "scheduler")
HEADER_BYTES = 100_000_000  # the format's limit of a header


def resolve(folder_or_hub_id: str | Path) -> Path:
    """The local folder of a path or of a hub id (``owner/name``) that is in the Hugging Face cache.

    ``results/backbones/NAME`` is found in the checkout too, whatever the working folder.

    Nothing is downloaded: weights of gigabytes come only when a user asks for them.

    Raises:
        MissingError: neither is there; says how to get it.
    """
    path = expanded(folder_or_hub_id, "--backbone")
    if path.is_dir():
        return path
    if path.parent == SHIPPED and (CHECKOUT / path).is_dir():
        return CHECKOUT / path  # the same name in every working folder
    if path.exists():
        raise not_a_backbone(path, "it is a file")
    text = str(folder_or_hub_id)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", text):
        raise MissingError(f"no backbone folder {text}", where="--backbone", hint="ddbench backbone train --help")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(text, local_files_only=True))
    except Exception as error:  # noqa: BLE001 - the hub's client raises several kinds for "not in the cache"
        raise MissingError(
            f"backbone {text} is neither a folder here nor in the Hugging Face cache",
            where="--backbone",
            hint=f"hf download {text}   (or: hf download {text} --local-dir DIR on a machine with network, copy DIR "
            "here, and name DIR)",
        ) from error


def check(path: Path) -> None:
    """Refuse a folder that does not have the three parts of a DiTPipeline.

    Raises:
        UsageError: says which part is missing or what it is instead.
    """
    if not path.is_dir():
        raise MissingError(f"no backbone folder {path}", where="--backbone")
    for part in PARTS:
        name = "scheduler_config.json" if part == "scheduler" else "config.json"
        file = path / part / name
        if not file.is_file():
            raise not_a_backbone(path, f"{part}/{name} is missing")
        try:
            config = json.loads(file.read_text())
        except ValueError as error:
            raise not_a_backbone(path, f"{part}/{name} is not JSON ({error})") from None
        if part == "transformer":
            kind = config.get("_class_name")
            if kind not in ("DiTTransformer2DModel", "Transformer2DModel") or "num_embeds_ada_norm" not in config:
                raise not_a_backbone(path, f"its transformer is a {kind}, not a class-conditional DiT")
        if part == "vae" and config.get("_class_name") != "AutoencoderKL":
            raise not_a_backbone(path, f"its vae is a {config.get('_class_name')}, not an AutoencoderKL")
        if part != "scheduler":
            _check_weights(path, part)


def _check_weights(path: Path, part: str) -> None:
    """Weights are there under a name that diffusers reads, and their safetensors files are whole."""
    found = sorted((path / part).glob("diffusion_pytorch_model*"))
    if not found:
        raise not_a_backbone(path, f"{part}/ has no weights (diffusion_pytorch_model.safetensors)")
    read = {f"diffusion_pytorch_model.{end}{index}" for end in ("safetensors", "bin") for index in ("", ".index.json")}
    if not read & {file.name for file in found}:
        plain = f"diffusion_pytorch_model{found[0].suffix}"
        raise not_a_backbone(path, f"{part}/ has a variant of the weights only: rename {found[0].name} to {plain}")
    for file in found:
        if file.suffix == ".safetensors" and (size := file.stat().st_size) != (wanted := _promised(file)):
            told = f": {size:,} bytes of {wanted:,}" if wanted > 0 else ", without the format's header"
            raise not_a_backbone(path, f"{part}/{file.name} is cut off or changed{told}")


def _promised(file: Path) -> int:
    """How many bytes a safetensors file's header says that it has; -1 where there is no header."""
    with open(file, "rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        try:
            header = json.loads(opened.read(length if length < HEADER_BYTES else 0))
            ends = [about["data_offsets"][1] for name, about in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError):
            return -1
    return 8 + length + max(ends, default=0)


def has_safetensors(part: Path) -> bool:
    """Whether a part's weights are safetensors: diffusers is then told to read nothing else. Hugging Face's DiT-XL/2
    has ``.bin`` files, which diffusers reads with ``torch.load(weights_only=True)``."""
    return any(part.glob("*.safetensors"))


def not_a_backbone(path: Path, why: str) -> UsageError:
    """The error for a folder that is something else."""
    return UsageError(
        f"not a backbone folder: {why}",
        where=str(path),
        allowed="a folder in diffusers' DiTPipeline format: transformer/ (DiT), vae/ (AutoencoderKL), scheduler/",
        hint="hf download facebook/DiT-XL-2-256 --local-dir DIR, or ddbench backbone train --dataset NAME",
    )


def about(path: Path) -> dict:
    """What ddbench wrote beside the parts; empty for a folder from elsewhere."""
    file = path / ABOUT
    return json.loads(file.read_text()) if file.is_file() else {}


def report(path: Path) -> dict:
    """The report card, or an empty dict."""
    file = path / REPORT
    return json.loads(file.read_text()) if file.is_file() else {}


def external_key(folder_or_hub_id: str | Path) -> str:
    """Content digest of a user's backbone (configuration and weights of its parts), cached by size and time.

    Raises:
        DataError: it was made here and is no longer what was written.
    """
    path = resolve(folder_or_hub_id)
    check(path)
    _check_unchanged(path)
    return digest_of({part: digest(path / part) for part in PARTS} | {"about": about(path)})


def _check_unchanged(path: Path) -> None:
    """Where ddbench made the folder (it then holds the list of its files' digests), each file must be as written."""
    if not (path / MANIFEST).is_file():
        return
    for name, written in json.loads((path / MANIFEST).read_text())["files"].items():
        file = path / name
        if not file.is_file() or _cached_digest(file) != written["sha256"]:
            raise DataError(
                f"{file} {'does not have the digest it was written with' if file.is_file() else 'is missing'}",
                where="--backbone",
                hint="repeat the `ddbench backbone` command that made it (it sets the damaged folder aside); "
                f"if you changed it on purpose, remove {path / MANIFEST}",
            )


def digest(folder: Path) -> str:
    """Digest of the files in ``folder``: names and contents; cached by path, size and modification time."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix in (".json", ".safetensors", ".bin"))
    return digest_of({str(p.relative_to(folder)): _cached_digest(p) for p in files})


def _cached_digest(file: Path) -> str:
    stat = file.stat()
    if stat.st_size < 1 << 20:
        return digest_file(file)
    state = digest_of([str(file.resolve()), stat.st_size, stat.st_mtime_ns])
    note = default_cache() / "digests" / state
    if not is_hashing_anew() and note.is_file() and len(text := note.read_text()) == 64:
        return text
    found = digest_file(file)
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        temporary = note.with_name(f"{note.name}.{os.getpid()}")
        temporary.write_text(found)
        os.replace(temporary, note)
    except OSError:
        pass  # only a cache
    return found


def difference(first: Path, second: Path) -> str:
    """In words, how far the weights of two folders of one recipe are apart."""
    import torch
    from safetensors.torch import load_file

    most = 0.0
    for part in ("vae", "transformer"):
        name = f"{part}/diffusion_pytorch_model.safetensors"
        one, two = load_file(first / name), load_file(second / name)
        for key, value in one.items():
            if not torch.equal(value, two[key]):
                most = max(most, float((value - two[key]).abs().max()))
    return "equal bit for bit" if most == 0 else f"weights differ by up to {most:.3g} (another processor or torch)"
