"""Registration; imports no torch."""

from benchmark.api import CommandInfo, MethodInfo, hookimpl

METHODS = [
    MethodInfo(
        "d3hr",
        "per-class Gaussians of DDIM-inverted latents, representative groups, guided decoding",
        "d3hr_plugin.method:D3HR",
        version=3,
        paper="Zhao et al., Taming Diffusion for Dataset Distillation with High Representativeness, ICML 2025, "
        "arXiv 2505.18399",
        uses="backbone",
    ),
    MethodInfo(
        "d3hr-modes",
        "modes of a class's DDIM-inverted latents, one an image, in place of D3HR's one Gaussian",
        "d3hr_plugin.modes:D3HRModes",
        version=1,
        paper="own, after D3HR (arXiv 2505.18399); see docs/d3hr-modes.md",
        uses="backbone",
    ),
]


@hookimpl
def ddbench_methods():
    return METHODS


@hookimpl
def ddbench_commands():
    return [
        CommandInfo(
            "d3hr-report",
            "Draw D3HR's assumptions for a dataset and a backbone.",
            "d3hr_plugin.command:d3hr_report",
        ),
        CommandInfo(
            "d3hr-solvers",
            "Evaluations, error and normality of D3HR's inversion for each solver.",
            "d3hr_plugin.command:d3hr_solvers",
        ),
    ]
