import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # `easy`, which the tests of teachers and metrics use too


@pytest.fixture(scope="session")
def easy():
    from easy import easy_dataset

    return easy_dataset()


@pytest.fixture(scope="session")
def teacher(easy, tmp_path_factory):
    from benchmark.store import Store
    from benchmark.teachers import get_teacher

    return get_teacher(Store(tmp_path_factory.mktemp("teacher")), easy, "convnet3_bn")


@pytest.fixture(scope="session")
def few(easy):
    """Five images a class, in class order."""
    import torch

    index = [int(i) for c in easy.train.by_class for i in c[:5]]
    return easy.train.images(index), torch.from_numpy(easy.train.labels[index])
