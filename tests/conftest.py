"""Shared fixtures: a store of its own for each test, quiet progress, one thread (tests run side by side)."""

import os

os.environ.setdefault("DDBENCH_PROGRESS", "0")
os.environ.setdefault("DDBENCH_THREADS", "1")

import pytest  # noqa: E402


@pytest.fixture
def store(tmp_path):
    from benchmark.store import Store

    return Store(tmp_path / "store")
