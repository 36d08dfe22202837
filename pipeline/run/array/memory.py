"""How many threads may enlarge an array; what does not fit in memory is refused before work."""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.geometry.grid import tile_length
from tierscale.pipeline.plan.options import SMALLEST_TILE
from tierscale.pipeline.plan.plan import Draft
from tierscale.pipeline.run.inspect import SourceInfo
from tierscale.pipeline.run.resources import thread_bytes, usable_memory
from tierscale.pipeline.run.workers.pool import cores
from tierscale.pipeline.wording import in_bytes


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes that stay in memory while an array is enlarged.

    array: of the array itself, where it is in memory. result: of the enlarged one, where it will
    be. beside: of what writing takes at a time.
    """

    array: int = 0
    result: int = 0
    beside: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.array + self.result + self.beside


def bytes_in_memory(array: Any) -> int:
    """Bytes of a numpy array that is no part of a mapped file; 0 for what is read when asked."""
    if not isinstance(array, np.ndarray):
        return 0
    owner: Any = array
    while isinstance(owner, np.ndarray) and owner.base is not None:
        owner = owner.base
    return 0 if isinstance(owner, mmap.mmap) else array.nbytes


def threads_that_fit(draft: Draft, info: SourceInfo, held: Held, max_memory: int | None) -> int:
    """Threads that enlarge: one for each processor, or as many as memory allows.

    One where a GPU does the work. Refused: not even one fits, with the numbers and what would fit.
    """
    most, limit = cores() if draft.device == "cpu" else 1, usable_memory(max_memory)
    for threads in range(most, 0, -1):
        if thread_bytes(draft, info, threads) + held.total <= limit:
            return threads
    raise Refused(_too_much(draft, info, held, limit))


def _too_much(draft: Draft, info: SourceInfo, held: Held, limit: int) -> str:
    """The sentence for an array that does not fit."""
    work = thread_bytes(draft, info, 1)
    may = f"but {in_bytes(limit)} may be used"
    others = work + held.total - held.result
    if held.result and others <= limit:
        return (
            f"the result of {draft.hr_shape} {draft.dtype} values takes {in_bytes(held.result)} and"
            f" the work on it {in_bytes(others)}, {may}; give out= a zarr array or a path, which is"
            " written in bounded memory"
        )
    advice = ", or ".join(_ways_out(draft, info, held, limit))
    return f"the plan needs {in_bytes(work + held.total)} on one thread, {may}; {advice}"


def _ways_out(draft: Draft, info: SourceInfo, held: Held, limit: int) -> Iterator[str]:
    """What would fit."""
    parts = (draft.tile // part for part in (2, 4, 8))
    for tile in (tile_length(part, draft.scale) for part in parts if part >= SMALLEST_TILE):
        smaller = replace(draft, tile=tile)
        if thread_bytes(smaller, info, 1) + held.total <= limit:
            yield f"give tile={tile}"
            break
    if info.decode_bytes > limit // 2:
        yield f"rechunk the array, of which {in_bytes(info.decode_bytes)} are read for any window"
    if held.beside > limit // 2:
        yield "give out= an array of smaller chunks"
    needed = thread_bytes(draft, info, 1) + held.total
    yield f"give max_memory={needed} on a machine that has it"
