"""D3HR as a plug-in: stages, and the way from a class's images to its distilled ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from benchmark.api import DataError, Method, Needs, Progress, Stage, Task, Unit, Work, class_latents, generator
from d3hr_plugin import models, selection
from d3hr_plugin.decoding import denoise
from d3hr_plugin.groups import SAMPLERS, Draw, Group
from d3hr_plugin.inversion import add_noise, invert
from d3hr_plugin.params import Params
from d3hr_plugin.presets import PRESETS
from d3hr_plugin.schedule import alphas, levels
from d3hr_plugin.statistics import Moments, load_moments, save_moments

if TYPE_CHECKING:
    from benchmark.api import Dataset

STATISTICS_VERSION = 2
LATENTS_VERSION = 1


@lru_cache(maxsize=1)
def dataset_defaults() -> dict[str, dict[str, Any]]:
    """``defaults.yaml``: what a dataset wants instead of the general defaults, with the reason beside each."""
    import yaml

    return yaml.safe_load(files("d3hr_plugin").joinpath("defaults.yaml").read_text(encoding="utf-8")) or {}


class D3HR(Method):
    """Dataset distillation with high representativeness (arXiv 2505.18399).

    The training images of a class are inverted to noise, their mean and variance are taken coordinate by
    coordinate, and of many groups drawn from that Gaussian the one that matches it best is decoded. Needs the
    backbone and the training images; costs some 30 passes of the DiT a training image, once for every seed and
    IPC, then 30 guided ones an image. Defaults are the paper's; the guidance is the backbone's, where one was
    chosen.
    """

    Params = Params
    presets = PRESETS
    quick = {"steps": 4, "depth": 2, "m": 20, "invert_batch": 4, "decode_batch": 4, "start_step": 2}
    params: Params

    @classmethod
    def defaults(cls, dataset: str) -> dict[str, Any]:
        return dict(dataset_defaults().get(dataset.partition("@")[0], {}).get("params", {}))

    @classmethod
    def authors(cls, dataset: str) -> dict[str, Any]:
        return super().authors(dataset) | {"invert_guidance": 4.0}

    def needs(self) -> Needs:
        p = self.params
        batch = max(p.invert_batch, p.decode_batch)
        uses = {"backbone": True, "teacher": p.uses_teacher, "resize": p.encode_resize}
        return Needs(**uses, batch=batch, batch_parameter="invert_batch")

    def why_not(self, dataset: Dataset, ipc: int) -> str:
        p = self.params
        smallest = min(range(len(dataset.classes)), key=lambda c: len(dataset.train.by_class[c]))
        name, count = dataset.classes[smallest], len(dataset.train.by_class[smallest])
        if p.modal or p.select != "none":
            wanted = "images to choose from" if p.select != "none" else "modes"
            return f"{ipc} {wanted} were asked for, class {name!r} has {count} images" if count < ipc else ""
        if count == 1 and ipc > 1:
            return f"class {name!r} has a single image, hence no deviation: its {ipc} images would all be the same"
        return ""

    def work(self, images: int, classes: int, ipc: int) -> list[Work]:
        p = self.params
        images = min(images, classes * p.invert_images) if p.invert_images else images
        made = classes * (ipc if p.select == "none" else max(ipc, p.candidates))
        work = [Work("encode", images, shared=True)]
        work.append(Work("invert", images, p.invert_calls, p.invert_guidance, shared=True))
        return work + [Work("sample", made, p.decode_calls, p.decode_guidance), Work("decode", made)]

    def stages(self, task: Task) -> list[Stage]:
        p, classes = self.params, range(len(task.dataset.classes))
        inverted = self.statistics_stage if p.model == "gaussian" else self.latents_stage
        found = [inverted(task, c, p.depth) for c in classes]
        return found + ([selection.features_stage(task, c) for c in classes] if p.uses_teacher else [])

    def statistics_stage(self, task: Task, class_index: int, depth: int) -> Stage:
        """The statistics of one class at one depth; independent of IPC, seed, sampler and start step."""
        return self._inverted_stage(task, "d3hr.statistics", STATISTICS_VERSION, class_index, depth)

    def latents_stage(self, task: Task, class_index: int, depth: int) -> Stage:
        """The inverted latents themselves, which every model with modes, IPC, seed and selection reads."""
        return self._inverted_stage(task, "d3hr.latents", LATENTS_VERSION, class_index, depth)

    def _inverted_stage(self, task: Task, name: str, version: int, class_index: int, depth: int) -> Stage:
        p = self.params
        inversion: list[Any] = [p.invert_guidance, p.invert_solver, p.invert_stride] if p.domain == "ddim" else []
        if inversion and (p.invert_evaluations or p.noise_until):
            inversion += [p.invert_evaluations, p.noise_until]
        resized = {} if p.encode_resize == "bicubic" else {"resize": p.encode_resize}
        stage = task.stage(
            name,
            version,
            chunk=p.invert_batch,
            class_index=class_index,
            depth=depth,
            domain=p.domain,
            steps=p.steps,
            inversion=inversion,
            sample_posterior=p.sample_posterior,
            images=p.invert_images,
            **resized,
        )
        # a teacher, where the method has one, has no part in inverting
        return dataclasses.replace(stage, inputs={k: v for k, v in stage.inputs.items() if k != "teacher"})

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

        def pack(kept: dict[int, torch.Tensor]) -> dict[str, torch.Tensor]:
            tensors: dict[str, torch.Tensor] = {}
            for d in depths:
                tensors |= Moments.of(kept[d].flatten(1)).tensors(f"{d}.")
            return tensors

        suffix = ".d" + "-".join(map(str, depths)) + ".safetensors"  # a resumed pass may keep other depths
        chunks = list(self._chunks(task, class_index, depths, stage, suffix, pack))
        return {d: Moments.merged(Moments.read(tensors, f"{d}.") for tensors in chunks) for d in depths}

    def _chunks(
        self, task: Task, class_index: int, depths: list[int], stage: Stage, suffix: str, pack: Callable
    ) -> Iterator[dict[str, torch.Tensor]]:
        """``pack`` of each chunk of the class's inverted latents, in order; finished ones survive a kill."""
        p, name = self.params, task.dataset.classes[class_index]
        total = len(task.train.by_class[class_index])
        total = min(total, p.invert_images or total)
        if not total:
            raise DataError(f"class {name!r} has no training images", where=task.dataset.name)
        with Progress(total, f"d3hr inversion, class {name}", "image") as bar:
            batches = class_latents(task, class_index, p.sample_posterior, p.invert_batch, p.encode_resize)
            for index, latents in enumerate(batches):
                if index * p.invert_batch >= total:
                    break
                latents = latents[: total - index * p.invert_batch]

                def make(index: int, file: Path, latents: torch.Tensor = latents) -> None:
                    task.store.log_work(stage, "images", len(latents))
                    save_file(pack(self._noised(task, class_index, latents, index * p.invert_batch, depths)), file)

                (file,) = task.store.chunks(stage, index + 1, make, which=[index], suffix=suffix)
                yield load_file(file)
                bar.update(len(latents))

    def latents(self, task: Task, class_index: int) -> torch.Tensor:
        """The class's inverted latents ``[n, d]`` float32 on the task's device, in the order of its images.

        Kept in half precision (8 kB an image at 256 px), which rounds them by less than a thousandth of a deviation.
        """
        stage, depth = self.latents_stage(task, class_index, self.params.depth), self.params.depth

        def pack(kept: dict[int, torch.Tensor]) -> dict[str, torch.Tensor]:
            return {"latents": kept[depth].to("cpu", torch.float16).contiguous()}

        def make(folder: Path) -> None:
            chunks = self._chunks(task, class_index, [depth], stage, ".safetensors", pack)
            save_file({"latents": torch.cat([part["latents"] for part in chunks])}, folder / "latents.safetensors")

        found = load_file(task.artifact(stage, make) / "latents.safetensors")["latents"]
        return found.flatten(1).to(task.device).float()

    def _noised(self, task: Task, class_index: int, latents: torch.Tensor, first: int, depths: list[int]):
        """Latents at each depth, ``{depth: [n, c, h, w]}``, of the class's images from position ``first`` on."""
        p, backbone, name = self.params, task.backbone, task.dataset.backbone_class(class_index)
        if p.domain == "ddpm":
            power, ascending = alphas(backbone.scheduler), levels(backbone.scheduler, p.steps)
            noise = [[generator("d3hr.ddpm", name, first + i) for i in range(len(latents))] for _ in depths]
            return {d: add_noise(latents, g, power[ascending[d]]) if d else latents for d, g in zip(depths, noise)}
        noise = None
        if p.noise_until:
            draws = [generator("d3hr.ddpm", name, first + i) for i in range(len(latents))]
            noise = torch.stack([torch.randn(latents.shape[1:], generator=g) for g in draws])
        return invert(
            backbone,
            latents,
            torch.full((len(latents),), int(backbone.class_map[class_index])),
            steps=p.steps,
            depths=depths,
            guidance=p.invert_guidance,
            solver=p.invert_solver,
            stride=p.invert_stride,
            evaluations=p.invert_evaluations,
            noise_until=p.noise_until,
            noise=noise,
            label=f"class {task.dataset.classes[class_index]!r}",
        )

    def group(self, task: Task, class_index: int, moments: Moments, n: int) -> Group:
        """The class's group of ``n`` whitened latents, for the task's seed."""
        p = self.params
        seed = (task.seed, task.method, task.dataset.digest, class_index)
        return SAMPLERS[p.sampler](Draw(n, moments.std.float(), seed, p.m, p.group_score, p.spread))

    def draw(self, task: Task, class_index: int, n: int) -> torch.Tensor:
        """``n`` latents ``[n, d]`` float32 of the class in the inverted domain, for the task's seed."""
        p = self.params
        if p.model == "gaussian":
            moments = self.statistics(task, class_index)
            group = self.group(task, class_index, moments, n)
            return (moments.mean + moments.std * group.latents.double()).float()
        rows = self.latents(task, class_index)
        modes = min(len(rows), task.ipc if p.spread or n == task.ipc else n)
        return models.draw(
            p.model,
            rows,
            self._space(task, class_index, rows),
            n,
            modes,
            spread=p.spread,
            rank=p.rank,
            seed=(task.seed, task.method, task.dataset.digest, class_index),
        )

    def _space(self, task: Task, class_index: int, rows: torch.Tensor) -> torch.Tensor:
        """What the modes are sought in: a description ``[n, e]`` of the images whose inverted latents are ``rows``."""
        p = self.params
        if not p.modal or p.modes_in == "inverted":
            return rows
        if p.modes_in == "features":
            return selection.class_features(task, class_index)[: len(rows)]
        clean = torch.cat(list(class_latents(task, class_index, p.sample_posterior, resize=p.encode_resize)))
        return clean[: len(rows)].flatten(1).to(rows.device)

    def distill(self, task: Task, unit: Unit) -> torch.Tensor:
        p = self.params
        (class_index,) = {c for c, _ in unit.cells}
        chosen = torch.tensor([i for _, i in unit.cells])
        if p.select == "none":
            return self._decode(task, class_index, self.draw(task, class_index, task.ipc)[chosen])
        images = self._decode(task, class_index, self.draw(task, class_index, max(task.ipc, p.candidates)))
        found, real = task.teacher.features(images).float(), selection.class_features(task, class_index)
        seed = (task.seed, task.method, task.dataset.digest, class_index)
        group = selection.representative(found, real, task.ipc, seed)
        return images[torch.tensor(group)[chosen]]

    def _decode(self, task: Task, class_index: int, latents: torch.Tensor) -> torch.Tensor:
        """Images uint8 ``[n, C, s, s]`` on the CPU of latents ``[n, d]`` at the depth's noise level."""
        p, backbone = self.params, task.backbone
        clean = denoise(
            backbone,
            latents.view(-1, *backbone.latent_shape),
            torch.full((len(latents),), int(backbone.class_map[class_index])),
            steps=p.steps,
            start_step=p.first_step,
            ending=p.ending,
            guidance=p.decode_guidance,
            batch=p.decode_batch,
            solver=p.decode_solver,
            evaluations=p.decode_evaluations,
        )
        size, channels = task.dataset.image_size, task.dataset.channels
        return torch.cat([backbone.decode(z, size, channels) for z in clean.split(p.decode_batch)]).cpu()
