"""Bits as text."""

import pytest

from benchmark.core.bits import pack, unpack


def test_bits_come_back_whatever_their_number():
    for count in (1, 7, 8, 9, 450):
        bits = [(i * i) % 3 == 1 for i in range(count)]
        assert unpack(pack(bits)).tolist() == bits
    assert pack([True, False, False, False, False, False, False, True]) == "8:gQ=="


@pytest.mark.parametrize("text", ["", "8", "9:gQ==", "x:gQ==", "8:g?=="])
def test_what_is_no_such_text_is_refused(text):
    with pytest.raises(ValueError):
        unpack(text)
