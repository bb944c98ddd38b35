"""``ddbench selftest``: what to run first on a new machine. Numerics, determinism, memory, ranks, precision, speed.

The reference is always the CPU in float64 (methods that train networks of their own: in float32), so a wrong kernel of
the CPU is found too. Everything is tiny but the speeds: on a GPU those of DiT-XL/2 and of ResNet-18 at 224 px.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.functional as F

from benchmark.backbones.shape import DIT_XL_2_256, Shape
from benchmark.core import compute
from benchmark.core.compute import Precision, generator
from benchmark.pipeline.cost import measure, predict
from benchmark.pipeline.cost.table import Row, passes, student_name
from benchmark.plugins import registry
from benchmark.students import build_student
from benchmark.students.flops import forward_flops
from benchmark.testing.bench import Bench
from benchmark.testing.checks import Images, Placed, same
from benchmark.training import ranks_agree
from benchmark.training.augment import Augmenter
from benchmark.training.memory import is_out_of_memory

OK, FAILED, NOT_RUN = "ok", "FAILED", "not run"

# 256 tokens of heads as wide as DiT-XL/2's, a VAE with attention at 64 px: the kernels of the true sizes
SHAPE = Shape(144, 2, 2, 2, 10, (4, 32, 32), 8, 64, 3, (32, 64), 1, True)
TINY = Shape(128, 4, 4, 1, 10, (4, 4, 4), 4, 8, 1, (16, 32), 1, False)  # preset tiny on digits: speeds of a CPU
LIMITS = {"fp32": 1e-4, "tf32": 5e-3, "bf16": 5e-2, "fp16": 1e-2}  # of a stage's result, relative to float64
GREY_LEVELS = 1  # by which images may differ from the reference's
RANKS_OFF = 1e-9  # of gradients, by the order of sums
SLOW = 0.2  # share of the rate of a large matrix product below which a row is called slow


@dataclass(frozen=True)
class Finding:
    """One line of the report; ``state`` is `OK`, `FAILED` or `NOT_RUN`."""

    state: str
    name: str
    text: str


@dataclass(frozen=True)
class Place:
    """Where a stage is computed; ``double`` is the reference: float64 weights."""

    device: str
    precision: Precision = Precision()
    double: bool = False

    def put(self, model: torch.nn.Module) -> torch.nn.Module:
        model = model.to(self.device)
        return model.double() if self.double else model

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64 if self.double else torch.float32


REFERENCE = Place("cpu", double=True)


# -- stages -----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def _backbone(place: Place):
    made = measure.with_random_weights(SHAPE, place.device, place.precision)
    place.put(made.vae), place.put(made.dit)
    return made


def _latents(place: Place) -> torch.Tensor:
    return torch.randn(2, *SHAPE.latent, generator=generator("selftest", "latents")).to(place.device)


def encoder(place: Place) -> torch.Tensor:
    images = torch.randint(0, 256, (2, 3, 64, 64), generator=generator("selftest", "images")).to(torch.uint8)
    return torch.cat([x.cpu() for x in _backbone(place).moments(images)])


def noise(place: Place) -> torch.Tensor:
    return _backbone(place).eps(_latents(place), 500, torch.tensor([3, 7]), 4.0)


@torch.no_grad()
def decoder(place: Place) -> torch.Tensor:
    vae = _backbone(place).vae
    with place.precision.context(place.device):
        return vae.decode(_latents(place).to(vae.dtype)).sample


def student(place: Place, name: str, whole: bool = True) -> torch.Tensor:
    """Logits and gradients of a training step on hard and soft labels; without ``whole``, of the last layer alone.

    A deep network's other gradients jump where rounding moves an activation across a ReLU's corner: by 1e-3 in float32.
    """
    draw = generator("selftest", "student")
    images = torch.randn(8, 3, 32, 32, generator=draw).to(place.device, place.dtype)
    wanted = torch.randn(8, 10, generator=draw).to(place.device, place.dtype).softmax(1)
    model = compute.fast_layout(place.put(build_student(name, 10, 3, 32, 0))).train()
    with place.precision.context(place.device):
        logits = model(images)
    loss = F.cross_entropy(logits, wanted.argmax(1)) + F.kl_div(logits.log_softmax(1), wanted, reduction="batchmean")
    loss.backward()
    parameters = list(model.parameters())[0 if whole else -2 :]
    gradients = torch.cat([p.grad.flatten().cpu().double() for p in parameters])
    both = (gradients, logits.detach().flatten().cpu().double())
    return torch.cat([x / x.norm().clamp(min=1e-30) for x in both])


def augmentation(place: Place) -> torch.Tensor:
    """The same draws on any device; there is no reference but the CPU in float32."""
    images = torch.randint(0, 256, (6, 3, 32, 32), generator=generator("selftest", "augment")).to(torch.uint8)
    recipe = [{"op": "random_resized_crop", "scale": [0.3, 1.0]}, {"op": "flip", "p": 0.5}]
    recipe += [{"op": "dsa", "strategy": "color"}]
    augment = Augmenter(recipe, 32, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    return augment(images.to(place.device), generator("selftest", "draw"))


STAGES: dict[str, Callable[[Place], torch.Tensor]] = {
    "VAE encoder": encoder,
    "DiT, guided noise": noise,
    "VAE decoder": decoder,
    "student convnet3_bn": lambda place: student(place, "convnet3_bn"),
    "student convnet3_in": lambda place: student(place, "convnet3_in"),
    "student vit_tiny": lambda place: student(place, "vit_tiny"),
    "student resnet18": lambda place: student(place, "resnet18", whole=False),
}
MIXED = ("VAE encoder", "DiT, guided noise", "VAE decoder", "student resnet18")


def run(stage: Callable[[Place], torch.Tensor], place: Place) -> torch.Tensor:
    """A stage's result, float64 on the CPU, with the thread count and TF32 of jobs."""
    with compute.prepared("distill", place.precision):
        return stage(place).detach().to("cpu", torch.float64)


def error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Distance relative to the reference's length; infinite where the result is not finite."""
    return float((found - wanted).norm() / wanted.norm()) if torch.isfinite(found).all() else float("inf")


# -- checks -----------------------------------------------------------------------------------------------------------


def numerics(device: str) -> Iterator[Finding]:
    """Every stage in fp32, twice, then in the mixed precisions."""
    for name, stage in STAGES.items():
        first = run(stage, Place(device))
        off = error(first, run(stage, REFERENCE))
        text = f"{off:.1e} off float64 on the CPU (allowed {LIMITS['fp32']:.0e})"
        yield Finding(OK if off <= LIMITS["fp32"] else FAILED, name, text)
        if not torch.equal(first, run(stage, Place(device))):
            yield Finding(FAILED, name, "another result the second time: not deterministic")
    if device == "cpu":
        yield Finding(NOT_RUN, "augmentation", "the CPU is its own reference")
    else:
        off = error(run(augmentation, Place(device)), run(augmentation, Place("cpu")))
        yield Finding(OK if off <= LIMITS["fp32"] else FAILED, "augmentation", f"{off:.1e} off the CPU")


def mixed(device: str) -> Iterator[Finding]:
    """TF32 and half precision: near enough to float64, and in force at all."""
    kinds = ["bf16"] if device == "cpu" else ["tf32", "bf16", "fp16"]
    for kind in kinds:
        place, found = Place(device, Precision.named(kind)), {}
        for name in MIXED:
            found[name] = error(run(STAGES[name], place), run(STAGES[name], REFERENCE))
        far = [name for name, off in found.items() if not off <= LIMITS[kind]]
        text = ", ".join(f"{name} {off:.1e}" for name, off in found.items())
        yield Finding(FAILED if far else OK, f"precision {kind}", f"{text} off float64 (allowed {LIMITS[kind]:.0e})")
        if kind != "tf32" and min(found.values()) < 1e-4:
            yield Finding(FAILED, f"precision {kind}", "a result is as exact as float32's: autocast had no effect")
    if device == "cpu":
        yield Finding(NOT_RUN, "precision tf32, fp16", "a CPU computes neither")


def methods(device: str, root: Path, quick: bool) -> Iterator[Finding]:
    """Every registered method on tiny digits: the reference's images, and the same ones again."""
    bench = Bench(root)
    placed, compared, alone = bench if device == "cpu" else Placed(bench, device), 0, []
    names = ["d3hr"] if quick else registry().names("method")
    for name in names:
        try:
            first = placed.images(name, 1, store=f"{name}-1")
            again = placed.images(name, 1, store=f"{name}-2")
            wanted = _reference(bench, name, device)
        except Exception as fault:  # noqa: BLE001 - whatever a plug-in raises is its finding
            yield Finding(FAILED, f"method {name}", f"{type(fault).__name__}: {fault}")
            continue
        if not same(first, again):
            yield Finding(FAILED, f"method {name}", "other images the second time: not deterministic")
        if wanted is None:
            alone.append(name)
            continue
        compared += 1
        worst = max(int((image.int() - wanted[cell].int()).abs().max()) for cell, image in first.items())
        if worst > GREY_LEVELS:
            text = f"images differ from the reference's by up to {worst} grey levels (allowed {GREY_LEVELS})"
            yield Finding(FAILED, f"method {name}", text)
    yield Finding(OK, "methods", f"{len(names)} run twice; {compared} compared with a reference")
    if alone:
        yield Finding(NOT_RUN, "methods", f"the CPU is their only reference: {', '.join(alone)}")


def _reference(bench: Bench, name: str, device: str) -> Images | None:
    """The images that the CPU makes, with a float64 backbone where the method only samples from one."""
    method, _, _ = bench.task(name, 1, store=f"{name}-needs")
    if method.needs().backbone and not method.needs().training:
        parts = bench.backbone.vae, bench.backbone.dit
        try:
            for part in parts:
                part.double()
            return bench.images(name, 1, store=f"{name}-reference")
        finally:
            for part in parts:
                part.float()
    return None if device == "cpu" else bench.images(name, 1, store=f"{name}-reference")


def memory(device: str, root: Path) -> Iterator[Finding]:
    """A student that runs out of memory goes on with equal results; a full device recovers."""
    from benchmark.data import load_dataset
    from benchmark.evaluation import train_student, trainer
    from benchmark.evaluation.protocols import load_protocol

    if device == "cpu":
        yield Finding(NOT_RUN, "a full device", "a CPU's memory is not filled up on purpose")
    else:
        try:
            torch.empty(2 * torch.cuda.get_device_properties(device).total_memory, dtype=torch.uint8, device=device)
            yield Finding(FAILED, "a full device", "it gave twice the memory that it has")
        except RuntimeError as fault:
            known = is_out_of_memory(fault)
            yield Finding(OK if known else FAILED, "a full device", "recognised" if known else f"not known: {fault}")
        torch.cuda.empty_cache()
    digits = load_dataset("digits")
    images, labels = digits.train.images(range(40)), torch.tensor(digits.train.labels[:40])
    protocol = load_protocol("hard", {"steps": 4, "batch": 16, "optimizer": "sgd", "lr": 0.05})
    failed: list[bool] = []

    def fails_once(*asked):
        model = build_student(*asked)

        def full(module, inputs):
            if not failed:
                failed.append(True)
                raise torch.OutOfMemoryError("out of memory (pretended)")

        model.register_forward_pre_hook(full)
        return model

    common = {"dataset": digits, "protocol": protocol, "student": "convnet3_bn", "ipc": 4, "seed": 0, "device": device}
    whole = train_student(images, labels, **common)
    with patch.object(trainer, "build_student", fails_once):
        cut = train_student(images, labels, **common)
    pairs = zip(whole.model.parameters(), cut.model.parameters())
    equal = all(torch.allclose(a, b, atol=1e-4) for a, b in pairs) and bool(cut.flags)
    text = "trained on with " + "; ".join(cut.flags) + (", equal weights" if equal else ", but other weights")
    yield Finding(OK if equal else FAILED, "a student out of memory", text)


def ranks(device: str) -> Iterator[Finding]:
    """Two processes compute one process's gradients: NCCL on two GPUs, gloo on the CPU."""
    gpus = torch.cuda.device_count() if device != "cpu" else 0
    if gpus < ranks_agree.WORLD:
        yield Finding(NOT_RUN, "NCCL", f"{gpus} GPU(s); it takes {ranks_agree.WORLD}")
    for cuda in [False, True] if gpus >= ranks_agree.WORLD else [False]:
        name = "NCCL, two GPUs" if cuda else "gloo, two processes"
        found = ranks_agree.from_two_processes(cuda)
        if isinstance(found, str):
            yield Finding(FAILED, name, found)
            continue
        wanted = ranks_agree.summed_gradients("cuda:0" if cuda else "cpu")
        off = max(error(gradients, wanted) for gradients in found)
        text = f"gradients {off:.1e} off those of one process (float64; allowed {RANKS_OFF:.0e})"
        yield Finding(OK if off <= RANKS_OFF else FAILED, name, text)


# -- speed ------------------------------------------------------------------------------------------------------------


def speeds(device: str, command: str) -> Iterator[tuple[Row, Finding]]:
    """Rows of the throughput table, each with its share of what a large matrix product reaches on the device."""
    precision, batch = ("fp32", 64) if device == "cpu" else ("bf16", 64)
    policy = Precision.named(precision)
    with compute.prepared("distill", policy):
        reached = product_rate(device, policy)
        shape = TINY if device == "cpu" else DIT_XL_2_256
        rows = measure.measure(measure.with_random_weights(shape, device, policy), shape, precision, batch, command)
        name, size = ("convnet3_bn", (10, 1, 28)) if device == "cpu" else ("resnet18", (1000, 3, 224))
        rows.append(measure.measure_student(name, *size, device, precision, batch, command))
    flops = {"encode": shape.encode_flops(), "decode": shape.decode_flops()}
    sheet = predict.data_sheet(rows[0].device, precision)
    for row in rows:
        each = flops.get(row.stage) or row.steps * passes(row.guidance) * shape.forward_flops()
        if row.backbone == student_name(name, size[2]):
            each = predict.STEP_PASSES * forward_flops(name, *size)
        rate = row.images_per_second * each
        text = f"{row.images_per_second:g} images/s = {predict.flops_text(rate)}/s"
        text += f", {rate / reached:.0%} of a large product"
        text += f", {rate / sheet:.0%} of the data sheet's" if sheet else ""
        text += "   <- slow" if rate / reached < SLOW else ""
        what = f"{row.stage} {row.backbone.partition(',')[0]} {precision}"
        yield row, Finding(OK, f"{what} g{row.guidance:g}" if row.stage == "invert" else what, text)


def product_rate(device: str, precision: Precision) -> float:
    """FLOP/s of a large matrix product: what is within reach on this device, whatever its data sheet says."""
    side = 1024 if device == "cpu" else 8192
    a = torch.randn(side, side, generator=generator("selftest", "product")).to(device)

    def product() -> None:
        with precision.context(device):
            a @ a

    return 2 * side**3 / measure.timed(product, device != "cpu")[0]


def selftest(device: str, quick: bool, keep: Callable[[list[Row]], None], command: str) -> Iterator[Finding]:
    """All checks, one finding after the other; ``quick`` leaves out what takes more than seconds, and says so.

    Args:
        keep: takes the measured rows.
        command: stands in them.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        checks = [numerics(device), mixed(device), methods(device, root, quick), memory(device, root)]
        for check in checks if quick else [*checks, ranks(device)]:
            yield from _guarded(check)
    if quick:
        yield Finding(NOT_RUN, "ranks, speed", "left out by --quick")
        return
    rows: list[Row] = []
    for found in _guarded(speeds(device, command)):
        if isinstance(found, Finding):
            yield found
        else:
            rows.append(found[0])
            yield found[1]
    keep(rows)


def _guarded(check: Iterator) -> Iterator:
    """What a check finds; what it raises is a finding too, and the next check goes on."""
    try:
        yield from check
    except Exception as fault:  # noqa: BLE001 - on a new machine anything may fail, and the rest is worth knowing
        frame = fault.__traceback__
        while frame.tb_next:
            frame = frame.tb_next
        where = f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}"
        yield Finding(FAILED, check.__name__, f"{type(fault).__name__}: {fault} ({where})")
