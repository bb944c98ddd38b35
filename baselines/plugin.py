"""Registration; imports no torch."""

from benchmark.plugins import MethodInfo, hookimpl

METHODS: list[MethodInfo] = []


@hookimpl
def ddbench_methods():
    return METHODS
