"""The one loop over calls: keep N under way, pass on what is finished, stop when asked to."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# Seconds between two ticks while nothing finishes.
TICK = 1.0


def bounded_map(
    items: Iterable[Item],
    start: Callable[[Item], Future[Result]],
    width: int | Callable[[], int],
    stop: threading.Event | None = None,
    tick: Callable[[], None] | None = None,
) -> Generator[tuple[Item, Future[Result]], None, None]:
    """Each item with its finished future, in the order in which they finish.

    start: begins the call for an item. width: the most calls under way at a time, asked anew before
    each start where it is a function; 0 pauses new starts. stop: once it is set no call is started,
    and those under way are still waited for. tick: called before calls are started, and every TICK
    seconds while none finishes.

    An item is taken from `items` only when it can be started. An iterator that has ended is asked
    again while calls are under way, so that one like Backlog may give more of them later. Futures
    that finish together come in the order of their starts. What `items`, `start` or `tick` raise
    ends the loop; a call's own exception is left in its future.
    """
    source = iter(items)
    under_way: dict[Future[Result], Item] = {}
    while True:
        if tick is not None:
            tick()
        while len(under_way) < (width if isinstance(width, int) else width()) and not (
            stop is not None and stop.is_set()
        ):
            try:
                item = next(source)
            except StopIteration:
                break
            under_way[start(item)] = item
        if not under_way:
            return
        done = wait(under_way, None if tick is None else TICK, FIRST_COMPLETED).done
        for future in [future for future in under_way if future in done]:
            yield under_way.pop(future), future


class Backlog(Generic[Item]):
    """Items of an iterable, and items that are added meanwhile, which go first.

    For items that lead to others: a call to try again, the next call of a chain.
    """

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = iter(items)
        self._added = deque[Item]()

    def add(self, item: Item) -> None:
        """Put an item before all others."""
        self._added.append(item)

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        return self._added.popleft() if self._added else next(self._items)


def threaded_map(
    items: Iterable[Item],
    work: Callable[[Item], Result],
    width: int,
    stop: threading.Event,
    tick: Callable[[], None] | None = None,
) -> Generator[tuple[Item, Result], None, None]:
    """Each item with what `work` returns for it, like bounded_map, on `width` threads of its own.

    What `work` raises is raised here. Whenever the loop ends early, `stop` is set, and the items
    under way are waited for: they must check `stop` where they take long.
    """
    with ThreadPoolExecutor(width, thread_name_prefix="image") as threads:
        try:
            for item, future in bounded_map(
                items, lambda item: threads.submit(work, item), width, stop, tick
            ):
                yield item, future.result()
        except BaseException:
            stop.set()
            raise
