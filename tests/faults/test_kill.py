"""kill -9 at random moments: `results add` and `export` do all or nothing (`run` and `grid`: tests/faults/kill.py)."""

import random

from kill import add_is_all_or_none, export_is_all_or_none


def test_add_is_all_or_none_whenever_it_is_killed(tmp_path):
    assert add_is_all_or_none(tmp_path, 8, random.Random(0), count=20) >= 1


def test_export_is_all_or_none_whenever_it_is_killed(tmp_path):
    assert export_is_all_or_none(tmp_path, 6, random.Random(0)) >= 1


def test_what_was_decided_is_finished_and_what_was_begun_is_removed(tmp_path):
    """Both halves of the promise, each forced."""
    import os

    from kill import killed, submission

    from benchmark.results.records import adding, read_records
    from benchmark.results.records.submissions import add

    theirs, ours = submission(tmp_path / "theirs", 6, first=3), submission(tmp_path / "ours", 3)

    def die_before(*_):
        os._exit(9)

    def decided():
        adding._move = die_before
        add(theirs, ours)

    def begun():
        adding.sync_tree = die_before
        add(theirs, ours)

    killed(begun, 5)
    assert len(read_records(ours)) == 3 and not list(ours.glob(".ad*"))
    killed(decided, 5)
    assert len(list(ours.glob(".added-*"))) == 1
    assert len(read_records(ours)) == 9 and not list(ours.glob(".ad*"))
