"""A source that is still being written waits: by its time of last change, and by a second look."""

import os

import pytest

from tierscale.pipeline.dataset.night.settling import Settling
from tierscale.pipeline.dataset.scan import ListedSource, look, scan

NOW = 1.8e9


def listed(age, **more):
    return ListedSource("/in/a.png", 10, int((NOW - age) * 1e9), **more)


@pytest.mark.parametrize(
    ("age", "waits"),
    [(0, True), (599, True), (601, False), (1e6, False), (-5, False), (-1e9, False)],
)
def test_what_was_changed_a_moment_ago_waits_and_a_future_date_never(age, waits):
    assert Settling(600.0).waits(listed(age), NOW) == waits
    assert not Settling().waits(listed(age), NOW), "it is off by default"


def test_an_object_counts_by_the_time_at_which_it_was_put():
    item = ListedSource("s3://b/a.zarr", 10, 0, "etag", NOW - 5)
    assert Settling(600.0).waits(item, NOW) and not Settling(2.0).waits(item, NOW)


def test_two_looks_that_differ_say_that_it_is_being_written(tmp_path):
    source = tmp_path / "a.png"
    source.write_bytes(b"12345")
    os.utime(source, (1e9, 1e9))
    (first,) = scan(str(tmp_path), pytest.fail)
    assert look(str(source), str(tmp_path)) == first

    def moves(seconds=600.0):
        return Settling(seconds).moves(first, str(tmp_path), NOW)

    assert not moves()
    source.write_bytes(b"1234567")
    os.utime(source, (1e9, 1e9))
    assert moves() and not moves(0.0), "by its size"
    source.write_bytes(b"12345")
    os.utime(source, (NOW - 1, NOW - 1))
    assert moves(), "by its time"
    source.unlink()
    assert not moves(), "that it is gone is another matter"


def test_the_looks_are_some_seconds_apart():
    assert Settling().pause == 0 and Settling(2.0).pause == 2.0 and Settling(3600.0).pause == 5.0
