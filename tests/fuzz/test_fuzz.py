"""Some twenty seconds of the fuzzer; and that it notices where one guard is taken away."""

import os

import fuzz
import pytest

CASES = 20  # of each target
SEED = int(os.environ.get("FUZZ_SEED", "0"))


def test_hostile_input_ends_as_it_should():
    counts, faults = fuzz.run(SEED, 3600, cases=CASES)
    assert not faults, f"{len(faults)} faults; tests/fuzz/fuzz.py with\n" + "\n\n".join(faults[:5])
    assert counts["records"] == counts["lines"] == CASES and {"exit 0", "exit 1", "exit 2", "exit 3"} <= set(counts)


@pytest.mark.parametrize(
    "target, guard, broken",
    [
        ("records", "benchmark.results.records.schema._elements", lambda record: iter(())),
        ("manifests", "benchmark.sets.folder._manifest_faults", lambda manifest, need: iter(())),
        ("pictures", "benchmark.core.foreign.opened_image", None),
        ("protocols", "benchmark.evaluation.protocols.load._in_range", lambda key, number, where: number),
    ],
)
def test_a_missing_guard_is_noticed(target, guard, broken, monkeypatch):
    if broken is None:  # as it was: whatever the file is, by name
        from PIL import Image

        monkeypatch.setattr("benchmark.data.decode.opened_image", lambda path, links=False: Image.open(path))
    else:
        monkeypatch.setattr(guard, broken)
    monkeypatch.setattr(fuzz, "limit", lambda: 2)
    for seed in range(40):
        if fuzz.run(seed, 60, (target,), cases=10)[1]:
            return
    pytest.fail("400 cases without the guard, and no fault")
