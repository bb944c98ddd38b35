"""Find or train a teacher."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from benchmark.core import compute, distributed
from benchmark.core.compute import derive_seed, fast_layout, generator
from benchmark.core.store import Stage, Store, digest_of
from benchmark.students import build_student, student_version
from benchmark.teachers.recipes import Recipe, recipe_for
from benchmark.teachers.teacher import SUFFIXES, Ensemble, Teacher

if TYPE_CHECKING:
    from benchmark.data import Dataset

VERSION = 1


def teacher_stage(dataset: Dataset, name: str, recipe: Recipe | None = None) -> Stage:
    """The stage of a teacher that is trained here: ``name`` is a student's name."""
    recipe = recipe or recipe_for(dataset)
    params = {"student": name, "recipe": recipe.document(), **student_version(name)}
    precision = compute.Precision(autocast=recipe.autocast).document()
    return Stage("teacher", VERSION, params, {"dataset": dataset.digest}, 0, precision)


def is_external(name: str) -> bool:
    """Whether the teacher comes with weights: a file, or ``torchvision:``/``timm:`` pretrained."""
    return name.startswith(("torchvision:", "timm:")) or "@" in name or "/" in name or name.endswith(SUFFIXES)


def teacher_key(dataset: Dataset, name: str) -> str:
    """What identifies the teacher, known before it is there; ``a+b`` is an ensemble."""
    parts = name.split("+")
    if len(parts) > 1:
        return digest_of([teacher_key(dataset, part) for part in parts])
    if is_external(name):
        from benchmark.teachers.external import external_key

        return external_key(name)
    return teacher_stage(dataset, name).key


def get_teacher(store: Store, dataset: Dataset, name: str, device: str = "cpu") -> Teacher:
    """The teacher ``name`` for the dataset: trained once and cached, or given.

    Args:
        name: a student's name (trained here by the dataset's recipe), ``torchvision:NAME`` or ``timm:NAME``
            (pretrained), ``ARCHITECTURE@FILE`` or a safetensors file that names its own architecture (a JSON beside
            either may hold its normalisation: :func:`benchmark.teachers.external.external_teacher`), or several
            of these joined by ``+``.

    Raises:
        UsageError: unknown name. MissingError: weights that are not there. DataError: a file that is not weights.
    """
    parts = name.split("+")
    if len(parts) > 1:
        members = [get_teacher(store, dataset, part, device) for part in parts]
        return _ensemble(members, dataset, name)
    if is_external(name):
        from benchmark.teachers.external import external_teacher

        return external_teacher(dataset, name, device)
    recipe = recipe_for(dataset)
    stage = teacher_stage(dataset, name, recipe)
    folder = distributed.build(store, stage, lambda out: _train(store, stage, dataset, name, recipe, device, out))
    report = json.loads((folder / "report.json").read_text())
    model = build_student(name, len(dataset.classes), dataset.channels, dataset.image_size, 0)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return Teacher(
        model,
        name=name,
        key=stage.key,
        accuracy=report["accuracy"],
        mean=dataset.mean,
        std=dataset.std,
        size=dataset.image_size,
        device=device,
    )


def _ensemble(members: list[Teacher], dataset: Dataset, name: str) -> Ensemble:
    from benchmark.training.testing import accuracy, test_set

    team = Ensemble(members, name=name, key=teacher_key(dataset, name), accuracy=None)
    if all(m.accuracy is not None for m in members):
        images, labels = test_set(dataset, device=team.device)
        team.accuracy = accuracy(team.logits(images), labels)[0]
    return team


def _train(store: Store, stage: Stage, dataset: Dataset, name: str, recipe: Recipe, device: str, out: Path) -> None:
    """Train by the recipe, resuming from the last checkpoint; what is kept is the average of the weights."""
    from benchmark.training.augment import Augmenter
    from benchmark.training.loop import Averaged, train
    from benchmark.training.testing import accuracy, predict, test_set

    test_images, test_labels = test_set(dataset, device=device)
    dataset = dataset.without_test()  # training sees no more
    with compute.prepared("teacher"):
        images, labels = _images(dataset, device), torch.tensor(dataset.train.labels).to(device)
        augment = Augmenter([dict(e) for e in recipe.augment], dataset.image_size, dataset.mean, dataset.std)
        model = build_student(name, len(dataset.classes), dataset.channels, dataset.image_size, 0)
        model = fast_layout(model.to(device)).train()
        distributed.synchronise_norms(model)
        state = Averaged(
            model,
            recipe.lr,
            recipe.weight_decay,
            keep=lambda done: min(recipe.ema, (1 + done) / (10 + done)),
            betas=(0.9, 0.999),
            clip=None,
            spare_vectors=True,
        )
        each = max(1, len(images) // recipe.batch)

        @functools.lru_cache(maxsize=1)
        def order(epoch: int) -> torch.Tensor:
            return torch.randperm(len(images), generator=generator("teacher", "order", epoch))

        def step(done: int) -> torch.Tensor:
            epoch, place = divmod(done, each)
            index = order(epoch)[place * recipe.batch : (place + 1) * recipe.batch]
            there = index.to(device, non_blocking=True)  # a blocking copy would wait for the step before
            torch.manual_seed(derive_seed("teacher", "layers", done))
            x = augment(images[index if isinstance(images, _Read) else there], generator("teacher", "batch", done))
            rows, share = distributed.part(len(x))
            with compute.Precision(autocast=recipe.autocast).context(device):
                logits = model(x[rows]).float()
            loss = F.cross_entropy(logits, labels[there][rows], label_smoothing=recipe.label_smoothing) * share
            loss.backward()
            state.step(done, _one_cycle(done, recipe))
            return loss.detach()

        with torch.random.fork_rng(devices=[]):
            train(store, stage, f"teacher {name}", recipe.steps, state, step, evaluations=0)
        state.swap()
        top1, top5 = accuracy(predict(model, test_images, augment.normalise), test_labels)
        save_file({k: v.contiguous().cpu() for k, v in model.state_dict().items()}, out / "model.safetensors")
        (out / "report.json").write_text(json.dumps({"accuracy": top1, "top5": top5, "steps": recipe.steps}, indent=1))


def _one_cycle(step: int, recipe: Recipe) -> float:
    """Linear rise, then linear fall to zero."""
    rise = recipe.warmup * recipe.steps
    return (step + 1) / rise if step < rise else (recipe.steps - step) / (recipe.steps - rise)


class _Read:
    """The training images where they do not fit in memory: read anew for every batch."""

    def __init__(self, dataset: Dataset, device: str) -> None:
        self.split, self.device = dataset.train, device

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: torch.Tensor) -> torch.Tensor:
        return self.split.images(index.numpy()).to(self.device, non_blocking=True)


def _images(dataset: Dataset, device: str) -> torch.Tensor | _Read:
    """Training images uint8 ``[n, C, side, side]`` by index: resident on the device where they fit."""
    from benchmark.training.testing import memory_limit

    size = len(dataset.train) * dataset.channels * dataset.image_size**2
    if size > memory_limit() or (device.startswith("cuda") and size > torch.cuda.mem_get_info(device)[0] // 2):
        return _Read(dataset, device)
    return dataset.train.images(range(len(dataset.train))).to(device)
