"""Shared fixtures: a store of its own for each test, quiet progress, one thread (tests run side by side)."""

import os

os.environ.setdefault("DDBENCH_PROGRESS", "0")
os.environ.setdefault("DDBENCH_THREADS", "1")
os.environ["DDBENCH_SHIPPED"] = "0"  # tests train what they need; those of what the package brings say so
os.environ["DDBENCH_BACKBONES"] = ""

import pytest  # noqa: E402

pytest_plugins = ("easy",)  # fixtures easy, few, teacher


@pytest.fixture
def store(tmp_path):
    from benchmark.core.store import Store

    return Store(tmp_path / "store")


@pytest.fixture(scope="session")
def digits_teacher_store(tmp_path_factory, worker_id):
    """A store with the trained teacher of digits, one for all processes of pytest; copy it, never write to it."""
    from benchmark.core.store import Store
    from benchmark.data import load_dataset
    from benchmark.teachers import get_teacher

    base = tmp_path_factory.getbasetemp()
    made = Store((base if worker_id == "master" else base.parent) / "teacher-store")
    get_teacher(made, load_dataset("digits"), "convnet3_bn")
    return made
