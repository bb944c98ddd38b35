"""Synthetic records for the tests of records, leaderboards, grids and reports."""

import hashlib


def digest(*parts) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def make_record(
    method="d3hr", seed=0, *, dataset="digits", ipc=1, student="convnet3", protocol="clean-hard", top1=80.0,
    params=None, teacher=None, backbone=None, status="ok", reason="", precision=None, curve=True, **cost
):  # fmt: skip
    """A valid, unsealed record."""
    scores = {}
    if status == "ok":
        scores = {"top1_last": top1, "top1_best": min(100.0, top1 + 1), "top5_last": min(100.0, top1 + 10), "ece": 5.0}
        if curve:
            scores["curve"] = [[10, top1 / 2, top1 / 2 + 5], [20, top1, min(100.0, top1 + 10)]]
    return {
        "identity": {
            "dataset": {"name": dataset, "digest": digest(dataset)},
            "ipc": ipc,
            "method": {"name": method, "version": 1, "params": params or {}},
            "seed": seed,
            "student": student,
            "protocol": {"name": protocol, "version": 1, "digest": digest(protocol)},
            "teacher": teacher,
            "backbone": backbone,
            "precision": precision or {"dtype": "float32", "autocast": None, "tf32": False, "compile": False},
            "set": digest(dataset, method, ipc, seed, params),
        },
        "outcome": {"status": status, "reason": reason, "flags": []},
        "scores": scores,
        "cost": {
            "distill_seconds": 10.0,
            "train_seconds": 5.0,
            "peak_memory_bytes": 1000,
            "image_bytes": 2000,
            "label_bytes": 0,
            "device": "cpu",
            **cost,
        },  # fmt: skip
        "provenance": {"ddbench": "0.1", "commit": "abc", "created": "2026-01-01T00:00:00+00:00"},
        "gates": {
            "teacher": {"accuracy": 95.0, "expected": 95.0, "status": "ok"},
            "set": {"recognised": 80.0, "chance": 10.0, "status": "ok"},
        },
        "artifacts": {},
    }
