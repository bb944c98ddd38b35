"""Checkpoints: replaced whole, and a flipped byte is noticed."""

import pytest

from benchmark.core.store.checked import find_checked, replace_checked


def test_the_newest_whole_version_counts(tmp_path, capsys):
    path = tmp_path / "student.pt"
    assert find_checked(path) is None
    for text in (b"first", b"second"):
        replace_checked(path, lambda temporary, text=text: temporary.write_bytes(text))
    assert find_checked(path).read_bytes() == b"second" and len(list(tmp_path.iterdir())) == 1
    find_checked(path).write_bytes(b"secone")
    assert find_checked(path) is None and "damaged checkpoint" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_earlier_version(tmp_path):
    path = tmp_path / "student.pt"
    replace_checked(path, lambda temporary: temporary.write_bytes(b"whole"))

    def fail(temporary):
        temporary.write_bytes(b"half")
        raise OSError("full")

    with pytest.raises(OSError):
        replace_checked(path, fail)
    assert find_checked(path).read_bytes() == b"whole" and len(list(tmp_path.iterdir())) == 1
