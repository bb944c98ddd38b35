"""Teachers that come with weights: torchvision's and timm's pretrained ones, and files.

Nothing is unpickled but tensors: safetensors, or ``torch.load(weights_only=True)``.
"""

from __future__ import annotations

import pickle
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmark.core.archives import check_zip
from benchmark.core.errors import DataError, GateError, MissingError, UsageError, unknown_name
from benchmark.core.foreign import open_regular, parse_json, read_json
from benchmark.core.outputs import expanded
from benchmark.core.store import digest_file, digest_of
from benchmark.students import build_student
from benchmark.students.convnet import own_names
from benchmark.teachers.teacher import SUFFIXES, Teacher
from benchmark.training.augment import IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    from benchmark.data import Dataset

ALLOWED = (
    "a student's name (trained here), torchvision:NAME, timm:NAME (pretrained), or FILE or ARCHITECTURE@FILE with a "
    f"file that ends in {', '.join(SUFFIXES)}"
)


def split_name(name: str) -> tuple[str, Path]:
    """``resnet18@weights.pt`` to architecture and file; without ``@`` the architecture is the file's metadata's."""
    architecture, at, file = name.rpartition("@")
    return (architecture if at else "", expanded(file, "--teacher"))


def external_key(name: str) -> str:
    """What identifies the teacher: a file's content with the JSON beside it, or a library's name of a set of weights.

    Raises:
        MissingError: no such file. DataError: the JSON is damaged.
    """
    if name.startswith(("torchvision:", "timm:")):
        return digest_of(["pretrained", _weights_name(name)])
    architecture, file = split_name(name)
    _require(file)
    weights = ["file", architecture, _digest(str(file), file.stat().st_mtime_ns, file.stat().st_size)]
    used = {k: v for k, v in _beside(file).items() if k != "accuracy"}  # a teacher's accuracy changes no label
    return digest_of([*weights, used] if used else weights)


def _beside(file: Path) -> dict[str, Any]:
    """The JSON beside a file of weights; empty where there is none.

    Raises:
        DataError: it is no JSON object.
    """
    path = file.with_suffix(".json")
    if not path.is_file():
        return {}
    found = read_json(path, links=True)
    if not isinstance(found, dict):
        allowed = "an object with any of mean, std, size, accuracy, student"
        raise DataError("the JSON beside the weights is no object", where=str(path), allowed=allowed)
    return found


@lru_cache(maxsize=64)
def _digest(path: str, modified: int, size: int) -> str:
    return digest_file(Path(path))


def external_teacher(dataset: Dataset, name: str, device: str) -> Teacher:
    """A teacher with given weights; on a subset of ImageNet-1K only the subset's rows of the head are kept.

    A safetensors file's metadata, or a JSON of the same name beside any file (it goes first), may say ``student`` (the
    architecture), ``size`` (pixels), ``mean`` and ``std`` (a number a channel, of pixel values in 0..1) and
    ``accuracy`` (top-1 in percent). Without them size, mean and std are the dataset's.

    Raises:
        MissingError: no such file, or weights that cannot be downloaded.
        DataError: not a file of weights, or one that would run code; weights of another architecture.
        GateError: a head for another number of classes.
    """
    if name.startswith(("torchvision:", "timm:")):
        model, accuracy, mean, std, size, resize = _pretrained(dataset, name)
    else:
        (model, accuracy, mean, std, size), resize = _from_file(dataset, name), 1.0
    head = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    if dataset.backbone_classes is not None and head.out_features == 1000 and len(dataset.classes) != 1000:
        rows = torch.tensor(dataset.backbone_classes)
        head.weight = nn.Parameter(head.weight.detach()[rows])
        if head.bias is not None:
            head.bias = nn.Parameter(head.bias.detach()[rows])
        head.out_features, accuracy = len(rows), None
    if head.out_features != len(dataset.classes):
        raise _other_classes(name, head.out_features, dataset)
    key = external_key(name)
    resize = resize if dataset.image_size == size else 1.0
    return Teacher(
        model, name=name, key=key, accuracy=accuracy, mean=mean, std=std, size=size, resize=resize, device=device
    )


def check_fits(dataset: Dataset, name: str) -> None:
    """Refuse torchvision's weights, which know ImageNet-1K's classes, for a dataset of others, before any work.

    Raises:
        GateError: it would be refused later.
    """
    if name.startswith("torchvision:") and dataset.backbone_classes is None and len(dataset.classes) != 1000:
        raise _other_classes(name, 1000, dataset)


def _other_classes(name: str, head: int, dataset: Dataset) -> GateError:
    return GateError(
        f"teacher {name} has a head for {head} classes, {dataset.name} has {len(dataset.classes)}",
        allowed=f"a teacher trained on the classes of {dataset.name}",
        hint="ddbench list students: a student's name as teacher is trained here",
    )


def _weights_name(name: str) -> str:
    library, _, model = name.partition(":")
    if library == "timm":
        import timm

        if not timm.is_model(model):
            raise unknown_name("teacher", model, timm.list_models(), where=f"--teacher {name}")
        config = timm.models.get_pretrained_cfg(model)
        return f"{name} {config.hf_hub_id or config.url}" if config else name
    import torchvision

    if model not in torchvision.models.list_models(module=torchvision.models):
        raise unknown_name("teacher", model, torchvision.models.list_models(module=torchvision.models))
    # V1 weights are what the literature's teachers are (ResNet-18: 69.758)
    return f"{name} {torchvision.models.get_model_weights(model)['IMAGENET1K_V1']}"


def _pretrained(dataset: Dataset, name: str) -> tuple[nn.Module, float | None, Any, Any, int, float]:
    library, _, argument = name.partition(":")
    label = _weights_name(name)
    if dataset.channels != 3:
        raise UsageError(f"teacher {name} takes colour images, {dataset.name} has one channel", where="--teacher")
    whole = len(dataset.classes) == 1000
    try:
        if library == "timm":
            import timm

            model = timm.create_model(argument, pretrained=True)
            config = model.pretrained_cfg
            return model, None, config["mean"], config["std"], config["input_size"][-1], 1 / config["crop_pct"]
        import torchvision

        weights = torchvision.models.get_model_weights(argument)["IMAGENET1K_V1"]
        model = torchvision.models.get_model(argument, weights=weights)
        recorded = weights.meta["_metrics"]["ImageNet-1K"]["acc@1"] if whole else None
        test = weights.transforms()
        resize = test.resize_size[0] / test.crop_size[0]
        return model, recorded, IMAGENET_MEAN, IMAGENET_STD, test.crop_size[0], resize
    except (OSError, RuntimeError) as error:
        raise MissingError(
            f"cannot get the weights of {label}: {error}",
            hint="download them where there is a network and give the file: --teacher ARCHITECTURE@FILE",
        ) from error


def _require(file: Path) -> None:
    if file.suffix not in SUFFIXES:
        raise UsageError(f"{file} does not end as a file of weights does", where="--teacher", allowed=ALLOWED)
    if not file.is_file():
        near = sorted(f.name for f in file.parent.glob("*") if f.suffix in SUFFIXES)[:5] if file.parent.is_dir() else []
        raise MissingError(
            f"no file of weights {file}" + (f"; in {file.parent} are {', '.join(near)}" if near else ""),
            where="--teacher",
            allowed=ALLOWED,
        )


def read_weights(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """``(state dict, metadata)`` of a file from a stranger: tensors only, no code.

    The wrappers ``model`` and ``state_dict`` and the prefix ``module.`` of the field's checkpoints are taken off.

    Raises:
        MissingError: no such file. DataError: damaged, or a pickle that holds more than tensors.
    """
    _require(file)
    metadata: dict[str, str] = {}
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as opened:
                metadata = opened.metadata() or {}
            state = load_file(file)
        else:
            with open_regular(file, links=True) as opened:
                check_zip(opened, file)
                state = torch.load(opened, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, AttributeError, ModuleNotFoundError) as error:
        raise DataError(
            f"{file} holds more than tensors and is refused: unpickling it could run code",
            where=str(file),
            allowed="safetensors, or a state dict that torch.load(weights_only=True) reads",
            hint="save it again where you trust it, with safetensors.torch.save_file(model.state_dict(), FILE)",
        ) from error
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - unpickling raises anything for a damaged file
        raise DataError(f"{file} cannot be read as weights: {error}", where=str(file)) from error
    for key in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(k, str) and _is_dense(v) for k, v in state.items()):
        raise DataError(f"{file} is not a state dict of tensors", where=str(file))
    return {k.removeprefix("module."): v for k, v in state.items()}, metadata


def _is_dense(value: Any) -> bool:
    """Whether it is a tensor that holds its numbers: not one number that is said to be a million."""
    if not isinstance(value, Tensor) or value.layout is not torch.strided or value.is_meta or value.is_quantized:
        return False
    return value.untyped_storage().nbytes() >= value.numel() * value.element_size()


def _from_file(dataset: Dataset, name: str) -> tuple[nn.Module, float | None, Any, Any, int]:
    architecture, file = split_name(name)
    state, metadata = read_weights(file)
    metadata = {**metadata, **_beside(file)}
    architecture = architecture or str(metadata.get("student", ""))
    if not architecture:
        raise UsageError(
            f"{file} does not say its architecture",
            where=f"--teacher {name}",
            allowed="ARCHITECTURE@FILE, or metadata 'student' in the file or in a JSON beside it",
            hint=f"--teacher resnet18@{file}; ddbench list students",
        )
    rows = [v.shape[0] for k, v in state.items() if v.ndim == 2]
    classes = rows[-1] if rows else len(dataset.classes)
    size, recorded = _said(file, metadata, "size", dataset.image_size), _said(file, metadata, "accuracy", None)
    mean, std = (_said(file, metadata, name, getattr(dataset, name)) for name in ("mean", "std"))
    model = build_student(architecture, classes, dataset.channels, size, 0)
    try:
        model.load_state_dict(own_names(state))
    except RuntimeError as error:
        lines = "; ".join(line.strip() for line in str(error).splitlines()[1:4])
        raise DataError(
            f"{file} does not hold weights of {architecture}: {lines}", where=f"--teacher {name}"
        ) from error
    return model, recorded, mean, std, size


_SAID = {  # what metadata may say: the range, and whether it is a whole number, a number or a list of these
    "size": (8, 4096, "a whole number"),
    "accuracy": (0, 100, "a number"),
    "mean": (-1e3, 1e3, "a list of a number, or of three"),
    "std": (1e-6, 1e3, "a list of a number, or of three"),
}


def _said(file: Path, metadata: dict[str, Any], key: str, default: Any) -> Any:
    """What a file's metadata says of itself, which may be text.

    Raises:
        DataError: something else than it should be.
    """
    value = metadata.get(key)
    if value is None:
        return default
    low, high, kind = _SAID[key]
    try:
        value = parse_json(value) if isinstance(value, str) else value
        numbers = tuple(float(v) for v in (value if kind.startswith("a list") else [value]))
        fits = all(low <= n <= high for n in numbers) and (len(numbers) in (1, 3))
        if not fits or (kind == "a whole number" and numbers[0] != int(numbers[0])):
            raise ValueError("out of range")
    except (ValueError, TypeError, OverflowError) as error:
        shown = str(value)[:60]
        raise DataError(
            f"{file.name} says {key} {shown!r}", where=str(file), allowed=f"{kind}, from {low:g} to {high:g}"
        ) from error
    if kind.startswith("a list"):
        return numbers
    return int(numbers[0]) if kind == "a whole number" else numbers[0]
