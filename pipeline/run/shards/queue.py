"""The shards of one level: each a chain of tasks, which starts again after a passing failure.

It starts again too, on other workers, for a second opinion on what it made.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from tierscale.pipeline.errors import Damaged, Refused, one_line
from tierscale.pipeline.output.levels import Key
from tierscale.pipeline.output.receipt import Receipt
from tierscale.pipeline.run.shards.opinions import Attempt, Opinions
from tierscale.pipeline.run.workers.bounded import Backlog, bounded_map
from tierscale.pipeline.run.workers.pool import Handle, Kind, Pool, Task

# Times that one shard is tried before its image is given up.
TRIES = 3


class Quarantined(Damaged):
    """A shard failed TRIES times for no reason that we know; its image is put aside."""


@dataclass(frozen=True, slots=True)
class Step:
    """One task of a chain and the kind of worker that does it.

    make: the task, from the handle of what the step before made; None for the first step.
    """

    kind: Kind
    make: Callable[[Handle[Any] | None], Task[Any]]


# Makes the chain of a shard.
Chain = Callable[[Key, Attempt], tuple[Step, ...]]


@dataclass(frozen=True, slots=True)
class ShardStep:
    """Where a shard is in its chain.

    attempt: which one of those that are asked for. tries: of it so far, counted from 1. previous:
    what the step before gave.
    """

    key: Key
    steps: tuple[Step, ...]
    attempt: Attempt
    tries: int = 1
    previous: Handle[Any] | None = None


class ShardQueue:
    """Shards to make and those to go on with. opinions: on what is made of them.

    stop: no shard is begun once it is set; chains that were begun are finished.
    """

    def __init__(
        self, keys: Iterable[Key], chain: Chain, opinions: Opinions, stop: threading.Event
    ) -> None:
        self._chain, self._opinions, self._stop = chain, opinions, stop
        self._backlog = Backlog(self._first_steps(keys))

    def run(self, pool: Pool) -> Iterator[Receipt]:
        """Receipts as shards are finished, two shards for each worker under way.

        A shard comes twice where the worker that made it was ended and it was made once more.
        Damaged: one cannot be made; Quarantined: it failed TRIES times.
        """

        def start(step: ShardStep) -> Future[Any]:
            first, more = step.steps[0], len(step.steps) > 1
            who = {"others": step.attempt.others} if step.attempt.seen else {}
            return pool.submit(first.make(step.previous), kind=first.kind, as_reference=more, **who)

        for step, future in bounded_map(self._backlog, start, 2 * pool.width):
            try:
                result = future.result()
            except Refused as error:
                # Work was begun: the weights, say, were replaced since the plan was made.
                raise Damaged(f"{self._opinions.output}: {error}") from error
            except Damaged:
                # A full disk or a damaged source will not get better by itself.
                raise
            except Exception as error:  # whatever a worker died of: another one may do better
                self._again(step, error)
                continue
            if len(step.steps) > 1:
                self._backlog.add(replace(step, steps=step.steps[1:], previous=result))
            elif (attempt := self._opinions.again(result, step.attempt)) is not None:
                self._backlog.add(self._first_step(step.key, attempt))
            else:
                for key, suspected in self._opinions.suspects():
                    self._backlog.add(self._first_step(key, suspected))
                yield result

    def _first_steps(self, keys: Iterable[Key]) -> Iterator[ShardStep]:
        for key in keys:
            if self._stop.is_set():
                return
            yield self._first_step(key, self._opinions.first(key))

    def _first_step(self, key: Key, attempt: Attempt, tries: int = 1) -> ShardStep:
        return ShardStep(key, self._chain(key, attempt), attempt, tries)

    def _again(self, step: ShardStep, error: Exception) -> None:
        """Put a shard in line once more, or give it up."""
        level, y, x = step.key
        if step.tries >= TRIES:
            raise Quarantined(
                f"{self._opinions.output} level {level} shard {y}.{x} failed {TRIES} times (the"
                f" last time {type(error).__name__}: {one_line(error)}); run the same command to"
                " resume: finished shards are kept"
            ) from error
        self._backlog.add(self._first_step(step.key, step.attempt, step.tries + 1))
