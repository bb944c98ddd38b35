"""Datasets: what is distilled, and what students are tested on."""

from benchmark.data.base import ArraySplit, Dataset, Split, folder_names, resize_crop
from benchmark.data.holdout import holdout
from benchmark.data.loading import load_dataset

__all__ = ["ArraySplit", "Dataset", "Split", "folder_names", "holdout", "load_dataset", "resize_crop"]
