"""Everything a command needs that is not there, said at once and before torch is imported."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.core.cost import PROCESS, available_memory
from benchmark.core.errors import DDBenchError, MissingError
from benchmark.core.outputs import expanded
from benchmark.data.loading import VALIDATION, data_root
from benchmark.data.sources import SOURCES, missing_data
from benchmark.plugins.registry import registry

# Where each dataset is looked for: "module:function", called with the data root; None means it is not there.
FINDERS = {
    "fashionmnist": "fashionmnist:find",
    "cifar10": "cifar:find_cifar10",
    "cifar100": "cifar:find_cifar100",
    "svhn": "svhn:find",
    "tinyimagenet": "tinyimagenet:find",
    **dict.fromkeys(("imagenet1k", "imagenette", "imagewoof", "imagenet100", "imageidc"), "imagenet:find"),
}
OTHER_CLASSES = ("digits", "fashionmnist", "cifar10", "cifar100", "svhn")  # than ImageNet-1K's
LARGE_BACKBONE = 500 << 20  # bytes of DiT weights above which sampling on a CPU takes days: DiT-B/2 in float32
TOGETHER = 64  # latents inverted together: what D3HR's invert_batch is unless set


@dataclass(frozen=True)
class Requirement:
    """One thing a command needs: ``found`` says what is there or what was looked for, ``fix`` the next command."""

    name: str
    ok: bool
    found: str
    fix: str = ""


def check_requirements(
    dataset: str,
    root: str | None = None,
    backbone: str = "",
    methods: Sequence[str] = (),
    *,
    teacher: str = "",
    protocols: Sequence[str] = (),
    device: str = "auto",
    options: dict[str, Any] | None = None,
) -> None:
    """Raise one error that lists all that is missing for a run; the arguments are those of the command line.

    Raises:
        MissingError: a numbered list of what is missing, with the command that fixes each.
        UsageError: an unknown dataset, method or protocol.
    """
    found = requirements(dataset, root, backbone, methods, teacher, protocols, device, options)
    missing = [r for r in found if not r.ok]
    if not missing:
        return
    lines = [f"  {i}. {r.name}: {r.found}\n     next: {r.fix}" for i, r in enumerate(missing, 1)]
    count = "1 thing is" if len(missing) == 1 else f"{len(missing)} things are"
    raise MissingError(
        f"{count} missing for {dataset!r}:\n" + "\n".join(lines),
        hint=f"ddbench doctor --dataset {dataset}   checks again",
    )


def requirements(
    dataset: str,
    root: str | None = None,
    backbone: str = "",
    methods: Sequence[str] = (),
    teacher: str = "",
    protocols: Sequence[str] = (),
    device: str = "auto",
    options: dict[str, Any] | None = None,
) -> list[Requirement]:
    """What a run needs from outside, there or not: data, backbone, teacher, GPU; without loading any of it."""
    base = dataset.removesuffix(VALIDATION)
    info = registry().get("dataset", base, where="--dataset")
    needs: set[str] = set()
    for method in methods:
        needs |= registry().get("method", method, where="--method").load().requires
    listed = [data_requirement(base, data_root(root), options or {})]
    if "backbone" in needs:
        listed += backbone_requirements(base, backbone, device)
    size = (options or {}).get("image_size") or info.image_size
    if size or teacher:  # else the size is known only when the images are looked at, and with it the teacher
        listed += teacher_requirements(base, teacher, protocols, size, "teacher" in needs)
    return [r for r in listed if r is not None]


def data_requirement(name: str, root: Path | None, options: dict[str, Any]) -> Requirement | None:
    """Whether the data is there; None for datasets that need none or that only their plug-in knows."""
    if name.startswith("imagefolder:"):
        from benchmark.data.folders import find
        from benchmark.data.trees import split_roots

        try:
            split_roots(found := find(name.removeprefix("imagefolder:"), root))
        except MissingError as error:
            return Requirement("data", False, f"{error.what} ({error.where})", f"{error.hint}: {error.allowed}")
        return Requirement("data", True, str(found))
    if name not in FINDERS:
        return None
    found = find_data(name, root)
    if found is not None:
        return Requirement("data", True, str(found))
    if options.get("download") and SOURCES[name].download and root is not None:
        return Requirement("data", True, f"will be downloaded to {root}")
    error = missing_data(name, root)
    return Requirement("data", False, f"{error.what}; {error.where}", error.hint)


def find_data(name: str, root: Path | None) -> Path | None:
    """Where the data of a built-in dataset lies, or None."""
    module, _, attribute = FINDERS[name].partition(":")
    finder = getattr(importlib.import_module(f"benchmark.data.{module}"), attribute)
    found = finder(name, root) if module == "imagenet" else finder(root)
    return getattr(found, "base", found)


def backbone_requirements(dataset: str, backbone: str, device: str) -> list[Requirement]:
    """The diffusion backbone (nothing, if it is trained here) and, for a large one, a GPU."""
    from benchmark.backbones.resolve import IMAGENET_BACKBONE

    name = backbone or (IMAGENET_BACKBONE if imagenet_family(dataset) else "")
    if not name or name in registry().names("backbone"):
        return []
    from benchmark.backbones import folder
    from benchmark.backbones.shape import KNOWN, shape_of

    shape = KNOWN.get(name)
    try:
        path = folder.resolve(name)
        folder.check(path)
    except DDBenchError as error:
        found = [Requirement("backbone", False, error.what, error.hint)]
        large = not expanded(name, "--backbone").exists()  # a hub id: a pretrained one
    else:
        shape = shape_of(path)
        found = [Requirement("backbone", True, str(path))]
        weights = sum(f.stat().st_size for f in (path / "transformer").glob("diffusion_pytorch_model*") if f.is_file())
        large = weights > LARGE_BACKBONE
    need = shape.memory(TOGETHER) if shape else 0
    if large and device != "cpu":
        found.append(gpu_requirement(name, need))
    elif shape:
        found.append(memory_requirement(need))
    return found


def memory_requirement(need: int) -> Requirement:
    """Main memory for a worker on the CPU; ``need`` bytes is what `Shape.memory` predicts."""
    free = available_memory()
    need += PROCESS
    text = f"a worker takes about {need / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
    if free < need:
        return Requirement(
            "memory", False, text, "end other programs, or --set invert_batch=8, or a smaller --backbone"
        )
    return Requirement("memory", True, text)


def gpu_requirement(backbone: str, need: int) -> Requirement:
    """A CUDA device with ``need`` bytes free."""
    devices = gpus()
    if not devices:
        return Requirement(
            "GPU",
            False,
            f"no CUDA device; {backbone} on a CPU takes days",
            "run on a machine with a GPU, or --backbone small (trained here), or --device cpu to run it all the same",
        )
    name, free, total = max(devices, key=lambda d: d[1])
    text = (
        f"{name}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free; {TOGETHER} latents together take {need / 1e9:.1f} GB"
    )
    if free < need:
        fix = f"free {need / 1e9:.1f} GB of its memory (see nvidia-smi), or --set invert_batch=8"
        return Requirement("GPU", False, text, fix)
    return Requirement("GPU", True, text)


def gpus() -> list[tuple[str, int, int]]:
    """(name, free bytes, total bytes) of each CUDA device that this process may use.

    nvidia-smi says it; where there is none torch does, if it is imported already: what asks it for free memory then
    holds half a GB of every GPU until it ends, and eight ranks that ask for eight GPUs hold 4 GB of each.
    """
    found = _nvidia_smi(os.environ.get("CUDA_VISIBLE_DEVICES"))
    if found is None and "torch" in sys.modules:
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return [(torch.cuda.get_device_name(i), *torch.cuda.mem_get_info(i)) for i in range(count)]
    return found or []


def _nvidia_smi(visible: str | None) -> list[tuple[str, int, int]] | None:
    """What nvidia-smi says of the ``visible`` devices (numbers or UUIDs with commas; None: all); None: it cannot."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    if visible is not None and visible.strip() in ("", "-1"):
        return []
    query = [command, "--query-gpu=name,memory.free,memory.total", "--format=csv,noheader,nounits"]
    query += [f"--id={visible}"] if visible is not None else []
    try:
        text = subprocess.run(query, capture_output=True, text=True, timeout=4, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    rows = [line.rsplit(",", 2) for line in text.splitlines() if line.count(",") >= 2]
    return [(name.strip(), int(free) << 20, int(total) << 20) for name, free, total in rows if total.strip().isdigit()]


def imagenet_family(dataset: str) -> bool:
    """Whether the classes of a built-in dataset are ImageNet-1K's, known from its name alone."""
    name = dataset.removesuffix("@val")
    return name == "tinyimagenet" or FINDERS.get(name) == "imagenet:find"


def teacher_requirements(
    dataset: str, teacher: str, protocols: Sequence[str], image_size: int | None, used: bool
) -> list[Requirement]:
    """The weights of a teacher that is not trained here."""
    parts = sorted(teacher_names(dataset, teacher, protocols, image_size, used))
    other = dataset in OTHER_CLASSES
    found = [_unfit(dataset, p) if other and p.startswith("torchvision:") else teacher_requirement(p) for p in parts]
    return [r for r in found if r is not None]


def _unfit(dataset: str, name: str) -> Requirement:
    detail = f"the weights of {name} know ImageNet-1K's classes, not those of {dataset}"
    return Requirement("teacher", False, detail, "name a student (ddbench list students): it is trained here")


def teacher_names(dataset: str, teacher: str, protocols: Sequence[str], image_size: int | None, used: bool) -> set[str]:
    """Members of the teachers of a request: the given one, else that of each protocol; and, where they are ``used`` by
    a method or a backbone's report card, that of `soft`."""
    from benchmark.evaluation.protocols import load_protocol

    if used:
        protocols = [*protocols, "soft"]
    its = {load_protocol(p).teacher_for(dataset, image_size or 224, imagenet_family(dataset)) for p in protocols}
    return {part for name in ({teacher} if teacher else its) for part in name.split("+")}


def teacher_requirement(name: str) -> Requirement | None:
    """Weights of ``torchvision:NAME`` in torch's cache, or a file; None where there is nothing to look for."""
    if name.startswith("torchvision:"):
        model = name.partition(":")[2]
        home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "torch"
        cache = expanded(home, "TORCH_HOME") / "hub" / "checkpoints"
        found = sorted(cache.glob(f"{model}-*.pth"))
        if found:
            return Requirement("teacher", True, str(found[0]))
        fix = f"python -c \"import torchvision; torchvision.models.get_model('{model}', weights='IMAGENET1K_V1')\""
        if model == "resnet18":  # torchvision.models.ResNet18_Weights.IMAGENET1K_V1, 46,830,571 bytes
            url = "https://download.pytorch.org/models/resnet18-f37072fd.pth"
            fix = f"curl -L --create-dirs -o {cache}/resnet18-f37072fd.pth {url}"
        return Requirement("teacher", False, f"the weights of {name} are not in {cache}", fix)
    if "/" in name or re.search(r"\.(safetensors|pth?)$", name):
        file = name.rpartition("@")[2]  # of ARCHITECTURE@FILE
        if expanded(file, "--teacher").is_file():
            return Requirement("teacher", True, file)
        return Requirement("teacher", False, f"no file {file}", "check the path given with --teacher")
    return None
