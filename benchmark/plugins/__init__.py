"""Plug-ins: the one door through which methods, datasets, students, protocols and engines come in."""

from benchmark.plugins.hookspecs import hookimpl
from benchmark.plugins.infos import (
    BackbonePresetInfo,
    Broken,
    CommandInfo,
    DatasetInfo,
    ExecutorInfo,
    Info,
    MethodInfo,
    MetricInfo,
    ProtocolInfo,
    StudentInfo,
)
from benchmark.plugins.registry import KINDS, Registry, others, registry

__all__ = [
    "BackbonePresetInfo",
    "Broken",
    "CommandInfo",
    "DatasetInfo",
    "ExecutorInfo",
    "Info",
    "KINDS",
    "MethodInfo",
    "MetricInfo",
    "ProtocolInfo",
    "Registry",
    "StudentInfo",
    "hookimpl",
    "others",
    "registry",
]
