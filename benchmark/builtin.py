"""What ddbench itself registers, through the same hooks as anybody's plug-in."""

from benchmark.backbones.registered import BACKBONES
from benchmark.datasets.registered import DATASETS
from benchmark.executors.registered import EXECUTORS
from benchmark.metrics.registered import METRICS
from benchmark.plugins import hookimpl
from benchmark.protocols.registered import PROTOCOLS
from benchmark.students.registered import STUDENTS


@hookimpl
def ddbench_backbones():
    return BACKBONES


@hookimpl
def ddbench_datasets():
    return DATASETS


@hookimpl
def ddbench_executors():
    return EXECUTORS


@hookimpl
def ddbench_metrics():
    return METRICS


@hookimpl
def ddbench_protocols():
    return PROTOCOLS


@hookimpl
def ddbench_students():
    return STUDENTS
