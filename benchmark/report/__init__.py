"""The report: one self-contained HTML page."""

from benchmark.report.build import build

__all__ = ["build"]
