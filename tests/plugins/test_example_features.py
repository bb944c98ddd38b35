"""The second example of docs/own-method.md: a teacher's features and a cached stage."""

import importlib.util
from pathlib import Path

from benchmark.testing import RULES, check_method
from benchmark.testing.bench import Bench

ROOT = Path(__file__).parents[2]
FILE = ROOT / "tests" / "example_features" / "ddbench_farthest.py"


def test_it_keeps_the_contract_and_computes_features_once(tmp_path):
    spec = importlib.util.spec_from_file_location("ddbench_farthest", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    bench = Bench(tmp_path)
    bench.classes["farthest"] = module.Farthest
    assert check_method(bench, "farthest") == dict.fromkeys(RULES, "")
    _, task, _ = bench.task("farthest", 3, store="shared")
    for ipc, seed in ((2, 0), (3, 1)):
        bench.images("farthest", ipc, seed=seed, store="shared")
    assert len(list(task.store.root.glob("artifacts/farthest.features/*/artifact.json"))) == len(bench.dataset.classes)


def test_the_page_shows_the_whole_file():
    code = FILE.read_text(encoding="utf-8")
    assert code[code.index("from dataclasses") :] in (ROOT / "docs" / "own-method.md").read_text(encoding="utf-8")
