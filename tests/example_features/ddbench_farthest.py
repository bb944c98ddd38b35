"""Real images that lie far from each other in the teacher's features (farthest-first traversal, Gonzalez 1985)."""

from dataclasses import dataclass

import torch
from safetensors.torch import load_file, save_file

from benchmark.api import Method, param


@dataclass(frozen=True)
class Params:
    start: str = param("mean", "the first image: the nearest to the class mean, or a random one", "own",
                       choices=("mean", "random"), tune=("mean", "random"))  # fmt: skip


class Farthest(Method):
    """Each image is the one farthest from those chosen before."""

    Params = Params
    requires = frozenset({"teacher"})  # without this line `task.teacher` raises

    def why_not(self, dataset, ipc):
        smallest = min(len(rows) for rows in dataset.train.by_class)
        return f"the smallest class has {smallest} images" if ipc > smallest else ""

    def stage(self, task, label):
        return task.stage("farthest.features", 1, chunk=256, class_index=label)

    def stages(self, task):
        return [self.stage(task, label) for label in range(len(task.dataset.classes))]

    def features(self, task, label):
        """float32 [n, d] of the class's training images; computed once for every IPC, seed and student."""

        def make(folder):
            parts = chunks(task.train.by_class[label])
            found = [task.teacher.features(task.train.images(rows)).cpu() for rows in parts]
            save_file({"features": torch.cat(found)}, folder / "features.safetensors")

        return load_file(task.artifact(self.stage(task, label), make) / "features.safetensors")["features"]

    def distill(self, task, unit):
        (label, _), *_ = unit.cells  # by default a unit is one class: all its (class, index) cells
        x = self.features(task, label)
        if self.params.start == "mean":
            chosen = [int((x - x.mean(0)).norm(dim=1).argmin())]
        else:
            chosen = [int(torch.randint(len(x), (1,), generator=task.generator(label, 0, "start")))]
        nearest = (x - x[chosen[0]]).norm(dim=1)
        while len(chosen) < task.ipc:
            chosen.append(int(nearest.argmax()))
            nearest = torch.minimum(nearest, (x - x[chosen[-1]]).norm(dim=1))
        rows = task.train.by_class[label]
        return task.train.images([int(rows[chosen[index]]) for _, index in unit.cells])


def chunks(rows, size=256):
    """The rows in parts of ``size``: the same parts whoever computes them, so results are bitwise equal."""
    return [rows[i : i + size] for i in range(0, len(rows), size)]
