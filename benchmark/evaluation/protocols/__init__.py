"""Protocols: how students are trained and tested, as immutable versioned files."""

from benchmark.evaluation.protocols.load import describe, load_protocol, override, parse
from benchmark.evaluation.protocols.schema import Protocol, by_ipc

__all__ = ["Protocol", "by_ipc", "describe", "load_protocol", "override", "parse"]
