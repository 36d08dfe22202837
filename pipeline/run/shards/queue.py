"""The shards of one level: each a chain of tasks, which starts again after a passing failure."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from tierscale.pipeline.errors import Damaged, Refused, one_line
from tierscale.pipeline.output.levels import Key
from tierscale.pipeline.output.receipts import Receipt
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


@dataclass(frozen=True, slots=True)
class ShardStep:
    """Where a shard is in its chain. attempt: counted from 1.

    previous: what the step before gave.
    """

    key: Key
    steps: tuple[Step, ...]
    attempt: int
    previous: Handle[Any] | None = None


class ShardQueue:
    """Shards to make and those to go on with. output: whose they are, for the sentence of errors.

    stop: no shard is begun once it is set; chains that were begun are finished.
    """

    def __init__(
        self,
        keys: Iterable[Key],
        chain: Callable[[Key], tuple[Step, ...]],
        output: str,
        stop: threading.Event,
    ) -> None:
        self._chain, self._output, self._stop = chain, output, stop
        self._backlog = Backlog(self._first_steps(keys))

    def run(self, pool: Pool) -> Iterator[Receipt]:
        """Receipts as shards are finished, two shards for each worker under way.

        Damaged: one cannot be made; Quarantined: it failed TRIES times.
        """

        def start(step: ShardStep) -> Future[Any]:
            first, more = step.steps[0], len(step.steps) > 1
            return pool.submit(first.make(step.previous), kind=first.kind, as_reference=more)

        for step, future in bounded_map(self._backlog, start, 2 * pool.width):
            try:
                result = future.result()
            except Refused as error:
                # Work was begun: the weights, say, were replaced since the plan was made.
                raise Damaged(f"{self._output}: {error}") from error
            except Damaged:
                # A full disk or a damaged source will not get better by itself.
                raise
            except Exception as error:  # whatever a worker died of: another one may do better
                self._again(step, error)
                continue
            if len(step.steps) > 1:
                self._backlog.add(replace(step, steps=step.steps[1:], previous=result))
            else:
                yield result

    def _first_steps(self, keys: Iterable[Key]) -> Iterator[ShardStep]:
        for key in keys:
            if self._stop.is_set():
                return
            yield ShardStep(key, self._chain(key), 1)

    def _again(self, step: ShardStep, error: Exception) -> None:
        """Put a shard in line once more, or give it up."""
        level, y, x = step.key
        if step.attempt >= TRIES:
            raise Quarantined(
                f"{self._output} level {level} shard {y}.{x} failed {TRIES} times (the last time"
                f" {type(error).__name__}: {one_line(error)}); run the same command to"
                " resume: finished shards are kept"
            ) from error
        self._backlog.add(ShardStep(step.key, self._chain(step.key), step.attempt + 1))
