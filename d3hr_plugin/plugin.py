"""Registration; imports no torch."""

from benchmark.plugins import MethodInfo, hookimpl

METHODS = [
    MethodInfo(
        "d3hr",
        "per-class Gaussians of DDIM-inverted latents, representative groups, guided decoding",
        "d3hr_plugin.method:D3HR",
        version=1,
        paper="Zhao et al., Taming Diffusion for Dataset Distillation with High Representativeness, ICML 2025, "
        "arXiv 2505.18399",
    )
]


@hookimpl
def ddbench_methods():
    return METHODS
