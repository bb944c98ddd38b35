import re
from pathlib import Path

import pytest

from benchmark.results.boards.columns import COLUMNS, FLAGS
from benchmark.results.boards.reported import FIELDS as REPORTED
from benchmark.results.records import FIELDS

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def readme():
    return (ROOT / "results" / "README.md").read_text()


def test_every_column_is_explained_as_in_the_code(readme):
    for name, dtype, meaning in COLUMNS:
        assert f"| `{name}` | {dtype} | {meaning} |" in readme, name
    for flag, meaning in FLAGS.items():
        assert f"| `{flag}` | {meaning} |" in readme, flag


def test_every_field_of_a_record_is_explained(readme):
    for path, _, required, meaning in FIELDS:
        line = next(x for x in readme.splitlines() if x.startswith(f"| `{path}` |"))
        assert line.endswith(f"| {'yes' if required else ''} | {meaning} |"), path


def test_every_column_of_the_reported_numbers_is_explained(readme):
    section = readme.split("## Columns of `reported.csv`")[1].split("## ")[0]
    assert all(f"`{name}`" in section for name in REPORTED)


def test_the_first_method_of_the_page_works(tmp_path, monkeypatch):
    import torch

    from benchmark.core.store import Store
    from benchmark.data import load_dataset
    from benchmark.methods import Task, make_params
    from benchmark.plugins import Registry

    text = (ROOT / "docs" / "own-method.md").read_text(encoding="utf-8")
    files = dict(re.findall(r"```python\n# (mypackage/\w+\.py)[^\n]*\n(.*?)```", text, re.DOTALL))
    (tmp_path / "mypackage").mkdir()
    for name, code in {"mypackage/__init__.py": "", **files}.items():
        (tmp_path / name).write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    import mypackage.plugin

    registry = Registry()
    registry.add(mypackage.plugin, "mypackage")
    assert not registry.broken
    method_class = registry.get("method", "mymethod").load()
    method = method_class(make_params(method_class, "mymethod", "digits", {"k": "2"}))
    task = Task("mymethod", load_dataset("digits"), 2, 0, Store(tmp_path / "store"))
    images = method.distill(task, method.units(task)[3])
    assert images.dtype == torch.uint8 and tuple(images.shape) == (2, 1, 8, 8)
