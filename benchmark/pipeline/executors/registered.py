"""What ddbench registers of its own; light, imports no torch."""

from benchmark.plugins import ExecutorInfo

EXECUTORS = [
    ExecutorInfo(
        "local",
        "processes on this machine, one a core or a GPU",
        "benchmark.pipeline.executors.local:execute",
        slots="benchmark.pipeline.executors.local:slots",
    ),
    ExecutorInfo(
        "ray",
        "Ray Core tasks on a cluster (extra: ddbench[ray])",
        "benchmark.pipeline.executors.ray_core:execute",
        slots="benchmark.pipeline.executors.ray_core:slots",
        elsewhere=True,
    ),
]
