"""Workers that make nothing, for measuring how far one driver reaches (benchmarks/scale.py)."""

import asyncio
import itertools
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import psutil

from tierscale.pipeline.geometry.grid import Span
from tierscale.pipeline.output.receipts import Folder, Receipt
from tierscale.pipeline.plan.plan import Draft
from tierscale.pipeline.run.workers.pool import InProcess, Kind, Pool, Task
from tierscale.pipeline.run.workers.prescan_tasks import ScoreTiles
from tierscale.pipeline.run.workers.shard_tasks import DrawPictures, FinishShard, HalveShards
from tierscale.pipeline.run.workers.worker import Worker

T = TypeVar("T")

# Most processes that simulated workers share.
PROCESSES = 16
# Shards that every simulated worker makes: the last one of each ends when it will, which leaves
# workers idle for half a shard on average.
EACH = 40


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

    async def run(self, seat: int, task: "MakeNothing") -> Receipt:
        """A shard that was made by nobody."""
        async with self.locks.setdefault(seat, asyncio.Lock()):
            slept = self.seconds[task.number % len(self.seconds)]
            await asyncio.sleep(slept)
            return empty(("", 0, task.number, 0), {"enlarge": slept})


@dataclass(frozen=True, slots=True)
class MakeNothing:
    """The task of a simulated worker, which its seat carries out."""

    number: int

    def run(self, worker: Worker) -> Receipt:
        """Never called: a seat sleeps instead."""
        raise NotImplementedError


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
        2048 * 2048,
        {"bicubic": 12, "carn-x4": 4},
        2.4e10,
        seconds,
        "cpu",
        1,
        (),
        costs,
    )


def random_scores(draft: Draft, rows: Span) -> np.ndarray:
    """Predicted errors of the tiles in some tile rows: (rows, columns, tiers), falling by tier."""
    chance = np.random.default_rng(rows.start)
    scores = chance.exponential(1e-3, (rows.length, draft.grid.tiles[1], len(draft.tiers)))
    return -np.sort(-scores, axis=2).astype(np.float32)


class Nobody:
    """A pool whose workers make nothing and write receipts."""

    split, device, width = False, "cpu", 8

    def __init__(self) -> None:
        self.tasks: Counter[str] = Counter()

    def put(self, value: T) -> InProcess[T]:
        return InProcess(value)

    def close(self) -> None:
        pass

    def submit(
        self, task: Task[Any], kind: Kind = "light", as_reference: bool = False
    ) -> Future[Any]:
        self.tasks[type(task).__name__] += 1
        future: Future[Any] = Future()
        future.set_result(self._result(task))
        return future

    def _result(self, task: Task[Any]) -> Any:
        """What a real worker would return."""
        match task:
            case ScoreTiles(draft=draft, rows=rows):
                return random_scores(draft.get(), rows)
            case FinishShard(plan=plan, output=output, shard=shard):
                spans = plan.get().grid.shard_block(shard)
                tiles = [range(span.start, span.stop) for span in spans]
                seconds = {"read": 0.1, "enlarge": 1.0, "write": 0.1}
                return self._written(output, empty((plan.get().digest, 0, *shard), seconds, *tiles))
            case HalveShards(plan=plan, output=output, level=level, shard=shard):
                key = (plan.get().digest, level, *shard)
                return self._written(output, empty(key, {"pyramid": 0.1}, range(0)))
            case DrawPictures():
                return None  # pictures are drawn from pixels, of which there are none
        raise TypeError(f"no worker here carries out {task}")

    def _written(self, output: str, receipt: Receipt) -> Receipt:
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
    remote = ray.remote(num_cpus=0, max_concurrency=4 * per)(Seats)
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
    numbers, in_flight = iter(range(shards)), set[Future]()
    while True:
        for number in itertools.islice(numbers, 2 * pool.width - len(in_flight)):
            in_flight.add(pool.submit(MakeNothing(number)))
        if not in_flight:
            return
        done, in_flight = wait(in_flight, return_when=FIRST_COMPLETED)
        for future in done:
            future.result()
