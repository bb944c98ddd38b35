"""``ddbench speed``: how many images a second a backbone encodes, inverts and decodes, and a student trains on."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from diffusers import AutoencoderKL, DiTTransformer2DModel

from benchmark.backbones.backbone import Backbone, compile_blocks
from benchmark.backbones.dit import fix_label_dropout, make_scheduler
from benchmark.backbones.shape import Shape
from benchmark.core import compute
from benchmark.core.compute import Precision
from benchmark.core.cost import Meter
from benchmark.pipeline.cost.table import INVERSION_STEPS, Row, device_name, student_name
from benchmark.students import build_student

TIMED_STEPS = 3  # of an inversion's
LEAST_SECONDS = 2.0  # a stage is repeated until it took so long


def with_random_weights(shape: Shape, device: str, precision: Precision) -> Backbone:
    """A backbone of the given shape whose weights mean nothing: speed and memory do not depend on them."""
    torch.manual_seed(0)
    dit = DiTTransformer2DModel(
        num_attention_heads=shape.heads,
        attention_head_dim=shape.width // shape.heads,
        in_channels=shape.latent[0],
        out_channels=shape.out,
        num_layers=shape.depth,
        sample_size=shape.latent[1],
        patch_size=shape.patch,
        num_embeds_ada_norm=shape.classes,
    )
    levels = len(shape.vae)
    vae = AutoencoderKL(
        in_channels=shape.channels,
        out_channels=shape.channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=shape.vae,
        layers_per_block=shape.layers,
        latent_channels=shape.latent[0],
        norm_num_groups=min(32, shape.vae[0] // 2),
        sample_size=shape.image_size,
        mid_block_add_attention=shape.attention,
    )
    fix_label_dropout(dit)
    dit = dit.to(device).eval().requires_grad_(False)
    if precision.compile:
        compile_blocks(dit)
    return Backbone(
        vae=vae.to(device).eval().requires_grad_(False),
        dit=dit,
        scheduler=make_scheduler(),
        device=device,
        precision=precision,
        image_size=shape.image_size,
        latent_shape=shape.latent,
        num_classes=shape.classes,
        null_class=shape.classes,
        learned_sigma=shape.out == 2 * shape.latent[0],
        class_map=torch.arange(shape.classes),
        key="",
        vae_key="",
        name="random weights",
    )


def measure(backbone: Backbone, shape: Shape, precision: str, batch: int, command: str) -> list[Row]:
    """Rows of the table: encode, invert with guidance 1 and 4, decode; ``batch`` latents a DiT step.

    One thread on a CPU, as distillation jobs have.
    """
    compute.prepare("distill", backbone.precision)
    device, cuda = backbone.device, backbone.device.startswith("cuda")
    images = backbone.vae_chunk
    draw = compute.generator("speed")
    pixels = torch.randint(0, 256, (images, shape.channels, shape.image_size, shape.image_size), generator=draw)
    pixels = pixels.to(torch.uint8)
    latents = torch.randn(batch, *shape.latent, generator=draw)
    classes = torch.arange(batch) % shape.classes
    coded = latents[:1].expand(images, -1, -1, -1)

    def invert(guidance: float) -> Callable[[], None]:
        def steps() -> None:
            for step in range(TIMED_STEPS):
                backbone.eps(latents, 20 * step, classes, guidance)

        return steps

    work = [("encode", 1.0, images, 1.0, lambda: backbone.encode(pixels, sample=False))]
    work += [("invert", g, batch, INVERSION_STEPS / TIMED_STEPS, invert(g)) for g in (1.0, 4.0)]
    work += [("decode", 1.0, images, 1.0, lambda: backbone.decode(coded, shape.image_size, shape.channels))]
    rows = []
    for stage, guidance, count, factor, function in work:
        seconds, memory = timed(function, cuda)
        steps = INVERSION_STEPS if stage == "invert" else 1
        rate = count / (seconds * factor)
        rows.append(
            _row(
                device,
                shape.name,
                precision,
                stage,
                guidance=guidance,
                steps=steps,
                batch=count,
                rate=rate,
                memory=memory,
                command=command,
            )
        )
    return rows


def measure_student(
    name: str, classes: int, channels: int, side: int, device: str, precision: str, batch: int, command: str
) -> Row:
    """Row ``student``: images a second of a training step (forward, backward, AdamW), without augmentation."""
    policy = Precision.named(precision)
    compute.prepare("evaluate", policy)
    model = compute.fast_layout(build_student(name, classes, channels, side, 0).to(device)).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)
    forward = torch.compile(model) if policy.compile else model
    images = torch.randn(batch, channels, side, side, generator=compute.generator("speed")).to(device)
    labels = (torch.arange(batch) % classes).to(device)

    def step() -> None:
        with policy.context(device):
            loss = torch.nn.functional.cross_entropy(forward(images).float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    seconds, memory = timed(step, device.startswith("cuda"))
    what = student_name(name, side)
    known = {"batch": batch, "rate": batch / seconds, "memory": memory, "command": command}
    return _row(device, what, precision, "student", guidance=1.0, steps=1, **known)


def _row(device, what, precision, stage, *, guidance, steps, batch, rate, memory, command) -> Row:
    return Row(
        device=device_name(device),
        backbone=what,
        precision=precision,
        stage=stage,
        guidance=guidance,
        steps=steps,
        batch=batch,
        threads=0 if device.startswith("cuda") else torch.get_num_threads(),
        images_per_second=float(f"{rate:.4g}"),
        memory=memory,
        measured=time.strftime("%Y-%m-%d", time.gmtime()),
        command=command,
    )


def timed(function: Callable[[], object], cuda: bool) -> tuple[float, int]:
    """(seconds a call, peak bytes): the fastest of as many calls as ``LEAST_SECONDS`` holds, two at least."""
    best, spent, calls = float("inf"), 0.0, 0
    with Meter() as meter:
        function()  # warm-up: kernels are chosen, memory is taken
        while calls < 2 or spent < LEAST_SECONDS:
            if cuda:
                torch.cuda.synchronize()
            began = time.perf_counter()
            function()
            if cuda:
                torch.cuda.synchronize()
            took = time.perf_counter() - began
            best, spent, calls = min(best, took), spent + took, calls + 1
    return best, meter.peak
