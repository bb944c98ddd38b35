"""Every stage on a pretended GPU (`benchmark.testing.pretend_cuda`): the CPU's results without needless waits.

A GPU runs behind the host. Reading one number from it, or a blocking copy to it, lets the host wait until it has done
all that it was given, and then it has nothing to do: what is repeated a thousand times must not do that.
"""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from easy import easy_dataset

from baselines.minimax.tuning import Tuning
from benchmark.backbones.dit import Denoising, Moments, build_dit, make_scheduler, validation_error
from benchmark.backbones.settings import Settings
from benchmark.backbones.vae import train_vae
from benchmark.core.compute import Precision, generator
from benchmark.core.store import Stage, Store
from benchmark.evaluation import gates, train_student, trainer
from benchmark.evaluation.metrics import robustness
from benchmark.evaluation.protocols import load_protocol
from benchmark.teachers import Teacher, get_teacher
from benchmark.teachers.recipes import RECIPES
from benchmark.testing.bench import Bench
from benchmark.testing.checks import Placed
from benchmark.testing.pretend_cuda import DEVICE, pretended
from benchmark.training import testing
from benchmark.training.augment import Augmenter
from benchmark.training.loop import Averaged, batches

torch.set_num_threads(1)
GPU = str(DEVICE)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("devices"))


@pytest.fixture(autouse=True)
def forget_test_images():
    testing._cached.cache_clear()
    yield
    testing._cached.cache_clear()


def watched(monkeypatch, cls, name: str, waits: list[str]) -> list[list[str]]:
    """What each call of the method ``name`` waited for."""
    found = []
    plain = getattr(cls, name)

    def call(self, *args, **options):
        before = len(waits)
        result = plain(self, *args, **options)
        found.append(waits[before:])
        return result

    monkeypatch.setattr(cls, name, call)
    return found


def test_the_pretended_gpu_refuses_what_a_gpu_refuses():
    here, draw = torch.arange(3.0), torch.Generator().manual_seed(0)
    with pretended() as waits:
        there = here.to(GPU)
        positions = torch.tensor([2, 0], device=GPU)
        for wrong in (
            lambda: there + here,
            lambda: torch.cat([there, here]),
            lambda: here[positions],
            lambda: torch.zeros(2, device=GPU).normal_(generator=draw),
            lambda: torch.nn.functional.linear(there, here[None]),
        ):
            with pytest.raises(RuntimeError, match="cuda"):
                wrong()
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        waits.clear()
        moved = here.to(GPU, non_blocking=True)
        assert (moved * 2 + torch.tensor(1.0))[positions].device == DEVICE and not waits
        assert there[torch.tensor([2, 0])].tolist() == [2.0, 0.0] and float(there.sum()) == 3.0
        assert there[there > 0].shape == (2,) and torch.equal(there, moved) and len(here.to(GPU)) == 3
        kinds = Counter(line.split()[0] for line in waits)
        assert kinds == {"aten.index.Tensor": 2, "aten._to_copy": 2, "aten._local_scalar_dense.default": 1,
                         "aten.equal.default": 1}  # fmt: skip


CASES = [("minimax", {})]  # every method with its `quick` parameters: tests/contract/test_methods.py
CASES += [("d3hr-modes", {"modes_in": "features", "model": "medoids", "noise_until": 300, "invert_solver": "dpm2m"})]
CASES += [("d3hr-modes", {"select": "features", "candidates": 12, "model": "low-rank", "decode_evaluations": 3})]
CASES += [("d3hr", {"domain": "ddpm", "sampler": "matched"}), ("sre2l", {"crop": "on"})]


@pytest.mark.parametrize("name, sets", CASES, ids=[f"{n}-{'-'.join(s)}" for n, s in CASES])
def test_methods_make_the_same_images_there(bench, monkeypatch, name, sets):
    place = f"{name}{'-'.join(sets)}"
    wanted = bench.images(name, 2, store=f"{place}-cpu", **sets)
    with pretended() as waits:
        steps = watched(monkeypatch, Tuning, "step", waits)
        found = Placed(bench, GPU).images(name, 2, store=f"{place}-gpu", **sets)
    assert found.keys() == wanted.keys() and waits
    assert not any(steps) and (steps or name != "minimax"), "minimax waits while it tunes"
    for cell, image in wanted.items():
        assert type(found[cell]) is torch.Tensor, "images are handed over on the CPU"
        assert (found[cell].int() - image.int()).abs().max() <= 1, cell


@pytest.mark.parametrize("name", ["dm", "dsa", "idc"])
def test_matching_does_not_wait(bench, monkeypatch, name):
    with pretended() as waits:
        method, task, _ = Placed(bench, GPU).task(name, 2, store=f"steps-{name}", network="convnet4_in")
        state = method.optimisation(task, range(2))
        waits.clear()
        for index in range(3):
            state.step(index)
        assert not waits


@pytest.mark.parametrize("name", ["cda", "dwa", "delt", "fadrm", "cim", "gvbsm", "edc"])
def test_recovering_images_does_not_wait(bench, name):
    counts = []
    for iterations in (8, 16):
        with pretended() as waits:
            placed = Placed(bench, GPU)
            waits.clear()
            placed.images(name, 1, store=f"recover-{name}-{iterations}", iterations=iterations)
            counts.append(Counter(waits))
    assert counts[0] == counts[1]


def test_a_pass_of_the_backbone_waits_once(bench):
    """It looks whether the result is finite; nothing else. What is decoded is on the CPU."""
    with pretended() as waits:
        backbone = Placed(bench, GPU).backbone
        latents = torch.randn(3, *backbone.latent_shape).to(GPU)
        classes = torch.tensor([0, 1, 2], device=GPU)
        waits.clear()
        backbone.eps(latents, 500, classes, 4.0)
        assert len(waits) == 1 and "isfinite" in waits[0], waits
        assert type(backbone.decode(latents, 8, 1)) is torch.Tensor


# -- training ---------------------------------------------------------------------------------------------------------

SHORT = {"steps": 6, "batch": 8}
EPOCHS = {"epochs": 2, "batch": 8}
PROTOCOLS = [
    ("hard", {**SHORT, "ema": 0.9}, 1),
    ("soft", SHORT, 1),
    ("fkd", EPOCHS, 1),
    ("rded-paper", EPOCHS, 3),
    ("dc-dsa", {**EPOCHS, "milestones": [1]}, 1),
]


@pytest.mark.parametrize("protocol, sets, channels", PROTOCOLS)
def test_students_train_without_waiting(tmp_path, monkeypatch, protocol, sets, channels):
    size = 8 * channels
    dataset = easy_dataset(channels, size, train=6, test=6)
    index = [int(i) for c in dataset.train.by_class for i in c[:5]]
    images, labels = dataset.train.images(index), torch.from_numpy(dataset.train.labels[index])
    monkeypatch.setattr(trainer, "checkpoint_interval", lambda steps: 4)  # checkpoints are made too

    def train(device: str):
        norm = {"mean": dataset.mean, "std": dataset.std, "size": size}
        model = trainer.build_student("convnet3_bn", 4, channels, size, 1)
        teacher = Teacher(model, name="t", key="t", accuracy=None, device=device, **norm)
        asked = load_protocol(protocol, sets)
        options = {"student": "convnet3_bn", "ipc": 5, "seed": 0, "workdir": tmp_path / device, "device": device}
        (tmp_path / device).mkdir()
        result = train_student(images, labels, dataset=dataset, protocol=asked, teacher=teacher, **options)
        return result, gates.check_set(images, labels, teacher, dataset, waived=True)

    wanted, gate = train("cpu")
    testing._cached.cache_clear()
    with pretended() as waits:
        steps = watched(monkeypatch, trainer._Run, "_step", waits)
        found, same_gate = train(GPU)
        if protocol == "hard":
            context = robustness.Context(found, dataset, GPU, limit=4)
            measured = robustness.corruptions(context) | robustness.attacks(context)
    assert not any(steps[1:]), steps[1:]  # the first brings the constants of the normalisation there
    assert len(steps) == wanted.steps and gate == same_gate
    assert found.scores["ece"] == pytest.approx(wanted.scores["ece"], abs=0.05) and found.curve == wanted.curve
    if protocol == "hard":
        testing._cached.cache_clear()
        context = robustness.Context(wanted, dataset, "cpu", limit=4)
        assert measured == robustness.corruptions(context) | robustness.attacks(context)


AUGMENTATIONS = [{"op": "dsa", "strategy": name} for name in ["color", "crop", "cutout", "flip", "scale", "rotate"]]
AUGMENTATIONS += [
    {"op": "diffaug", "strategy": "color_crop_flip_scale_rotate"},
    {"op": "random_resized_crop", "scale": [0.3, 1.0], "ratio": [0.75, 1.33], "rounding": "float"},
    {"op": "random_resized_crop", "scale": [0.3, 1.0], "ratio": [0.75, 1.33], "rounding": "uint8"},
    {"op": "patch_shuffle", "factor": 2},
    {"op": "crop_pad", "pad": 0.25},
    {"op": "rotate_scale", "degrees": 15.0, "scale": 1.2},
    {"op": "flip", "p": 0.5},
]


@pytest.mark.parametrize("size", [8, 5])
@pytest.mark.parametrize("recipe", AUGMENTATIONS, ids=lambda r: "-".join(str(v) for v in r.values()))
def test_augmentations_draw_the_same_there_without_waiting(recipe, size):
    images = torch.randint(0, 256, (6, 3, 8, 8), generator=generator("images")).to(torch.uint8)
    augment = Augmenter([recipe], size, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    wanted = augment(images, generator("draw"))
    with pretended() as waits:
        there = images.to(GPU)
        augment.normalise(there)
        waits.clear()
        found = augment(there, generator("draw"))
        assert not waits and torch.equal(found.cpu(), wanted)


def test_teachers_train_without_waiting(tmp_path, monkeypatch):
    from dataclasses import replace

    dataset, counts, seen = easy_dataset(train=10, test=6), [], []
    for device, steps in (("cpu", 9), (GPU, 9), (GPU, 5)):
        monkeypatch.setitem(RECIPES, "tiny", replace(RECIPES["tiny"], steps=steps, batch=8))
        testing._cached.cache_clear()
        with pretended() as waits:
            teacher = get_teacher(Store(tmp_path / f"{device}-{steps}"), dataset, "convnet3_bn", device)
            counts.append(len(waits))
            seen.append(teacher.logits(dataset.test.images(range(6))).cpu())
    assert torch.allclose(seen[0], seen[1], atol=1e-4) and counts[0] == 0
    assert counts[1] == counts[2] > 0


def test_backbones_train_without_waiting(tmp_path):
    settings = Settings(image_size=8, levels=2, vae_width=8, vae_steps=3, vae_batch=8, width=8, heads=1, depth=1)
    draw = torch.Generator().manual_seed(0)
    mean, std = torch.randn(20, 4, 4, 4, generator=draw), torch.rand(20, 4, 4, 4, generator=draw)
    moments = Moments(mean, std, torch.arange(20) % 3)
    images = torch.randint(0, 256, (20, 1, 8, 8), generator=draw).to(torch.uint8)

    def train(device: str, waits: list[str]) -> list:
        dit = build_dit(settings, 3).to(device)
        state = Averaged(dit, 1e-3, 0.0, 0.05)
        task = Denoising(moments, 3, 0.1, 5.0, make_scheduler(), Precision(), device, ("test",))
        batches(20, 8, 0, "test")
        waits.clear()
        losses = []
        for step in range(3):
            losses.append(task.loss(dit, step, 8))
            losses[-1].backward()
            state.step(step, 1.0)
        assert not waits
        losses = [float(x.detach()) for x in losses]
        losses += [e for _, e in validation_error(dit, moments, task.alphas, Precision(), device, levels=2)]
        waits.clear()
        vae, curve = train_vae(Store(tmp_path / device), Stage("test.vae", 1), settings, images, images, device)
        latents = vae.encode(images.to(device).float() / 127.5 - 1).latent_dist.mean
        return losses + [row[2] for row in curve] + latents.flatten().tolist()

    wanted = train("cpu", [])
    with pretended() as waits:
        found = train(GPU, waits)
    assert found == pytest.approx(wanted, abs=2e-3)
