"""Training a DiT on cached latents, with numbers drawn on the host or on the device, and the rungs of its ladder."""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from diffusers import DDIMScheduler, DiTTransformer2DModel
from torch import nn

from benchmark.backbones import resident
from benchmark.backbones.dit import (
    Denoising,
    Moments,
    build_dit,
    compile_blocks,
    eager,
    make_scheduler,
    validation_error,
)
from benchmark.backbones.settings import Settings
from benchmark.core.store import Stage, Store
from benchmark.training.loop import Averaged, rate_at, train


def train_dit(
    store: Store,
    stage: Stage,
    settings: Settings,
    training: Moments,
    held_out: Moments,
    num_classes: int,
    device: str,
    *,
    rungs: Collection[int] = (),
    at_rung: Callable[[int, DiTTransformer2DModel], None] | None = None,
    deadline: float | None = None,
    features: torch.Tensor | None = None,
) -> tuple[DiTTransformer2DModel, DDIMScheduler, list[list[float]]]:
    """Train a DiT on cached latents.

    Args:
        at_rung: called as ``at_rung(steps, dit)`` after each number of steps in ``rungs``, with a copy on the CPU of
            the DiT with averaged weights.
        features: of the training images ``[n, tokens, d]``, where ``settings.align`` is above 0.
        deadline: value of ``time.monotonic()`` at which to stop with `benchmark.training.loop.OutOfTime`.
    """
    with torch.random.fork_rng(devices=[]):
        dit = build_dit(settings, num_classes).to(device)
    scheduler = make_scheduler()
    alphas, more, trained = scheduler.alphas_cumprod.to(device), {}, dit
    if settings.draws == "device":
        alignment = None
        if features is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(settings.seed)
                alignment = resident.Alignment(dit, settings.width, features).to(device)
            trained = nn.ModuleList([dit, alignment])
        quick = resident.Denoising(training, num_classes, settings, alphas, settings.policy, device, alignment)
        more = {"read_steps": resident.READ_STEPS}

        def loss_of(index: int) -> torch.Tensor:
            return quick.loss(dit, index)
    else:
        task = Denoising(
            training,
            num_classes,
            settings.label_dropout,
            settings.snr_gamma,
            scheduler,
            settings.policy,
            device,
            ("dit", settings.seed),
        )

        def loss_of(index: int) -> torch.Tensor:
            return task.loss(dit, index, settings.dit_batch)

    state = Averaged(trained, settings.dit_lr, settings.weight_decay, settings.ema_width)
    dit.train()
    if settings.compiled:
        compile_blocks(dit)

    def step(index: int) -> torch.Tensor:
        loss = loss_of(index)
        loss.backward()
        state.step(index, rate_at(index, settings.dit_steps, settings.warmup))
        return loss.detach()

    def evaluate() -> float:
        with eager(settings.compiled):
            found = validation_error(dit, held_out, alphas, settings.policy, device, limit=256)
        return sum(error for _, error in found) / len(found)

    def copied(done: int) -> None:
        with torch.random.fork_rng(devices=[]):
            twin = build_dit(settings, num_classes)
        twin.load_state_dict({k: v.detach().cpu() for k, v in dit.state_dict().items()})
        at_rung(done, twin.eval())

    curve = train(
        store,
        stage,
        "backbone dit",
        settings.dit_steps,
        state,
        step,
        evaluate,
        rungs=rungs,
        at_rung=copied if at_rung else None,
        deadline=deadline,
        **more,
    )
    state.swap()
    if features is not None:
        alignment.handle.remove()
    return dit.eval(), scheduler, curve
