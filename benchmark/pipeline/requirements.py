"""Everything a command needs that is not there, said at once and before torch is imported.

Nothing here knows a dataset or a method by name: datasets say where they look for their files (`DatasetInfo.find`) and
whether ImageNet's weights fit them, methods what they use (`Method.needs`).
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from benchmark.core.cost import PROCESS, available_memory
from benchmark.core.errors import DDBenchError, MissingError
from benchmark.core.outputs import expanded
from benchmark.data.loading import VALIDATION, data_root
from benchmark.methods import Needs
from benchmark.pipeline.request import DEFAULT_PROTOCOLS, Request, needs_of
from benchmark.plugins import DatasetInfo
from benchmark.plugins.registry import registry

LARGE_BACKBONE = 500 << 20  # bytes of DiT weights above which sampling on a CPU takes days: DiT-B/2 in float32


@dataclass(frozen=True)
class Requirement:
    """One thing a command needs: ``found`` says what is there or what was looked for, ``fix`` the next command."""

    name: str
    ok: bool
    found: str
    fix: str = ""


def check_requirements(request: Request, device: str = "auto", *, students: bool = True) -> None:
    """Raise one error that lists all that is missing for a run; arguments as in :func:`requirements`.

    Raises:
        MissingError: a numbered list of what is missing, with the command that fixes each.
        UsageError: an unknown dataset, method, parameter or protocol.
    """
    missing = [r for r in requirements(request, device, students=students) if not r.ok]
    if not missing:
        return
    lines = [f"  {i}. {r.name}: {r.found}\n     next: {r.fix}" for i, r in enumerate(missing, 1)]
    count = "1 thing is" if len(missing) == 1 else f"{len(missing)} things are"
    raise MissingError(
        f"{count} missing for {request.dataset!r}:\n" + "\n".join(lines),
        hint=f"ddbench doctor --dataset {shlex.quote(request.dataset)}   checks again",
    )


def requirements(request: Request, device: str = "auto", *, students: bool = True) -> list[Requirement]:
    """What a run needs from outside, there or not: data, backbone, teacher, GPU; without loading any of it.

    Args:
        device: ``cpu`` asks for no GPU.
        students: whether students are trained, under the request's protocols (with their teachers).
    """
    info = dataset_info(request.dataset)
    methods = () if request.set_dirs else request.methods
    needs = [needs_of(request, name) for name in methods]
    listed = [data_requirement(request)]
    users = [need for need in needs if need.backbone]
    if users:
        largest = max(users, key=lambda need: need.batch)
        listed += backbone_requirements(request.dataset, request.backbone, device, largest)
    size = request.dataset_options.get("image_size") or info.image_size
    if size or request.teacher:  # else the size is known only when the images are looked at, and with it the teacher
        protocols = (request.protocols or DEFAULT_PROTOCOLS) if students else ()
        asked = replace(request, protocols=protocols)
        listed += teacher_requirements(info, teacher_names(asked, size, any(need.teacher for need in needs)))
    return [r for r in listed if r is not None]


def dataset_info(name: str) -> DatasetInfo:
    """What is registered of a dataset; ``NAME@val`` is ``NAME``."""
    return registry().get("dataset", name.removesuffix(VALIDATION), where="--dataset")


def data_requirement(request: Request) -> Requirement | None:
    """Whether the data is there; None for datasets that need none or that only loading can tell."""
    info, root = dataset_info(request.dataset), data_root(request.data_root)
    if not info.find:
        return None
    try:
        return Requirement("data", True, str(info.load(info.find)(request.dataset.removesuffix(VALIDATION), root)))
    except MissingError as error:
        if request.dataset_options.get("download") and info.download and root is not None:
            return Requirement("data", True, f"will be downloaded to {root}")
        return Requirement("data", False, f"{error.what}; {error.where}", error.hint)


def backbone_requirements(dataset: str, backbone: str, device: str, needs: Needs) -> list[Requirement]:
    """The diffusion backbone (nothing, if it is trained here) and, for a large one, a GPU."""
    from benchmark.backbones.resolve import IMAGENET_BACKBONE

    name = backbone or (IMAGENET_BACKBONE if dataset_info(dataset).imagenet_classes else "")
    if not name or name in registry().names("backbone"):
        return []
    from benchmark.backbones import folder
    from benchmark.backbones.shape import KNOWN, shape_of

    shape, large = KNOWN.get(name), is_large(name)
    try:
        path = folder.resolve(name)
        folder.check(path)
    except DDBenchError as error:
        found = [Requirement("backbone", False, error.what, error.hint)]
    else:
        shape = shape_of(path)
        found = [Requirement("backbone", True, str(path))]
    need = shape.memory(needs.batch, training=needs.training) if shape else 0
    if large and device != "cpu":
        found.append(gpu_requirement(name, need, needs))
    elif shape:
        found.append(memory_requirement(need, needs))
    return found


def is_large(name: str) -> bool:
    """Whether a backbone (folder or hub id) is so large that it needs a GPU; so is a hub id that is not here."""
    from benchmark.backbones import folder

    try:
        path = folder.resolve(name)
    except DDBenchError:
        return not expanded(name, "--backbone").exists()
    files = (path / "transformer").glob("diffusion_pytorch_model*")
    return sum(f.stat().st_size for f in files if f.is_file()) > LARGE_BACKBONE


def default_precision(request: Request, device: str) -> str:
    """What ``--precision auto`` means: bf16 where a method needs a large pretrained backbone and a GPU may run it.

    In fp32 the inversion of ImageNet-1K by DiT-XL/2 takes three to eight times as long, and nothing is known to gain.
    """
    from benchmark.backbones.resolve import IMAGENET_BACKBONE

    name = request.backbone or (IMAGENET_BACKBONE if dataset_info(request.dataset).imagenet_classes else "")
    if not name or device == "cpu" or request.set_dirs or name in registry().names("backbone"):
        return "fp32"
    needing = any(needs_of(request, m).backbone for m in request.methods)
    return "bf16" if needing and is_large(name) else "fp32"


def memory_requirement(need: int, needs: Needs) -> Requirement:
    """Main memory for a worker on the CPU; ``need`` bytes is what `Shape.memory` predicts."""
    free = available_memory()
    need += PROCESS
    text = f"a worker takes about {need / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
    if free < need:
        return Requirement("memory", False, text, f"end other programs{_smaller(needs)}, or a smaller --backbone")
    return Requirement("memory", True, text)


def gpu_requirement(backbone: str, need: int, needs: Needs) -> Requirement:
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
    text = f"{name}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free; "
    text += f"{needs.batch} latents together take {need / 1e9:.1f} GB"
    if free < need:
        fix = f"free {need / 1e9:.1f} GB of its memory (see nvidia-smi){_smaller(needs)}"
        return Requirement("GPU", False, text, fix)
    return Requirement("GPU", True, text)


def _smaller(needs: Needs) -> str:
    return f", or --set {needs.batch_parameter}=8" if needs.batch_parameter else ""


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


def teacher_names(request: Request, image_size: int | None, used: bool) -> set[str]:
    """Members of the teachers of a request: the given one, else that of each of its protocols; and, where they are
    ``used`` by a method or a backbone's report card, that of `soft`."""
    from benchmark.evaluation.protocols import load_protocol

    imagenet = bool(dataset_info(request.dataset).imagenet_classes)
    protocols = [*request.protocols, *(["soft"] if used else [])]
    its = {load_protocol(p).teacher_for(request.dataset, image_size or 224, imagenet) for p in protocols}
    return {part for name in ({request.teacher} if request.teacher else its) for part in name.split("+")}


def teacher_requirements(info: DatasetInfo, names: set[str]) -> list[Requirement | None]:
    """The weights of teachers that are not trained here."""
    unfit = {n for n in names if info.imagenet_classes is False and n.startswith("torchvision:")}
    return [_unfit(info.name, n) if n in unfit else teacher_requirement(n) for n in sorted(names)]


def _unfit(dataset: str, name: str) -> Requirement:
    detail = f"the weights of {name} know ImageNet-1K's classes, not those of {dataset}"
    return Requirement("teacher", False, detail, "name a student (ddbench list students): it is trained here")


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
            fix = f"curl -L --create-dirs -o {shlex.quote(f'{cache}/resnet18-f37072fd.pth')} {url}"
        return Requirement("teacher", False, f"the weights of {name} are not in {cache}", fix)
    if "/" in name or re.search(r"\.(safetensors|pth?)$", name):
        file = name.rpartition("@")[2]  # of ARCHITECTURE@FILE
        if expanded(file, "--teacher").is_file():
            return Requirement("teacher", True, file)
        return Requirement("teacher", False, f"no file {file}", "check the path given with --teacher")
    return None
