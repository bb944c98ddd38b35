"""Datasets: what is distilled, and what students are tested on."""

from benchmark.datasets.base import ArraySplit, Dataset, Split, folder_names, resize_crop

__all__ = ["ArraySplit", "Dataset", "Split", "folder_names", "resize_crop"]
