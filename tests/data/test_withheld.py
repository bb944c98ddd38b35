"""What methods are handed has no test split, whatever they try."""

import copy
import pickle

import pytest
from easy import easy_dataset

from benchmark.core.errors import DDBenchError
from benchmark.core.store import Store
from benchmark.data import load_dataset
from benchmark.data.withheld import WithheldError
from benchmark.pipeline import Request, make_plan
from benchmark.plugins import registry
from benchmark.teachers import get_teacher
from benchmark.training.testing import test_set as read_test_set

TOUCHES = {
    "images": lambda test: test.images([0]),
    "labels": lambda test: test.labels,
    "pil": lambda test: test.pil(0),
    "by_class": lambda test: test.by_class,
    "array": lambda test: getattr(test, "array", None),
    "len": len,
    "iter": list,
    "bool": bool,
    "item": lambda test: test[0],
}


@pytest.mark.parametrize("touch", TOUCHES.values(), ids=TOUCHES)
def test_touching_it_names_the_rule(touch):
    whole = easy_dataset()
    handed = whole.without_test()
    with pytest.raises(WithheldError, match="a method never sees the test split"):
        touch(handed.test)
    assert handed.train is whole.train and handed.digest == whole.digest and len(whole.test)


def test_copies_have_none_either():
    handed = easy_dataset().without_test()
    for same in (copy.deepcopy(handed), pickle.loads(pickle.dumps(handed))):
        with pytest.raises(WithheldError):
            same.test.images([0])


def test_the_cache_of_test_images_does_not_give_it_away(tmp_path):
    whole = easy_dataset()
    read_test_set(whole)
    with pytest.raises(WithheldError):
        read_test_set(whole.without_test())
    with pytest.raises(WithheldError):
        get_teacher(Store(tmp_path), whole.without_test(), "convnet3_bn")


@pytest.mark.parametrize("name", ["digits", "digits@val"])
def test_while_planning_too(name, tmp_path, monkeypatch):
    cls = registry().get("method", "random").load()
    monkeypatch.setattr(cls, "why_not", lambda self, dataset, ipc: str(dataset.test.labels[0]))
    with pytest.raises(DDBenchError, match="never sees the test split"):
        make_plan([Request(name, ("random",))], Store(tmp_path), tmp_path)
    assert len(load_dataset(name).test) > 0
