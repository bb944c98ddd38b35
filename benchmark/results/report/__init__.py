"""The report: one self-contained HTML page."""

from benchmark.results.report.build import build

__all__ = ["build"]
