"""Shared by the tests of backbones."""

from functools import partial

import pytest
from toy_backbones import make_dataset, write_folder

from benchmark.backbones import classifiers
from benchmark.backbones import report as report_module


@pytest.fixture
def toy():
    return make_dataset()


@pytest.fixture
def judge(monkeypatch):
    """Instead of a trained teacher: the column pair that is brightest."""

    def classify(images):
        return images.float().mean(dim=(1, 2)).view(len(images), 4, 2).sum(dim=2)

    def classifier(store, dataset, device, judge):
        return {"name": judge or "brightest", "key": "", "accuracy": 100.0}, classify

    monkeypatch.setattr(report_module, "classifier", classifier)
    monkeypatch.setattr(classifiers, "FEWEST_STEPS", 3)  # the second classifier: narrow, trained for a moment
    for kind, network in classifiers.KINDS.items():
        monkeypatch.setitem(classifiers.KINDS, kind, partial(network, widths=(8, 8, 8)))


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "backbone")
