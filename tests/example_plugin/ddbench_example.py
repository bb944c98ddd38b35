"""A third-party method in 20 lines: the mean of `k` random real images of a class."""

from dataclasses import dataclass

from benchmark.api import Method, MethodInfo, hookimpl, param


@hookimpl
def ddbench_methods():
    return [MethodInfo("mean-of-k", "the mean of k random real images", "ddbench_example:MeanOfK")]


@dataclass(frozen=True)
class Params:
    k: int = param(4, "images in a mean", low=1)


class MeanOfK(Method):
    Params = Params

    def distill(self, task, unit):
        import torch

        rows = []
        for label, index in unit.cells:
            own = task.train.by_class[label]
            chosen = torch.randperm(len(own), generator=task.generator(label, index))[: self.params.k]
            rows.append(task.train.images(own[chosen.numpy()]).float().mean(0).round().to(torch.uint8))
        return torch.stack(rows)
