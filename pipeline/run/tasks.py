"""Calls on a pool, a bounded number of them under way: a list of them, or the chains that make
shards.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

from tierscale.pipeline.errors import Damaged, Interrupted, Refused, one_line
from tierscale.pipeline.output.receipts import Key, Receipt
from tierscale.pipeline.run.pool import Pool

# Times that one shard is tried before its image is given up.
TRIES = 3

Progress = Callable[[str, int, int], None]


def silent(stage: str, done: int, total: int) -> None:
    """Progress for nobody."""


class Quarantined(Damaged):
    """A shard failed TRIES times for no reason that we know; its image is put aside."""


def each(
    pool: Pool,
    calls: Sequence[tuple[Any, ...]],
    told: Callable[[int, int], None],
    stop: threading.Event,
) -> list[Any]:
    """Results of many calls (method, *arguments), in order. told: called with (done, all).
    Interrupted: `stop` was set.
    """
    results: list[Any] = [None] * len(calls)
    flying: dict[Future, int] = {}
    queue = iter(enumerate(calls))
    done = 0
    while True:
        while (
            len(flying) < 2 * pool.width
            and not stop.is_set()
            and (following := next(queue, None)) is not None
        ):
            flying[pool.submit(*following[1])] = following[0]
        if not flying:
            break
        for future in wait(flying, return_when=FIRST_COMPLETED).done:
            results[flying.pop(future)] = future.result()
            done += 1
            told(done, len(calls))
    if stop.is_set():
        raise Interrupted
    return results


class Flight:
    """Shards under way: each a chain of calls on the pool, begun again when one fails for a passing
    reason.

    start: the calls for a key, (kind, method, *arguments) each; a call is given the result of the
    one before as last argument. output: whose shards they are, for the sentence when one is given
    up.
    """

    def __init__(
        self, pool: Pool, start: Callable[[Key], list[tuple[Any, ...]]], output: str
    ) -> None:
        self.pool, self.start, self.output = pool, start, output
        self.chains: dict[Future, tuple[Key, list[tuple[Any, ...]]]] = {}
        self.tries: dict[Key, int] = {}

    def __len__(self) -> int:
        return len(self.chains)

    def launch(self, key: Key) -> None:
        """Begin a shard."""
        self.tries[key] = self.tries.get(key, 0) + 1
        self._step(key, self.start(key), ())

    def _step(self, key: Key, calls: list[tuple[Any, ...]], given: tuple[Any, ...]) -> None:
        (kind, *call), rest = calls[0], calls[1:]
        self.chains[self.pool.submit(*call, *given, kind=kind, keep=bool(rest))] = (key, rest)

    def landed(self) -> Iterator[Receipt]:
        """Receipts of the shards that came down, after waiting for at least one call to end."""
        for future in wait(self.chains, timeout=5, return_when=FIRST_COMPLETED).done:
            key, rest = self.chains.pop(future)
            try:
                result = future.result()
            except Refused:
                raise
            except Exception as error:
                self._again(key, error)
                continue
            if rest:
                self._step(key, rest, (result,))
            else:
                yield result

    def _again(self, key: Key, error: Exception) -> None:
        """Try a shard once more, or give it up. A full disk or a damaged source will not get better
        by itself.
        """
        if isinstance(error, Damaged):
            raise error
        if self.tries[key] >= TRIES:
            raise Quarantined(
                f"{self.output} level {key[0]} shard {key[1]}.{key[2]} failed {TRIES} times (the"
                f" last time {type(error).__name__}: {one_line(error)}); give the same command"
                " again, what is done is kept"
            ) from error
        self.launch(key)
