"""Leaderboards: computed from records and from nothing else."""

from benchmark.leaderboard.cells import rows
from benchmark.leaderboard.columns import COLUMNS
from benchmark.leaderboard.table import csv_text, read_csv, write_csv
from benchmark.leaderboard.terminal import table

__all__ = ["COLUMNS", "csv_text", "read_csv", "rows", "table", "write_csv"]
