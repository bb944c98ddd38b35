"""100,000 records make a board in seconds and little memory; here a fiftieth of them, by CPU time."""

import subprocess
import sys
import time

import pytest
from synthetic import make_record

from benchmark.results import boards as leaderboard
from benchmark.results import records


def many(count):
    """Records of ``count`` students, five seeds a cell, without files."""
    made = 0
    for ipc in (1, 10, 50, 100):
        for student in ("convnet3_bn", "resnet18", "mobilenetv2", "vgg11", "swin_t"):
            for method in range(25):
                for depth in range(10):
                    for seed in range(5):
                        if made == count:
                            return
                        made += 1
                        yield records.sealed(
                            make_record(
                                "random" if method == 0 else f"m{method}",
                                seed,
                                ipc=ipc,
                                student=student,
                                top1=20 + method + seed / 10,
                                params={"depth": depth, "guidance": 4.0, "m": 1000},
                            )  # fmt: skip
                        )


def test_a_fiftieth_of_100_000_records_costs_a_fiftieth_of_20_seconds(tmp_path):
    for record in many(2000):
        records.write_record(tmp_path, record)
    began = time.process_time()
    rows = leaderboard.rows(records.iter_records(tmp_path))
    text = leaderboard.csv_text(rows)
    assert len(rows) == 400 and text.count("\n") == 401
    assert time.process_time() - began < 1.5  # 0.4 s is a fiftieth; a machine may be slow or busy


def test_memory_does_not_hold_the_records(tmp_path):
    """Reading is one record at a time: with large curves the peak grows far less than the files."""
    record = make_record()
    record["scores"]["curve"] = [[e, 50.0, 90.0] for e in range(3000)]
    size = 0
    for seed in range(120):
        record["identity"]["seed"] = seed
        size += records.write_record(tmp_path, record).stat().st_size
    if size < 12_000_000:
        pytest.fail(f"the test's records are too small ({size})")
    code = (
        "import resource, sys\n"
        "from benchmark.results import boards as leaderboard, records\n"
        "from scipy.stats import t\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "leaderboard.rows(records.iter_records(sys.argv[1]))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    out = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(out.stdout) * 1024 < 8_000_000
