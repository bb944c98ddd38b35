"""Loads the D3HR authors' functions from a checkout of github.com/lin-zhao-resoLve/D3HR, to run beside ours.

Nothing of theirs is changed but, as text before it is run: the window of depths that `invert` keeps (all instead of
24 to 38), and the loop of a comparison of time may be cut at the same depth as ours. ``ipdb`` and the absolute path
that they import are not needed and stubbed.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path
from types import SimpleNamespace

import torch

KEPT = "if i>23 and i<39:"
STOPPED = "if i >= num_inference_steps - 1 -10:"


def load(folder: str | Path, keep: str = "if i > 0:", stop: str | None = None) -> SimpleNamespace:
    """Their functions as one namespace; ``stop`` replaces the condition of their early end."""
    generation = Path(folder) / "generation"
    source = (generation / "dit_inversion_save_statistic.py").read_text()
    assert KEPT in source and STOPPED in source, "another version of the authors' code"
    source = source.replace(KEPT, keep)
    if stop:
        source = source.replace(STOPPED, stop)
    sys.modules.setdefault("ipdb", types.ModuleType("ipdb"))
    inversion: dict = {"__name__": "authors_inversion"}
    exec(compile(source, str(generation / "dit_inversion_save_statistic.py"), "exec"), inversion)
    package, module = types.ModuleType("generation"), types.ModuleType("generation.dit_inversion_save_statistic")
    module.sample = inversion["sample"]
    saved = {n: sys.modules.get(n) for n in (package.__name__, module.__name__)}
    sys.modules.update({package.__name__: package, module.__name__: module})
    path = list(sys.path)
    try:
        sampling: dict = {"__name__": "authors_sampling"}
        file = generation / "group_sampling.py"
        exec(compile(file.read_text(), str(file), "exec"), sampling)
    finally:
        sys.path[:] = path
        for name, old in saved.items():
            if old is None:
                del sys.modules[name]
            else:
                sys.modules[name] = old
    inversion["tqdm"] = lambda items, **_: items
    names = ("select_algorithm_batch", "evaluate_distribution_batch", "kl_divergence_independent", "skewness_batch")
    return SimpleNamespace(
        invert=inversion["invert"],
        sample=inversion["sample"],
        **{n: sampling[n] for n in names if n in sampling},
        sampling=sampling,
    )


def pipe(dit, scheduler) -> SimpleNamespace:
    """What their functions use of a pipeline; ``decode`` hands the clean latents through."""
    taken: list[torch.Tensor] = []

    def decode(latents):
        taken.append(latents)
        return SimpleNamespace(sample=latents)

    vae = SimpleNamespace(config=SimpleNamespace(scaling_factor=1.0), decode=decode)
    return SimpleNamespace(transformer=dit, scheduler=scheduler, vae=vae, taken=taken)
