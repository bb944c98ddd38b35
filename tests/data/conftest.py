"""Each test gets a store of its own and an empty cache of loaded datasets."""

import pytest


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    from benchmark.data import loading

    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DDBENCH_DATA", raising=False)
    loading._load.cache_clear()
    yield
    loading._load.cache_clear()
