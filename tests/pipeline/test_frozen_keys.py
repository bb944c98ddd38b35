"""Store keys, record ids and digests as literals: committed records and everybody's stores hang on them.

A key may change only where its output does: raise the version of the stage or the method, and say so in the commit.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from synthetic import make_record

from benchmark.core.store import Store
from benchmark.pipeline import Plan, Request, make_plan
from benchmark.results.records import Record, read_records, sealed

ROOT = Path(__file__).parents[2]
REQUESTS = {
    "methods": Request(
        "digits",
        ("random", "kmeans", "rded", "d4m"),
        protocols=("hard", "soft"),
        students=("convnet3_in",),
        seeds=(0,),
        precision="tf32",
        sets={"d4m.guidance": 8.0},  # the default is the backbone's, which may be chosen anew
    ),
    "squeezed": Request(
        "digits", ("sre2l",), seeds=(1,), sets={"squeeze": "resnet18", "protocol.steps": "5"}, protocols=("hard",)
    ),
    "validation": Request(
        "digits@val", ("kmeans",), ipc=(2,), seeds=(0,), sets={"features": "teacher"}, metrics=("corruptions",)
    ),
    "skipped": Request("digits", ("noise", "random"), ipc=(2000,), seeds=(0,)),
}
FROZEN = {
    "methods": """
9e10e65be01e77f8 random ipc 1 seed 0 on digits
5d7827454031ab21 teacher convnet3_bn on digits
d73e37fc624c4476 convnet3_in on random ipc 1 seed 0, hard, digits record 8db187b0615e2676
cd2135a44dd9e866 convnet3_in on random ipc 1 seed 0, soft, digits record de34ca03a46e76b2
ed898fe38189db47 kmeans ipc 1 seed 0 on digits
8e227641f14e1293 convnet3_in on kmeans ipc 1 seed 0, hard, digits record d1c8bbf8432a14ae
318dfd35ced1286b convnet3_in on kmeans ipc 1 seed 0, soft, digits record 8fa1c1abbf040dfc
662e7d0399289e3c rded ipc 1 seed 0 on digits
e4726ca2b20cf649 convnet3_in on rded ipc 1 seed 0, hard, digits record 544fd68e0bfb1be7
df7589983f63661f convnet3_in on rded ipc 1 seed 0, soft, digits record f923806c06e97765
6769319920ac2587 backbone tiny for digits
3e8cc7eb2b795c04 d4m ipc 1 seed 0 on digits
001edf99b53f57ce convnet3_in on d4m ipc 1 seed 0, hard, digits record 9953706a7e9a78f7
99a9e0a6aabe75a2 convnet3_in on d4m ipc 1 seed 0, soft, digits record 79e2a150271308ab
""",
    "squeezed": """
ae9ca10cc559cab7 teacher resnet18 on digits
041477cc204d9124/0of2 sre2l ipc 1 seed 1 on digits, part 1/2
041477cc204d9124/1of2 sre2l ipc 1 seed 1 on digits, part 2/2
041477cc204d9124 sre2l ipc 1 seed 1 on digits
5d7827454031ab21 teacher convnet3_bn on digits
9ae50cc9a580c13a convnet3_bn on sre2l ipc 1 seed 1, hard+steps=5, digits record 7a9ef33b18a0d0e1
""",
    "validation": """
a8fc81d23e772275 teacher convnet3_bn on digits@val
2bf7386f917f7195 kmeans ipc 2 seed 0 on digits@val
a061a6737ce139c1 convnet3_bn on kmeans ipc 2 seed 0, hard, digits@val record 9af756850ad57377
""",
    "skipped": """
e4be8e350e2c312d noise ipc 2000 seed 0 on digits
5d7827454031ab21 teacher convnet3_bn on digits
f2e28c55a5a92d21 convnet3_bn on noise ipc 2000 seed 0, hard, digits record e8ab0bb5e7bd9136
skipped record 07a05c17d9525dfc
""",
}

FROZEN_RECORD = ("313a688be1e4e9f686394a039ba248af", "58277beeda4e806356bb2f1559cb165b")


def listed(plan: Plan) -> list[str]:
    """A line a job: key (16 digits, and the part), label, id of the record; then the skipped cells."""
    lines = []
    for job in plan.jobs:
        part = "/" + job.key.split("/")[1] if "/" in job.key else ""
        record = f" record {job.identity.id[:16]}" if job.kind == "evaluate" else ""
        lines.append(f"{job.key[:16]}{part} {job.label}{record}")
    return lines + [f"skipped record {cell.identity.id[:16]}" for cell in plan.skipped]


@pytest.mark.parametrize("name", REQUESTS)
def test_keys_and_ids_are_what_they_were(name, tmp_path):
    plan = make_plan([REQUESTS[name]], Store(tmp_path), tmp_path, parts=2 if name == "squeezed" else 1)
    assert listed(plan) == FROZEN[name].strip().splitlines()
    plan.write(tmp_path / "plan.json")
    again = Plan.read(tmp_path / "plan.json")
    assert again == plan and listed(again) == listed(plan)
    assert [job.stage and job.stage.key for job in again.jobs] == [job.key.split("/")[0] for job in plan.jobs]


def test_digests_are_what_they_were():
    record = sealed(make_record())
    assert (record["id"], record["digest"][:32]) == FROZEN_RECORD


def test_committed_records_are_the_same_as_objects():
    """Every field of every committed record has a place in the types, and ids do not change on the way."""
    found = [r for folder in (ROOT / "results").rglob("records") for r in read_records(folder.parent)]
    assert len(found) > 1000
    for record in found:
        typed = Record.from_json(json.loads(json.dumps(record)))
        assert typed.to_json() == record and typed.identity.id == record["id"]
