"""Numbers in sentences."""

import pytest

from tierscale.pipeline.wording import compared, counted, in_bytes


def test_one_thing_is_no_plural():
    assert [counted(number, "shard") for number in (0, 1, 2)] == ["0 shards", "1 shard", "2 shards"]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1023 bytes"),
        (1024, "1.00 KiB"),
        (2_157_152, "2.06 MiB"),
        ((1 << 30) - 1, "1.00 GiB"),
        (10 << 30, "10.0 GiB"),
        (100 << 20, "100 MiB"),
        (5 << 60, "5120 PiB"),
    ],
)
def test_bytes_are_told_in_a_unit_that_shows_them(number, text):
    assert in_bytes(number) == text


def test_amounts_that_are_compared_never_read_alike():
    assert compared(3 << 20, 2 << 20) == ("3.00 MiB", "2.00 MiB")
    assert compared(850_836, 850_835) == ("850836 bytes", "850835 bytes")
