"""D3HR as a plug-in: parameters, stages, and the way from a class's images to its distilled ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from benchmark.api import DataError, Method, Progress, Stage, Task, Unit, Work, class_latents, generator, param
from d3hr_plugin import scores
from d3hr_plugin.decoding import denoise
from d3hr_plugin.groups import SAMPLERS, Draw, Group
from d3hr_plugin.inversion import SOLVERS, add_noise, invert
from d3hr_plugin.schedule import alphas, check_depth, check_start, check_stride, levels, matched_start
from d3hr_plugin.statistics import Moments, load_moments, save_moments

STATISTICS_VERSION = 2


@dataclass(frozen=True)
class Params:
    """Every idea of the paper is an option that an ablation can turn."""

    domain: str = param(
        "ddim",
        "how latents become noise: ddim inverts them, ddpm adds fresh noise of the same level (the ablation)",
        "paper section 3.1; Table 3 (Base-DDPM)",
        choices=("ddim", "ddpm"),
    )
    steps: int = param(50, "steps of the leading-spaced schedule, both ways", "authors' code", low=2, high=1000)
    depth: int = param(
        30,
        "how far to invert, in steps; 0 keeps the VAE's latents",
        "authors' code (i_step=6); paper 31",
        low=0,
        tune=(15, 30),
    )
    keep_depths: tuple = param(
        (),
        "further depths whose statistics are kept from the same pass; never changes a result",
        "authors keep 24-38",
        keyed=False,
    )
    invert_guidance: float = param(
        4.0, "classifier-free guidance while inverting; 1 is none", "authors' code", low=0, tune=(1.0, 4.0)
    )
    invert_solver: str = param(
        "ddim", "how a step of the inversion is taken; ab2 is of second order", "authors' code", choices=SOLVERS
    )
    invert_stride: int = param(1, "levels a step of the inversion; 3 with ab2 takes a third of the time", "own", low=1)
    invert_images: int = param(
        0,
        "images a class that the statistics are taken from, the first ones of the training split; 0: all",
        "own",
        low=0,
    )
    sample_posterior: bool = param(
        True, "draw each image's latent from the VAE's posterior; false takes its mean", "authors' code"
    )
    invert_batch: int = param(64, "images inverted together; also what a kill can cost", "own", low=1)
    sampler: str = param(
        "search",
        "how a class's group of latents is drawn; search finds the best of m (in law: without drawing the losers), "
        "search-by-draws draws every candidate",
        "paper section 3.2: search",
        choices=tuple(SAMPLERS),
    )
    m: int = param(1_000_000, "candidate groups of the search", "paper section 3.2", low=1)
    score: str = param(
        "paper", "the score that the search minimises", "paper eq. of section 3.2; authors' code", choices=scores.FORMS
    )
    weight_mean: float = param(1.0, "weight of the score's mean term", "paper", low=0)
    weight_std: float = param(1.0, "weight of the score's deviation term", "paper", low=0)
    lambda_skew: float | None = param(
        None,
        "weight of the score's skewness term; default 0.5 (paper) or 0.1 (released)",
        "paper; authors' code",
        low=0,
    )
    spread: float = param(
        1.0,
        "factor on the class's deviations when drawing; 0 gives the class mean",
        "paper's ablation: 0.5, 1.5",
        low=0,
    )
    start_step: int | None = param(
        None,
        "sampling step to start from; default: the one at the depth's noise level. The authors': 18",
        "design",
        low=0,
    )
    ending: str = param(
        "exact",
        "exact stops at the level where the inversion began; released takes the authors' extra step at level 0",
        "authors' code (released)",
        choices=("exact", "released"),
    )
    decode_guidance: float = param(
        4.0, "classifier-free guidance while sampling; 1 is none", "authors' code", low=0, tune=(1.0, 1.5, 2.0, 4.0)
    )
    decode_batch: int = param(32, "images decoded together", "own", low=1)

    def __post_init__(self) -> None:
        check_depth(self.depth, self.steps)
        for depth in self.keep_depths:
            check_depth(depth, self.steps, "keep_depths")
        for depth in (self.depth, *self.keep_depths):
            check_stride(depth, self.invert_stride)
        check_start(self.first_step, self.steps)

    @property
    def first_step(self) -> int:
        """The sampling step to start from."""
        return matched_start(self.depth, self.steps) if self.start_step is None else self.start_step

    @property
    def group_score(self) -> scores.Score:
        """The score as a function."""
        skew = scores.LAMBDA[self.score] if self.lambda_skew is None else self.lambda_skew
        return scores.Score(self.score, self.weight_mean, self.weight_std, skew)


@lru_cache(maxsize=1)
def dataset_defaults() -> dict[str, dict[str, Any]]:
    """``defaults.yaml``: what a dataset wants instead of the general defaults, with the reason beside each."""
    import yaml

    return yaml.safe_load(files("d3hr_plugin").joinpath("defaults.yaml").read_text()) or {}


class D3HR(Method):
    """Dataset distillation with high representativeness (arXiv 2505.18399)."""

    Params = Params
    requires = frozenset({"backbone"})
    params: Params

    @classmethod
    def defaults(cls, dataset: str) -> dict[str, Any]:
        return dict(dataset_defaults().get(dataset.partition("@")[0], {}).get("params", {}))

    def work(self, images: int, classes: int, ipc: int) -> list[Work]:
        p = self.params
        images = min(images, classes * p.invert_images) if p.invert_images else images
        steps = -(-p.depth // p.invert_stride) if p.domain == "ddim" else 0
        made, back = classes * ipc, p.steps - p.first_step + (p.ending == "released")
        work = [Work("encode", images, shared=True), Work("invert", images, steps, p.invert_guidance, shared=True)]
        return work + [Work("sample", made, back, p.decode_guidance), Work("decode", made)]

    def stages(self, task: Task) -> list[Stage]:
        return [self.statistics_stage(task, c, self.params.depth) for c in range(len(task.dataset.classes))]

    def statistics_stage(self, task: Task, class_index: int, depth: int) -> Stage:
        """The statistics of one class at one depth; independent of IPC, seed, sampler and start step."""
        p = self.params
        return task.stage(
            "d3hr.statistics",
            STATISTICS_VERSION,
            chunk=p.invert_batch,
            class_index=class_index,
            depth=depth,
            domain=p.domain,
            steps=p.steps,
            inversion=[p.invert_guidance, p.invert_solver, p.invert_stride] if p.domain == "ddim" else [],
            sample_posterior=p.sample_posterior,
            images=p.invert_images,
        )

    def statistics(self, task: Task, class_index: int) -> Moments:
        """The class's Gaussian at ``depth``, from the store or from one pass over the class's latents.

        The pass also publishes the statistics of ``keep_depths`` that are not there yet.
        """
        stage = self.statistics_stage(task, class_index, self.params.depth)
        path = task.store.open(stage) or self._pass(task, class_index, stage)
        return load_moments(path / "statistics.safetensors")[0]

    def _pass(self, task: Task, class_index: int, stage: Stage) -> Path:
        depths = {self.params.depth, *self.params.keep_depths}
        with task.store.lock(f"{self.statistics_stage(task, class_index, -1).key}", label="d3hr inversion"):
            path = task.store.open(stage)  # another process may have made it meanwhile
            if path is None:
                stages = {d: self.statistics_stage(task, class_index, d) for d in sorted(depths)}
                missing = [d for d in stages if d == self.params.depth or not task.store.has(stages[d])]
                deepest = stages[missing[-1]]  # the last: its work folder holds the finished chunks until it is made
                found = self._invert_class(task, class_index, missing, deepest)
                seconds = task.store.chunk_seconds(deepest)  # of the pass, which every depth needed
                for depth in missing:

                    def make(folder: Path, depth: int = depth) -> None:
                        facts = self._facts(task, class_index, depth)
                        save_moments(folder / "statistics.safetensors", found[depth], facts)

                    task.artifact(stages[depth], make, seconds=seconds if stages[depth] is not deepest else 0.0)
                path = task.store.open(stage)
        assert path is not None
        return path

    def _facts(self, task: Task, class_index: int, depth: int) -> dict:
        p = self.params
        return {
            "class": task.dataset.classes[class_index],
            "class_index": class_index,
            "depth": depth,
            "level": levels(task.backbone.scheduler, p.steps)[depth],
            "steps": p.steps,
            "domain": p.domain,
            "guidance": p.invert_guidance,
            "solver": p.invert_solver,
            "stride": p.invert_stride,
            "latent_shape": list(task.backbone.latent_shape),
            "dataset": task.dataset.digest,
            "backbone": task.backbone_key,
        }

    def _invert_class(self, task: Task, class_index: int, depths: list[int], stage: Stage) -> dict[int, Moments]:
        """One pass over the class's latents in canonical chunks; each finished chunk's moments survive a kill."""
        p, name = self.params, task.dataset.classes[class_index]
        total = len(task.train.by_class[class_index])
        total = min(total, p.invert_images or total)
        suffix = ".d" + "-".join(map(str, depths)) + ".safetensors"  # a resumed pass may keep other depths
        parts: dict[int, list[Moments]] = {d: [] for d in depths}
        with Progress(total, f"d3hr inversion, class {name}", "image") as bar:
            batches = class_latents(task, class_index, p.sample_posterior, p.invert_batch)
            for index, latents in enumerate(batches):
                if index * p.invert_batch >= total:
                    break
                latents = latents[: total - index * p.invert_batch]

                def make(index: int, file: Path, latents: torch.Tensor = latents) -> None:
                    task.store.log_work(stage, "images", len(latents))
                    kept = self._noised(task, class_index, latents, index * p.invert_batch, depths)
                    tensors = {}
                    for d in depths:
                        tensors |= Moments.of(kept[d].flatten(1)).tensors(f"{d}.")
                    save_file(tensors, file)

                (file,) = task.store.chunks(stage, index + 1, make, which=[index], suffix=suffix)
                tensors = load_file(file)
                for d in depths:
                    parts[d].append(Moments.read(tensors, f"{d}."))
                bar.update(len(latents))
        if not parts[depths[0]]:
            raise DataError(f"class {name!r} has no training images", where=task.dataset.name)
        return {d: Moments.merged(found) for d, found in parts.items()}

    def _noised(self, task: Task, class_index: int, latents: torch.Tensor, first: int, depths: list[int]):
        """Latents at each depth, ``{depth: [n, c, h, w]}``, of the class's images from position ``first`` on."""
        p, backbone = self.params, task.backbone
        if p.domain == "ddpm":
            power, ascending = alphas(backbone.scheduler), levels(backbone.scheduler, p.steps)
            noise = [[generator("d3hr.ddpm", class_index, first + i) for i in range(len(latents))] for _ in depths]
            return {d: add_noise(latents, g, power[ascending[d]]) if d else latents for d, g in zip(depths, noise)}
        return invert(
            backbone,
            latents,
            torch.full((len(latents),), int(backbone.class_map[class_index])),
            steps=p.steps,
            depths=depths,
            guidance=p.invert_guidance,
            solver=p.invert_solver,
            stride=p.invert_stride,
            label=f"class {task.dataset.classes[class_index]!r}",
        )

    def group(self, task: Task, class_index: int, moments: Moments, n: int) -> Group:
        """The class's group of ``n`` whitened latents, for the task's seed."""
        p = self.params
        seed = (task.seed, task.method, task.dataset.digest, class_index)
        return SAMPLERS[p.sampler](Draw(n, moments.std.float(), seed, p.m, p.group_score, p.spread))

    def distill(self, task: Task, unit: Unit) -> torch.Tensor:
        p, backbone = self.params, task.backbone
        (class_index,) = {c for c, _ in unit.cells}
        moments = self.statistics(task, class_index)
        group = self.group(task, class_index, moments, task.ipc)
        latents = moments.mean + moments.std * group.latents[[i for _, i in unit.cells]].double()
        clean = denoise(
            backbone,
            latents.float().view(-1, *backbone.latent_shape),
            torch.full((len(unit.cells),), int(task.backbone.class_map[class_index])),
            steps=p.steps,
            start_step=p.first_step,
            ending=p.ending,
            guidance=p.decode_guidance,
            batch=p.decode_batch,
        )
        parts = [
            backbone.decode(z, task.dataset.image_size, task.dataset.channels) for z in clean.split(p.decode_batch)
        ]
        return torch.cat(parts).cpu()
