"""The one loop that keeps a bounded number of calls under way and takes what is finished."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

# Seconds after which `take` is asked again while nothing ends.
TICK = 1.0


def bounded_map(
    take: Callable[[], T | None], start: Callable[[T], Future[R]], width: int
) -> Iterator[tuple[T, Future[R]]]:
    """Items with their futures as they end; at most `width` are under way at a time.

    take: the next item, or None when there is none now; it is asked again whenever a call ended.
    The loop is over when nothing is under way and there is no item.
    """
    under_way: dict[Future[R], T] = {}
    while True:
        while len(under_way) < width and (item := take()) is not None:
            under_way[start(item)] = item
        if not under_way:
            return
        for future in wait(under_way, timeout=TICK, return_when=FIRST_COMPLETED).done:
            yield under_way.pop(future), future


def until(stop: threading.Event, items: Iterable[T]) -> Callable[[], T | None]:
    """What hands out items one by one for bounded_map(), and none once `stop` is set."""
    iterator = iter(items)

    def take() -> T | None:
        return None if stop.is_set() else next(iterator, None)

    return take
