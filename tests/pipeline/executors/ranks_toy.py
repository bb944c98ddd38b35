"""Trains a tiny backbone, teacher and student on all the ranks that torchrun started, and saves what they answer.

Answers are compared, not weights: AdamW walks at random along weights whose gradient is zero by construction (a bias
in front of a norm, a key's bias in attention), and no answer depends on them.

    torchrun --nproc-per-node 2 ranks_toy.py ROOT        (or without torchrun: one process)

Needs tests/backbones on PYTHONPATH.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from toy_backbones import TINY, make_dataset

from benchmark.backbones import load_backbone, train_backbone
from benchmark.core import distributed
from benchmark.core.compute import Precision
from benchmark.core.store import Store
from benchmark.evaluation import train_student
from benchmark.evaluation.protocols import load_protocol
from benchmark.students import build_student
from benchmark.teachers import Teacher, get_teacher
from benchmark.training.loop import Averaged

# soft labels, mixing, parts of a batch: 7 images in parts of 2, 2, 2 and 1, of which one rank gets none
STUDENT = {"steps": 18, "batch": 7, "accumulate": 3, "optimizer": "sgd", "lr": 0.02, "ema": 0.9, "warmup": 0.0}


def main(root: Path) -> None:
    """Writes the answers of all four networks into ``root/answers.safetensors`` (the first rank does)."""
    store, dataset = Store(root / "store"), make_dataset()
    settings = {**TINY, "dit_batch": 9, "vae_steps": 30}
    with distributed.together():
        try:
            killed_at(25, lambda: train_backbone(store, dataset, "tiny", **settings))
        except RuntimeError:
            folder = train_backbone(store, dataset, "tiny", **settings)  # from the checkpoint at step 20
        teacher = get_teacher(store, dataset, "convnet3_bn")
        images = dataset.train.images(range(20))
        result = train_student(
            images,
            torch.from_numpy(dataset.train.labels[:20]),
            dataset=dataset,
            protocol=load_protocol("soft", STUDENT),
            student="convnet3_bn",
            teacher=fixed_teacher(dataset),
            ipc=7,
            seed=0,
        )
    if distributed.leads():
        save_file(
            answers(load_backbone(folder, dataset, "cpu", Precision(), ""), teacher.model, result, images),
            root / "answers.safetensors",
        )
    distributed.wait()


def gradients() -> dict[str, torch.Tensor]:
    """float64 gradients and running statistics of one step on 3 images: one rank has 1, the other 2."""
    model = build_student("convnet3_bn", 3, 1, 8, 0).double().train()
    distributed.synchronise_norms(model)
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mine, share = distributed.part(3)
    (torch.nn.functional.cross_entropy(model(x[mine]), torch.arange(3)[mine]) * share).backward()
    distributed.sum_gradients(model.parameters())
    # a bias in front of BatchNorm has no gradient but rounding
    skipped = ("features.0.bias", "features.4.bias", "features.8.bias")
    found = {f"gradient {n}": p.grad for n, p in model.named_parameters() if n not in skipped}
    return found | {f"buffer {n}": b.double() for n, b in model.named_buffers()}


def fixed_teacher(dataset) -> Teacher:
    """Labels from untrained weights, the same in every run: the student's comparison is then its own."""
    model = build_student("convnet3_bn", 3, 1, 8, 1)
    kinds = {"mean": dataset.mean, "std": dataset.std, "size": 8, "device": "cpu"}
    return Teacher(model, name="fixed", key="", accuracy=None, **kinds)


@torch.no_grad()
def answers(backbone, teacher, result, images) -> dict[str, torch.Tensor]:
    """What the networks say to fixed inputs, BatchNorm by the batch's statistics, and once by running ones."""
    pixels = images.float() / 127.5 - 1
    latents = backbone.vae.encode(pixels).latent_dist.mean
    levels, labels = torch.arange(0, 1000, 50), torch.arange(len(images)) % 3
    return {
        "vae": backbone.vae.decode(latents).sample,
        "transformer": backbone.dit(latents, timestep=levels, class_labels=labels).sample,
        "teacher": teacher.train()(pixels),
        "student": result.model.train()(pixels),
        "student, running statistics": result.predict(images),
    }


def killed_at(step: int, work) -> None:
    """Run ``work``; the optimiser raises at ``step``."""
    whole = Averaged.step

    def broken(self, done, rate):
        if done == step:
            raise RuntimeError("killed")
        whole(self, done, rate)

    Averaged.step = broken
    try:
        work()
    finally:
        Averaged.step = whole


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    distributed.leave()
