"""The ledger: what a listing changes, who may hold it, the order of work, and when a source is
given up.
"""

import os
import sqlite3
import threading

import pytest

from tierscale.pipeline.dataset.night.ledger import NIGHTS, Busy, Ledger
from tierscale.pipeline.dataset.night.listing import Late, record_listing
from tierscale.pipeline.dataset.results import ImageResult
from tierscale.pipeline.dataset.scan import ListedSource
from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.storage.lease import LEASE_SECONDS

RESULT = ImageResult("p1", 3, 8, 8, {"bicubic": 1}, 5.0, 0.5, 1.0)
NOON = 1.8e9


class TimeLimit:
    """A clock that stands where it is put."""

    def __init__(self, now=NOON):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return TimeLimit()


@pytest.fixture
def ledger(tmp_path, clock):
    with Ledger(str(tmp_path / "l.db"), clock) as made:
        yield made


def seen(name, size=10, mtime=1, etag=None):
    return ListedSource(name, size, mtime, etag)


def never(source):
    raise AssertionError(f"{source} gave no doubt")


def take(ledger, night="n1", suspects=False, root="out"):
    entry = ledger.claim(night, "{}", lambda source: f"{root}/{source}.zarr", suspects)
    return entry and entry.source


def finish(ledger, sha256="s", night="n1"):
    while source := take(ledger, night):
        ledger.record_done(source, RESULT, sha256)


def states(ledger):
    return {row["source"]: row["state"] for row in ledger.do("SELECT source, state FROM sources")}


def test_a_listing_tells_new_changed_untouched_and_gone(ledger):
    found = record_listing(ledger, [seen("a"), seen("b"), seen("c")], never)
    assert (found.new, found.changed, found.untouched, found.gone) == (3, 0, 0, 0)
    finish(ledger)
    found = record_listing(ledger, [seen("a"), seen("b", size=11), seen("d")], never)
    assert (found.new, found.changed, found.untouched, found.gone) == (1, 1, 1, 1)
    assert states(ledger) == {"a": "done", "b": "pending", "c": "done", "d": "pending"}
    assert record_listing(ledger, [seen("c")], never).untouched == 1, (
        "what comes back is known again"
    )
    assert take(ledger) is None, "what is not there now is not worked on"


@pytest.mark.parametrize(
    ("content", "state"), [("s", "done"), ("other", "pending"), (None, "pending")]
)
def test_the_content_decides_where_only_the_time_differs(ledger, content, state):
    record_listing(ledger, [seen("a")], never)
    finish(ledger)
    record_listing(ledger, [seen("a", mtime=2)], lambda source: content)
    assert states(ledger) == {"a": state}
    record_listing(ledger, [seen("a", mtime=2)], never)


def test_a_file_written_as_it_was_listed_is_looked_at_once_more(ledger, clock):
    """Two writes within one tick of a coarse clock look the same from outside."""
    just_now = int(NOON * 1e9)
    record_listing(ledger, [seen("a", mtime=just_now)], never)
    finish(ledger)
    clock.now += 86400
    assert record_listing(ledger, [seen("a", mtime=just_now)], lambda source: "other").changed == 1
    finish(ledger)
    assert record_listing(ledger, [seen("a", mtime=just_now)], never).untouched == 1


def test_an_etag_stands_for_time_and_content(ledger):
    record_listing(ledger, [seen("s3://b/a.zarr", etag="1", mtime=0)], never)
    finish(ledger, sha256=None)
    assert record_listing(ledger, [seen("s3://b/a.zarr", etag="1", mtime=0)], never).untouched == 1
    assert record_listing(ledger, [seen("s3://b/a.zarr", etag="2", mtime=0)], never).changed == 1


def test_failed_last_then_priority_then_size(ledger):
    record_listing(
        ledger,
        [
            seen("bad", size=1),
            seen("large", size=30),
            seen("small", size=2),
            seen("urgent", size=99),
        ],
        never,
    )
    ledger.do("UPDATE sources SET priority = 5 WHERE source IN ('urgent', 'bad')")
    ledger.do("UPDATE sources SET attempts = 1 WHERE source = 'bad'")
    assert [take(ledger) for _ in range(5)] == ["urgent", "small", "large", "bad", None]


def test_the_next_one_is_given_without_sorting_all_that_wait(ledger):
    record_listing(ledger, [seen(str(number)) for number in range(100)], never)
    said = []
    ledger.connection.set_trace_callback(said.append)
    take(ledger)
    ledger.connection.set_trace_callback(None)
    chosen = next(statement for statement in said if statement.startswith("SELECT source"))
    steps = [row["detail"] for row in ledger.do(f"EXPLAIN QUERY PLAN {chosen}")]
    assert steps[0] == "SCAN sources USING INDEX waiting"
    assert not [step for step in steps if "TEMP B-TREE" in step]


def test_three_nights_park_and_one_night_counts_once(ledger, clock):
    record_listing(ledger, [seen("a")], never)
    for number in range(1, NIGHTS + 1):
        night = f"n{number}"
        for _ in range(2):  # the same night again does not try what failed
            with ledger.lease(lambda: None):
                ledger.begin_night(night)
                if take(ledger, night):
                    ledger.record_failure("a", f"reason {number}")
        assert states(ledger) == {"a": "parked" if number == NIGHTS else "failed"}
        assert [(row["attempts"], row["error"]) for row in ledger.report_rows(night)] == [
            (number, f"reason {number}")
        ]
    ledger.begin_night("n9")
    assert take(ledger, "n9") is None
    ledger.begin_night("n9", retry_parked=True)
    assert take(ledger, "n9") == "a"


def test_a_parked_source_that_changes_is_tried_again(ledger):
    record_listing(ledger, [seen("a")], never)
    ledger.do("UPDATE sources SET state = 'parked', attempts = 3")
    record_listing(ledger, [seen("a", mtime=9)], never)
    assert states(ledger) == {"a": "pending"} and next(ledger.report_rows("n1"))["attempts"] == 0


def test_what_a_nightly_died_of_is_taken_apart_from_the_rest(ledger):
    record_listing(
        ledger, [seen("large", size=9), seen("small", size=1), seen("killer", size=2)], never
    )
    assert [take(ledger) for _ in range(2)] == ["small", "killer"]
    with ledger.lease(lambda: None):
        ledger.begin_night("n2")
        assert take(ledger, "n2", suspects=True) == "small", (
            "the one that was blamed less often goes first, then the smaller one"
        )
        ledger.release("small")
        ledger.do("UPDATE sources SET attempts = 2 WHERE source = 'small'")
        assert [take(ledger, "n2"), take(ledger, "n2")] == [
            "large",
            None,
        ], "the rest goes before, and no suspect with it"
        entry = ledger.claim("n2", "{}", str, suspects=True)
        assert entry.source == "killer"
        ledger.record_failure("killer", "a reason")
        ledger.begin_night("n3")
        assert take(ledger, "n3") == "killer", (
            "an image whose fault is known is like any other that failed"
        )


def test_what_is_made_again_is_known_as_ours_only_at_its_place(ledger):
    record_listing(ledger, [seen("a"), seen("b"), seen("c"), seen("gone")], never)
    finish(ledger)
    record_listing(ledger, [seen("a"), seen("b"), seen("c")], never)
    assert dict(ledger.done_outputs()) == {name: f"out/{name}.zarr" for name in "abc"}
    ledger.requeue(["b", "c"])
    assert states(ledger) == {"a": "done", "b": "pending", "c": "pending", "gone": "done"}
    assert list(ledger.pending_sources()) == ["b", "c"]
    entry = ledger.claim("n2", "{}", lambda source: f"out/{source}.zarr")
    assert (entry.source, entry.plan) == ("b", "p1"), "what lies there is known as ours"
    entry = ledger.claim("n2", "{}", lambda source: f"new/{source}.zarr")
    assert (entry.source, entry.plan) == ("c", None), "what lies at another place is not"


def test_what_is_held_back_is_not_claimed_until_the_ledger_is_opened_again(tmp_path, ledger):
    record_listing(ledger, [seen("a"), seen("b")], never)
    ledger.hold_back(["a", "a"])
    assert ledger.has_work()
    assert [take(ledger), take(ledger)] == ["b", None] and ledger.counts("n1")["left"] == 1
    assert not ledger.has_work()
    with Ledger(str(tmp_path / "l.db"), ledger.clock) as again:
        assert take(again) == "a"


def test_others_below_a_folder_are_found_apart_from_some(ledger):
    names = ["/in/a/1", "/in/a/2", "/in/a/b/3", "/in/ab/4", "/in/c"]
    record_listing(ledger, [seen(name) for name in names], never)
    ledger.do("UPDATE sources SET seen = 0 WHERE source = '/in/a/2'")

    def below(folder, outside, limit=9):
        return sorted(ledger.listed_below(folder, outside, limit))

    assert below("/in/a", "/in/a/1") == ["/in/a/b/3"], "what was not listed last is not there"
    assert below("/in", "/in/a") == ["/in/ab/4", "/in/c"]
    assert below("/", "/in") == [] and below("/", "/in/c")[-1] == "/in/ab/4"
    assert len(below("/in", "/in/c", 2)) == 2


def test_of_sources_with_one_key_the_finished_one_has_it(ledger):
    record_listing(ledger, [seen(name) for name in ("A", "a", "b", "C", "c", "gone")], never)
    ledger.do("UPDATE sources SET state = 'done' WHERE source = 'c'")
    ledger.do("UPDATE sources SET seen = 0 WHERE source = 'gone'")
    assert ledger.doubles(str.lower) == {"a": "A", "C": "c"}
    assert ledger.doubles(str) == {}


def test_outputs_are_read_again_in_turn(ledger, clock):
    record_listing(ledger, [seen(name) for name in "abcd"], never)
    for _ in range(3):
        clock.now += 1
        ledger.record_done(take(ledger), RESULT, "s")
    assert [source for source, _ in ledger.oldest_outputs(0.4)] == ["a", "b"], "rounded up"
    clock.now += 1
    ledger.record_read_back("a")
    assert ledger.oldest_outputs(1.0) == [(name, f"out/{name}.zarr") for name in "bca"]
    assert ledger.oldest_outputs(0.0) == []


def test_a_doubt_that_came_too_late_stays(ledger):
    record_listing(ledger, [seen("a"), seen("b"), seen("c")], never)
    finish(ledger)
    looked = []

    def until_the_window_closes(source):
        if looked:
            raise Late
        looked.append(source)
        return "s"

    found = record_listing(
        ledger, [seen(name, mtime=2) for name in "abcd"], until_the_window_closes
    )
    assert (found.new, found.changed, found.untouched, found.gone, found.undecided) == (
        1,
        0,
        1,
        0,
        2,
    ) and looked == ["a"]
    found = record_listing(ledger, [seen(name, mtime=2) for name in "abcd"], lambda source: "other")
    assert (found.changed, found.untouched, found.undecided) == (
        2,
        2,
        0,
    ), "only what was left in doubt is looked at again"


def test_what_was_left_or_held_does_not_count(ledger):
    record_listing(ledger, [seen("a"), seen("b")], never)
    assert (take(ledger), take(ledger)) == ("a", "b")
    ledger.release("a")
    ledger.release("b", "failed", "another run writes it")
    assert states(ledger) == {"a": "pending", "b": "failed"}
    assert [row["attempts"] for row in ledger.report_rows("n1")] == [0, 0]


def test_a_second_nightly_is_refused_while_the_first_gives_signs(tmp_path, ledger, clock):
    other = Ledger(str(tmp_path / "l.db"), clock)
    record_listing(ledger, [seen("a")], never)
    with ledger.lease(lambda: None):
        assert take(ledger) == "a"
        with (
            pytest.raises(Busy, match=f"process {os.getpid()} on .* holds .*l.db since 0 s; wait"),
            other.lease(lambda: None),
        ):
            pass
        clock.now += LEASE_SECONDS + 1
        with other.lease(lambda: None):
            assert states(other) == {"a": "pending"}, "it takes over what the stale one was at"
            assert next(other.report_rows("n1"))["attempts"] == 1
            record_listing(other, [seen("a")], never)
            assert take(other, "n2", suspects=True) == "a"
            ledger.record_failure("a", "too late")
            assert states(other) == {"a": "working"}, "the stale one cannot spoil it any more"
    other.close()


def test_the_stale_one_hears_that_it_was_taken_over(tmp_path, ledger, clock):
    lost = threading.Event()
    with ledger.lease(lost.set, every=0.01):
        ledger.do("UPDATE lease SET token = 'another'")
        assert lost.wait(5)
    assert ledger.do("SELECT token FROM lease").fetchone()[0] == "another", (
        "its lease is left to it"
    )


def test_signs_of_life_keep_a_lease(tmp_path, ledger, clock):
    with ledger.lease(lambda: None, every=0.01):
        clock.now += 10 * LEASE_SECONDS
        for _ in range(500):
            if ledger.do("SELECT renewed FROM lease").fetchone()[0] == clock.now:
                break
            threading.Event().wait(0.01)
        with (
            Ledger(str(tmp_path / "l.db"), clock) as other,
            pytest.raises(Busy),
            other.lease(lambda: None),
        ):
            pass


def test_a_dead_process_on_this_host_holds_nothing(ledger):
    with ledger.lease(lambda: None):
        pass
    ledger.do(
        "REPLACE INTO lease SELECT 1, ?, ?, 'gone', ?, ?",
        ledger.owner["host"],
        2**22 + 1,
        NOON,
        NOON,
    )
    with ledger.lease(lambda: None):
        assert ledger.do("SELECT pid FROM lease").fetchone()["pid"] == os.getpid()


def test_files_that_are_no_ledger_are_refused(tmp_path):
    (tmp_path / "text.db").write_text(
        "this is text, and a good deal longer than the header of a database file would be. " * 3
    )
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE theirs (a)")
    other.close()
    for name, words in (
        ("text.db", "is not a database of tierscale"),
        ("other.db", "is a database of something else"),
        ("none/l.db", "no folder"),
    ):
        with pytest.raises(Refused, match=words):
            Ledger(str(tmp_path / name))
    (tmp_path / "folder").mkdir()
    with pytest.raises(Damaged, match="cannot be read or written"):
        Ledger(str(tmp_path / "folder"))
