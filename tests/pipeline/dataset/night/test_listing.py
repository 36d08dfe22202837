"""A listing and sources that may still be being written: nothing is decided about them yet."""

import pytest

from tierscale.pipeline.dataset.night.ledger import Ledger
from tierscale.pipeline.dataset.night.listing import Changes, record_listing
from tierscale.pipeline.dataset.results import ImageResult
from tierscale.pipeline.dataset.scan import ListedSource

RESULT = ImageResult("p1", 3, 8, 8, {"bicubic": 1}, 5.0, 0.5, 1.0)
NOON = 1.8e9


@pytest.fixture
def ledger(tmp_path):
    with Ledger(str(tmp_path / "l.db"), lambda: NOON) as made:
        yield made


def never(source):
    raise AssertionError(f"{source} is not read while it is being written")


def record(ledger, sizes, moving=()):
    """Record a listing of sources by size; those that are `moving` are not settled."""
    listing = [ListedSource(name, size, 1) for name, size in sizes.items()]
    return record_listing(ledger, listing, never, lambda item: item.source in moving)


def claimed(ledger):
    found = []
    while entry := ledger.claim("n1", "{}", lambda source: f"out/{source}.zarr"):
        ledger.record_done(entry.source, RESULT, "s")
        found.append(entry.source)
    return found


def states(ledger):
    return {row["source"]: row["state"] for row in ledger.do("SELECT source, state FROM sources")}


def test_a_new_source_that_is_being_written_is_left_without_an_attempt(tmp_path, ledger):
    assert record(ledger, {"a": 5, "b": 5}, moving="a") == Changes(2, 0, 0, 0, 0, 1)
    assert claimed(ledger) == ["b"] and states(ledger) == {"a": "pending", "b": "done"}
    assert ledger.counts("n1")["left"] == 1
    assert ledger.do("SELECT attempts FROM sources WHERE source = 'a'").fetchone()[0] == 0
    with Ledger(str(tmp_path / "l.db"), lambda: NOON) as later:
        assert record(later, {"a": 9, "b": 5}) == Changes(0, 1, 1, 0)
        assert claimed(later) == ["a"]


def test_what_was_made_stays_while_its_source_is_being_written_anew(tmp_path, ledger):
    record(ledger, {"a": 5})
    assert claimed(ledger) == ["a"]
    assert record(ledger, {"a": 7}, moving="a") == Changes(0, 0, 0, 0, 1, 1)
    assert claimed(ledger) == [] and states(ledger) == {"a": "done"}
    with Ledger(str(tmp_path / "l.db"), lambda: NOON) as later:
        assert record(later, {"a": 8}) == Changes(0, 1, 0, 0), "the next listing decides"
        assert claimed(later) == ["a"]


def test_what_is_done_and_did_not_change_waits_for_nothing(ledger):
    record(ledger, {"a": 5})
    claimed(ledger)
    assert record(ledger, {"a": 5}, moving="a") == Changes(0, 0, 1, 0)


def test_what_failed_before_is_not_tried_while_it_is_being_written(ledger):
    record(ledger, {"a": 5})
    ledger.claim("n1", "{}", str)
    ledger.record_failure("a", "cut short")
    assert record(ledger, {"a": 7}, moving="a") == Changes(0, 1, 0, 0, 0, 1)
    ledger.begin_night("n2")
    assert claimed(ledger) == [] and states(ledger) == {"a": "pending"}


def test_all_gone_is_told_from_nothing_known(ledger):
    assert not record(ledger, {}).all_gone
    assert not record(ledger, {"a": 5}).all_gone
    assert record(ledger, {}).all_gone and not record(ledger, {"b": 5}).all_gone
