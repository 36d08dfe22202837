"""The one loop: never more calls under way than allowed, every item once, and an end when asked."""

import threading
from concurrent.futures import Future
from itertools import count, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierscale.pipeline.run.workers import bounded
from tierscale.pipeline.run.workers.bounded import Backlog, bounded_map, threaded_map


class Calls:
    """Calls that end when they are told to; most: how many were under way at once."""

    def __init__(self):
        self.started, self.under_way, self.most = [], {}, 0

    def start(self, item):
        self.started.append(item)
        future = self.under_way[item] = Future()
        self.most = max(self.most, len(self.under_way))
        return future

    def end(self, item):
        self.under_way.pop(item).set_result(item * 10)


def ended(item):
    future = Future()
    future.set_result(item)
    return future


@given(total=st.integers(0, 30), width=st.integers(1, 8), order=st.randoms(use_true_random=False))
def test_every_item_once_and_never_more_under_way_than_the_width(total, width, order):
    calls, results = Calls(), []

    def end_some():
        for item in order.sample(sorted(calls.under_way), order.randint(0, len(calls.under_way))):
            calls.end(item)
        # Something must be finished before the loop waits, as nothing else ends calls here.
        if calls.under_way and not any(future.done() for future in calls.under_way.values()):
            calls.end(next(iter(calls.under_way)))

    def start(item):
        future = calls.start(item)
        if len(calls.under_way) == width or item == total - 1:
            end_some()
        return future

    for item, future in bounded_map(range(total), start, width):
        results.append((item, future.result()))
        if calls.under_way:
            end_some()
    assert sorted(results) == [(item, item * 10) for item in range(total)]
    assert calls.most <= width and calls.started == list(range(total))


def test_items_are_taken_only_when_they_can_be_started():
    taken = []
    numbers = (taken.append(number) or number for number in count())
    loop = bounded_map(numbers, ended, 3)
    assert [item for item, _ in islice(loop, 3)] == [0, 1, 2] and taken == [0, 1, 2]
    loop.close()


def test_what_finishes_together_comes_in_the_order_of_its_start():
    assert [item for item, _ in bounded_map(range(50), ended, 50)] == list(range(50))


def test_after_stop_nothing_starts_and_what_is_under_way_is_waited_for():
    calls, stop = Calls(), threading.Event()

    def start(item):
        future = calls.start(item)
        if item == 2:
            calls.end(0)
        return future

    loop = bounded_map(range(100), start, 3, stop)
    assert next(loop)[0] == 0
    stop.set()
    calls.end(1)
    assert next(loop)[0] == 1
    threading.Timer(0.05, calls.end, [2]).start()
    assert [item for item, _ in loop] == [2] and calls.started == [0, 1, 2]


def test_stopped_before_the_first_item_none_is_taken():
    stop = threading.Event()
    stop.set()
    assert not list(bounded_map(iter(pytest.fail, None), ended, 3, stop))


def test_the_width_may_change_on_the_way():
    calls, width = Calls(), [1]

    def start(item):
        future = calls.start(item)
        if len(calls.under_way) == width[0]:
            calls.end(min(calls.under_way))
        return future

    loop = bounded_map(range(10), start, lambda: width[0])
    assert next(loop)[0] == 0 and calls.started == [0]
    width[0] = 4
    assert next(loop)[0] == 1 and calls.started == [0, 1, 2, 3, 4]
    width[0] = 0
    for item in (2, 3, 4):
        calls.end(item)
    assert [item for item, _ in loop] == [2, 3, 4], "no width, no start"


def test_a_failed_call_is_given_with_its_exception():
    def start(item):
        future = Future()
        future.set_exception(ValueError(f"call {item}"))
        return future

    ((_, future),) = bounded_map([7], start, 1)
    with pytest.raises(ValueError, match="call 7"):
        future.result()


@pytest.mark.parametrize("where", ["items", "start", "tick"])
def test_what_raises_beside_the_calls_ends_the_loop(where):
    def broken(*_):
        raise RuntimeError(where)

    items = (broken() for _ in range(3)) if where == "items" else range(3)
    start = broken if where == "start" else ended
    with pytest.raises(RuntimeError, match=where):
        list(bounded_map(items, start, 2, tick=broken if where == "tick" else None))


def test_a_tick_comes_before_starts_and_while_nothing_finishes(monkeypatch):
    monkeypatch.setattr(bounded, "TICK", 0.01)
    events, calls = [], Calls()

    def tick():
        events.append(("tick", len(calls.started)))
        if len(events) == 5:
            calls.end(0)

    assert [item for item, _ in bounded_map([0], calls.start, 1, tick=tick)] == [0]
    assert events[:2] == [("tick", 0), ("tick", 1)] and len(events) == 6


def test_a_backlog_gives_what_was_added_first_and_again_after_its_end():
    backlog, tries, results = Backlog(range(3)), [], []

    def start(item):
        tries.append(item)
        return ended(item)

    for item, _ in bounded_map(backlog, start, 1):
        # Each item fails once; the last one does when the backlog has nothing else any more.
        backlog.add(item) if tries.count(item) == 1 else results.append(item)
    assert tries == [0, 0, 1, 1, 2, 2] and results == [0, 1, 2]


def test_threads_work_side_by_side():
    together = threading.Barrier(3, timeout=20)

    def work(item):
        together.wait()
        return item * item

    found = threaded_map(range(6), work, 3, threading.Event())
    assert sorted(found) == [(item, item * item) for item in range(6)]


def test_a_loop_that_is_left_early_stops_its_threads():
    stop, drained = threading.Event(), []

    def work(item):
        if item:
            drained.append(stop.wait(20))
        return item

    loop = threaded_map(range(100), work, 2, stop)
    assert next(loop) == (0, 0) and not stop.is_set()
    loop.close()
    assert stop.is_set() and all(drained) and len(drained) <= 2
    with pytest.raises(ZeroDivisionError):
        list(threaded_map([0], lambda item: 1 / item, 1, stop := threading.Event()))
    assert stop.is_set()
