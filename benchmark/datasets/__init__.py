"""Datasets: what is distilled, and what students are tested on."""

from benchmark.datasets.base import ArraySplit, Dataset, Split, folder_names, resize_crop
from benchmark.datasets.holdout import holdout
from benchmark.datasets.loading import load_dataset

__all__ = ["ArraySplit", "Dataset", "Split", "folder_names", "holdout", "load_dataset", "resize_crop"]
