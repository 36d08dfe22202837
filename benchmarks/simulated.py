"""Workers that make nothing, for measuring how far one driver reaches (benchmarks/scale.py)."""

import asyncio
import itertools
import time
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import psutil

from tierscale.pipeline.output.receipt import Receipt
from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.run.workers.bounded import bounded_map
from tierscale.pipeline.run.workers.pool import Handle, InProcess, Kind, Pool, Task
from tierscale.pipeline.run.workers.prescan_tasks import ScoreTiles
from tierscale.pipeline.run.workers.shard_tasks import (
    DrawPictures,
    FinishShard,
    HalveShards,
    VerifyShard,
)
from tierscale.pipeline.run.workers.worker import Worker

T = TypeVar("T")

# Most processes that simulated workers share.
PROCESSES = 16
# Shards that every simulated worker makes: the last one of each ends when it will, which leaves
# workers idle for half a shard on average.
EACH = 40


@dataclass(frozen=True, slots=True)
class EmptyShard:
    """The task of a simulated worker."""

    number: int

    def run(self, worker: Worker) -> Receipt:
        """What a real worker would make of it: nothing, at once."""
        return empty(("", 0, self.number, 0), {"enlarge": 0.0})


class Seats:
    """An async actor that stands for many workers.

    Each does one call at a time, and every call sleeps.
    """

    def __init__(self, seconds: list[float]) -> None:
        self.seconds = seconds
        self.locks: dict[int, asyncio.Lock] = {}

    async def ready(self, seat: int) -> bool:
        """True once it is up."""
        return True

    async def run(self, seat: int, task: "EmptyShard") -> Receipt:
        """A shard that was made by nobody."""
        async with self.locks.setdefault(seat, asyncio.Lock()):
            slept = self.seconds[task.number % len(self.seconds)]
            await asyncio.sleep(slept)
            return empty(("", 0, task.number, 0), {"enlarge": slept})


class Seat:
    """One seat of an actor, which the pool takes for an actor of its own."""

    def __init__(self, actor: Any, number: int) -> None:
        self.actor, self.number = actor, number

    def __getattr__(self, method: str) -> Any:
        seat = self

        class Bound:
            @staticmethod
            def remote(*args: Any) -> Any:
                return getattr(seat.actor, method).remote(seat.number, *args)

        return Bound


def empty(
    key: tuple[str, int, int, int],
    seconds: dict[str, float],
    rows: range = range(4),
    columns: range = range(4),
) -> Receipt:
    """A receipt as a real shard has it. key: plan, level, y, x. rows, columns: its tiles."""
    costs = tuple((row, column, 1.5e9 + row, 12.5 + column) for row in rows for column in columns)
    return Receipt(
        *key,
        (1, 2048, 2048),
        "0" * 64,
        None,  # there is no file
        {"bicubic": 12, "carn-x4": 4},
        2.4e10,
        seconds,
        "cpu",
        1,
        (),
        costs,
    )


class Nobody:
    """A pool whose workers make nothing and write receipts. calls: tasks so far, by name."""

    split, device, width = False, "cpu", 8

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def put(self, value: T) -> Handle[T]:
        """The value itself, wrapped."""
        return InProcess(value)

    def close(self) -> None:
        """There is nothing to end."""

    def submit(
        self, task: Task[Any], kind: Kind = "light", as_reference: bool = False
    ) -> Future[Any]:
        """The result of a task, at once. TypeError: nobody knows what it would make."""
        self.calls[type(task).__name__] += 1
        future: Future[Any] = Future()
        future.set_result(_result(task))
        return future


def _result(task: Task[Any]) -> Any:
    """What a task might have made, without looking at a pixel."""
    match task:
        case ScoreTiles():
            draft, chance = task.draft.get(), np.random.default_rng(task.rows.start)
            size = (task.rows.length, draft.grid.tiles[1], len(draft.tiers))
            return -np.sort(-chance.exponential(1e-3, size), axis=2).astype(np.float32)
        case FinishShard():
            plan, seconds = task.plan.get(), {"read": 0.1, "enlarge": 1.0, "write": 0.1}
            block = (range(span.start, span.stop) for span in plan.grid.shard_block(task.shard))
            return _written(task.output, empty((plan.digest, 0, *task.shard), seconds, *block))
        case HalveShards():
            key = (task.plan.get().digest, task.level, *task.shard)
            return _written(task.output, empty(key, {"pyramid": 0.1}, range(0)))
        case DrawPictures() | VerifyShard():
            return None  # of pixels, of which there are none
    raise TypeError(f"nobody knows the result of {type(task).__name__}; add it here")


def _written(output: str, receipt: Receipt) -> Receipt:
    Folder(output).write(receipt)
    return receipt


def start_ray() -> None:
    """A Ray of this machine alone, with room for the calls and nothing else."""
    import ray

    from tierscale.cluster.session import loopback

    with loopback():
        ray.init(
            "local",
            num_cpus=1,
            object_store_memory=80 << 20,
            include_dashboard=False,
            log_to_driver=False,
        )


def simulated_pool(width: int, seconds: list[float]) -> Pool:
    """A Ray pool of `width` seats, shared by at most PROCESSES processes."""
    import ray

    from tierscale.cluster.actor_group import ActorGroup
    from tierscale.cluster.pool import RayPool
    from tierscale.cluster.sizing import PoolSpec

    per = -(-width // min(PROCESSES, width))
    remote: Any = ray.remote(Seats)
    remote = remote.options(num_cpus=0, max_concurrency=4 * per)
    actors = [remote.remote(seconds) for _ in range(-(-width // per))]
    seats = iter([Seat(actors[number // per], number) for number in range(width)])

    class SimulatedGroup(ActorGroup):
        def start(self, count: int) -> None:
            for seat in itertools.islice(seats, count):
                self.starting[seat.ready.remote()] = seat

        def kill(self) -> None:
            pass

    return RayPool(PoolSpec(width), group=SimulatedGroup)


def workers(width: int, seconds: list[float]) -> dict[str, float]:
    """Shards per second and efficiency of `width` simulated workers."""
    import ray

    start_ray()
    pool = simulated_pool(width, seconds)
    driver, shards = psutil.Process(), EACH * width if any(seconds) else 4000
    busy, cores, began = driver.cpu_times(), psutil.cpu_times(), time.perf_counter()
    carry_out(pool, shards)
    wall = time.perf_counter() - began
    used, all_cores = driver.cpu_times(), psutil.cpu_times()
    slept = sum(seconds[number % len(seconds)] for number in range(shards))
    pool.close()
    ray.shutdown()
    driving = used.user + used.system - busy.user - busy.system
    idle = (all_cores.idle - cores.idle) / wall / (psutil.cpu_count() or 1)
    return {
        "shards per second": round(shards / wall, 1),
        "efficiency": round(slept / (width * wall), 3),
        "driver, share of a core": round(driving / wall, 2),
        "machine, share of its cores": round(1 - idle, 2),
    }


def carry_out(pool: Pool, shards: int) -> None:
    """Make so many shards, two in flight for each worker."""

    def start(number: int) -> Future[Receipt]:
        return pool.submit(EmptyShard(number))

    for _, future in bounded_map(range(shards), start, 2 * pool.width):
        future.result()
