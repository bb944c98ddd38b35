"""A plan of toy jobs through the real engine: `random` on digits at the smallest protocol, and what counts its work."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

from benchmark.core.store import Store
from benchmark.pipeline import Plan, Request, make_plan


def toy_plan(root: Path, teacher_store: Store, *, seeds: int = 6, steps: int = 3) -> Plan:
    """``seeds`` sets and students; results in ``root/results``, store in ``root/store``."""
    store = Store(root / "store")
    if not store.root.exists():
        shutil.copytree(teacher_store.root, store.root)
        (store.root / "work.jsonl").unlink(missing_ok=True)
    request = Request(
        dataset="digits",
        methods=("random",),
        protocols=("smoke",),
        seeds=tuple(range(seeds)),
        sets={"protocol.steps": steps},
    )
    return make_plan([request], store, root / "results")


def outcomes(root: Path) -> dict:
    """(outcome, scores) by record id."""
    found = [json.loads(p.read_text()) for p in sorted((root / "results" / "records").glob("*.json"))]
    return {r["id"]: (r["outcome"], r["scores"]) for r in found}


def work_done(root: Path) -> Counter:
    """How often each piece of work was begun, by (stage, key, unit)."""
    lines = (root / "store" / "work.jsonl").read_text().splitlines()
    return Counter(json.dumps({k: v for k, v in json.loads(line).items() if k != "pid"}) for line in lines)
