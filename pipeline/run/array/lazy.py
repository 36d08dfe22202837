"""The result for a dask array: planned when its first block is computed, made block by block."""

from __future__ import annotations

import hashlib
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.plan.plan import Plan
from tierscale.pipeline.plan.policies import Deadline
from tierscale.pipeline.plan.stored import digest_of, draft_document
from tierscale.pipeline.run.array.memory import Held
from tierscale.pipeline.run.array.target import arranged, in_order
from tierscale.pipeline.run.array.work import ArrayJob, MakeShard
from tierscale.pipeline.run.workers.pool import Handle

if TYPE_CHECKING:
    import dask.array as da


class LazyResult:
    """The blocks of an enlarged array, one for each shard.

    The plan is made once in each process, by the first block that is asked for; it is the same in
    all of them. Refused: it does not fit in memory, or the policy is a deadline, which only work at
    a stretch can keep.
    """

    def __init__(self, job: ArrayJob) -> None:
        if isinstance(job.draft.policy, Deadline):
            raise Refused(
                "a deadline cannot be kept for a dask array, whose blocks are made when they are"
                " computed; give out=, or another policy"
            )
        self._job = job
        self._pool = job.start_pool(Held())
        self._torch_threads = torch.get_num_threads()
        self._planning = threading.Lock()
        self._plan: Handle[Plan] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return LazyResult, (self._job,)

    def __dask_tokenize__(self) -> str:
        return self.name

    @property
    def name(self) -> str:
        """The same for the same pixels in the same axes, enlarged alike."""
        content = f"{digest_of(draft_document(self._job.draft))} {self._job.axes}"
        return f"tierscale-{hashlib.sha256(content.encode()).hexdigest()[:32]}"

    def to_dask(self) -> da.Array:
        """The dask array of all blocks."""
        import dask.array as da

        draft = self._job.draft
        rows, columns = (
            tuple(min(shard, length - start) for start in range(0, length, shard))
            for shard, length in zip(draft.grid.hr_shard, draft.grid.hr_size, strict=True)
        )
        axes, dtype = self._job.axes, np.dtype(draft.dtype)
        return da.map_blocks(
            self.block,
            chunks=in_order(((draft.shape[0],), rows, columns), axes),
            dtype=dtype,
            meta=np.empty((0,) * len(axes), dtype),
            name=self.name,
        )

    def block(self, block_id: tuple[int, ...]) -> np.ndarray:
        """The pixels of one shard, with the axes of the array. block_id: its place among them."""
        axes = self._job.axes
        shard = block_id[axes.index("y")], block_id[axes.index("x")]
        try:
            pixels, _ = self._pool.submit(MakeShard(self._planned(), shard)).result()
        finally:
            # Threads that are started later would take over what the workers have set for theirs.
            torch.set_num_threads(self._torch_threads)
        return np.ascontiguousarray(arranged(pixels, axes))

    def _planned(self) -> Handle[Plan]:
        """The plan; it is made at the first call."""
        with self._planning:
            if self._plan is None:
                self._plan = self._pool.put(self._job.plan(self._pool))
            return self._plan
