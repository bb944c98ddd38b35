"""What ddbench itself registers, through the same hooks as anybody's plug-in."""

from benchmark.backbones.registered import BACKBONES
from benchmark.data.registered import DATASETS
from benchmark.evaluation.metrics.registered import METRICS
from benchmark.evaluation.protocols.registered import PROTOCOLS
from benchmark.pipeline.executors.registered import EXECUTORS
from benchmark.plugins import hookimpl
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
