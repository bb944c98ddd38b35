"""The hooks a plug-in may implement. Each returns a list of light descriptions; none may import torch.

A plug-in is a module (or object) named in the entry-point group ``ddbench``::

    [options.entry_points]
    ddbench =
        mymethod = mypackage.plugin
"""

from __future__ import annotations

import pluggy

from benchmark.plugins.infos import (
    BackbonePresetInfo,
    CommandInfo,
    DatasetInfo,
    ExecutorInfo,
    MethodInfo,
    MetricInfo,
    ProtocolInfo,
    StudentInfo,
)

hookspec = pluggy.HookspecMarker("ddbench")
hookimpl = pluggy.HookimplMarker("ddbench")


@hookspec
def ddbench_methods() -> list[MethodInfo]:
    """Distillation methods."""


@hookspec
def ddbench_datasets() -> list[DatasetInfo]:
    """Datasets."""


@hookspec
def ddbench_students() -> list[StudentInfo]:
    """Student (and teacher) architectures."""


@hookspec
def ddbench_protocols() -> list[ProtocolInfo]:
    """Evaluation protocols, as YAML files inside a package."""


@hookspec
def ddbench_backbones() -> list[BackbonePresetInfo]:
    """Presets for training a diffusion backbone."""


@hookspec
def ddbench_executors() -> list[ExecutorInfo]:
    """Engines that run the jobs of a plan."""


@hookspec
def ddbench_metrics() -> list[MetricInfo]:
    """Extra scores of a trained student."""


@hookspec
def ddbench_commands() -> list[CommandInfo]:
    """Sub-commands of ``ddbench``."""
