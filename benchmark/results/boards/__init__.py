"""Leaderboards: computed from records and from nothing else."""

from benchmark.results.boards.cells import rows
from benchmark.results.boards.columns import COLUMNS
from benchmark.results.boards.table import csv_text, read_csv, write_csv
from benchmark.results.boards.terminal import table

__all__ = ["COLUMNS", "csv_text", "read_csv", "rows", "table", "write_csv"]
