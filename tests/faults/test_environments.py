"""A few of the cases of `environments.py`: each locale, each kind of output and an ordinary user once."""

import os
import shutil

import environments
import pytest
from environments import NOBODY, Ended, faults, one

AS_ROOT = os.geteuid() == 0 and shutil.which("setpriv") is not None
CASES = [
    ("list", "C", "closed pipe", None),
    ("leaderboard", "Latin-1", "terminal", None),
    ("update", "C", "pipe", NOBODY if AS_ROOT else None),
    ("report", "Latin-1", "closed pipe", NOBODY if AS_ROOT else None),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}-{case[2]}")
def test_a_command_does_its_work_wherever_it_runs(case, tmp_path):
    assert one(case, tmp_path, None) == []


def test_each_fault_is_seen(tmp_path):
    good = Ended(0, "1 table(s) refreshed")
    environments.prepare(tmp_path, None)
    assert faults("update", tmp_path, "pipe", good) == ["its work is not done"]
    assert faults("list", tmp_path, "pipe", Ended(0, "random")) == []
    for ended, words in (
        (Ended(None, ""), "a hang"),
        (Ended(1, "random"), "exit code 1"),
        (Ended(0, "Traceback random"), "a traceback"),
        (Ended(0, ""), "does not say 'random'"),
    ):
        assert [words in fault for fault in faults("list", tmp_path, "pipe", ended)] == [True]
    (tmp_path / "a.tmp").touch()
    assert "left behind" in faults("list", tmp_path, "closed pipe", Ended(0, ""))[0]
