"""An array on its way: described, planned, and enlarged shard by shard on threads."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import Any

import numpy as np
import torch

from tierscale.pipeline.formats.registry import open_array
from tierscale.pipeline.formats.source import Source
from tierscale.pipeline.inference.enlarge import enlarge
from tierscale.pipeline.inference.shard import finish_shard, read_input
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.plan import Draft, Plan, ScoredPlan
from tierscale.pipeline.plan.policies import Deadline
from tierscale.pipeline.plan.source import PixelSource
from tierscale.pipeline.plan.stored import freeze
from tierscale.pipeline.routing.audit import audit_of
from tierscale.pipeline.routing.routes import TierTimings, TimeLimit, route
from tierscale.pipeline.run.array.memory import Held, bytes_in_memory, threads_that_fit
from tierscale.pipeline.run.array.target import InMemory, Target
from tierscale.pipeline.run.draft import Inspection, inspect_image
from tierscale.pipeline.run.family import decided
from tierscale.pipeline.run.prescan import Prescan, run_tasks, silent
from tierscale.pipeline.run.workers import allocator
from tierscale.pipeline.run.workers.pool import Handle, LocalPool, device_here
from tierscale.pipeline.run.workers.processor import hardware_here
from tierscale.pipeline.run.workers.worker import Worker


class ArrayWorker(Worker):
    """A worker whose image is open already."""

    def __init__(self, image: Source, device: str) -> None:
        super().__init__(device)
        self._image = image

    def _source(self, draft: Draft, pixels: PixelSource) -> Source:
        return self._image


@dataclass(frozen=True, slots=True)
class ArrayJob:
    """An array to enlarge: described, none of its tiles looked at.

    axes: "cyx", "yxc" or "yx", of the array and of the result. max_memory: bytes that all of it may
    take, or None.
    """

    source: Source
    axes: str
    inspection: Inspection
    options: Options
    max_memory: int | None = None

    @classmethod
    def of(
        cls, array: Any, axes: str, options: Options, max_memory: int | None = None
    ) -> "ArrayJob":
        """The job of an array. Refused: it cannot work, whatever the pixels are."""
        source = open_array(array, axes)
        inspection = inspect_image(source, options, hardware_here(device_here(options.device)))
        return cls(source, axes, inspection, options, max_memory)

    @property
    def draft(self) -> Draft:
        """What is known without pixels."""
        return self.inspection.draft

    @property
    def result_bytes(self) -> int:
        """Bytes of the enlarged array."""
        return math.prod(self.draft.hr_shape) * np.dtype(self.draft.dtype).itemsize

    def start_pool(self, held: Held) -> LocalPool:
        """Start the threads that do it. Refused: they do not fit in memory beside what is held."""
        threads = threads_that_fit(self.draft, self.inspection.source, held, self.max_memory)
        return LocalPool(threads, self.draft.device, partial(ArrayWorker, self.source))

    def plan(self, pool: LocalPool) -> Plan:
        """The plan with everything that the prescan finds."""
        prescan = Prescan(pool, self.draft.source.in_place, silent, Event())
        decision = decided(self.inspection, self.options, prescan)
        scored = prescan.scan(decision.draft, decision.scorer)
        routes = route(scored, _timings(prescan, scored))
        return freeze(scored, routes, audit_of(scored, routes))


def _timings(prescan: Prescan, scored: ScoredPlan) -> TierTimings | None:
    """The speeds by which a deadline is kept; its seconds begin here."""
    if not isinstance(scored.policy, Deadline):
        return None
    seconds = scored.policy.seconds
    return prescan.time(scored, TimeLimit(lambda: seconds, prescan.pool.width))


@dataclass(frozen=True, slots=True)
class MakeShard:
    """Make the pixels of one shard."""

    plan: Handle[Plan]
    shard: tuple[int, int]

    def run(self, worker: Worker) -> tuple[np.ndarray, float]:
        """Pixels (c, H, W), and the multiply-adds that they took."""
        plan = self.plan.get()
        works = plan.works(self.shard)
        read = worker.reader(plan, plan.source.in_place)
        shard_input = read_input(plan, read, self.shard, works)
        engine = worker.engine(plan, plan.settings, {work.tier for work in works})
        pieces = enlarge(engine, shard_input, works)
        pixels = finish_shard(plan, shard_input, self.shard, pieces)
        return pixels, sum(piece.macs for piece in pieces)


@dataclass(frozen=True, slots=True)
class KeepShard:
    """Make one shard and put it where the result is kept."""

    make: MakeShard
    target: Target

    def run(self, worker: Worker) -> float:
        """The multiply-adds that it took. Damaged: it cannot be written."""
        plan, shard = self.make.plan.get(), self.make.shard
        pixels, macs = self.make.run(worker)
        self.target.write(plan.grid.hr(plan.grid.shard_core(shard)), pixels)
        del pixels
        allocator.give_back()
        return macs


@dataclass(frozen=True, slots=True)
class EnlargedArray:
    """What became of an array. pixels: (c, H, W). cost: multiply-adds executed."""

    pixels: np.ndarray
    cost: float
    plan: Plan


def enlarge_array(
    array: Any, options: Options, axes: str = "cyx", max_memory: int | None = None
) -> EnlargedArray:
    """A numpy, dask or zarr array, enlarged in memory, with the plan and the cost.

    Refused: the array or the options cannot work, or it does not fit in memory.
    """
    job = ArrayJob.of(array, axes, options, max_memory)
    held = Held(array=bytes_in_memory(array), result=job.result_bytes)
    with pool_of(job, held) as pool:
        result = InMemory(job.draft, "cyx")
        plan, cost = enlarge_to(job, pool, result)
    return EnlargedArray(result.array, cost, plan)


def enlarge_to(job: ArrayJob, pool: LocalPool, target: Target) -> tuple[Plan, float]:
    """Plan an array and make all its shards; the plan, and the multiply-adds executed."""
    plan = job.plan(pool)
    handle = pool.put(plan)
    tasks = [KeepShard(MakeShard(handle, shard), target) for shard in plan.grid.all_shards()]
    return plan, sum(run_tasks(pool, tasks, Event(), partial(silent, "enlarge")))


@contextmanager
def pool_of(job: ArrayJob, held: Held) -> Iterator[LocalPool]:
    """The threads of a job, and torch's own number of threads as before when they are done."""
    before = torch.get_num_threads()
    try:
        with job.start_pool(held) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)
