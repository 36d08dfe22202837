"""Sizes of an output: its pyramid levels, its shards, and the chunks inside them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tierscale.pipeline.plan.plan import Plan

# Levels are added until both sides are at most this long, in pixels.
SMALLEST_LEVEL = 1024
# Inner chunks are squares of at most this side, in pixels, of one channel: that is what viewers
# fetch to fill a screen. Shorter than the second is a poor request for them.
LONGEST_CHUNK = 512
SHORTEST_CHUNK = 64

# Level, row and column of a shard.
Key = tuple[int, int, int]


def level_sizes(size: tuple[int, int]) -> list[tuple[int, int]]:
    """Height and width of every pyramid level in pixels, full resolution first.

    Each level has half the sides of the one before, rounded up.
    """
    sizes = [size]
    while max(sizes[-1]) > SMALLEST_LEVEL:
        height, width = sizes[-1]
        sizes.append((-(-height // 2), -(-width // 2)))
    return sizes


def shard_keys(size: tuple[int, int], shard: tuple[int, int]) -> Iterator[Key]:
    """Level, row and column of every shard of an output, full resolution first.

    size, shard: height and width in output pixels.
    """
    for level, (height, width) in enumerate(level_sizes(size)):
        for y in range(-(-height // shard[0])):
            for x in range(-(-width // shard[1])):
                yield level, y, x


def chunk_side(shard: tuple[int, int]) -> int:
    """Side of the square inner chunks of a shard (height, width), in pixels.

    The largest power of two up to LONGEST_CHUNK that divides both sides; where that is very short,
    the longest side that divides them.
    """
    common = math.gcd(*shard)
    power = math.gcd(common, LONGEST_CHUNK)
    shortest = min(SHORTEST_CHUNK, common)
    if power >= shortest:
        return power
    divisors = [part for part in range(shortest, common + 1) if common % part == 0]
    return max((part for part in divisors if part <= LONGEST_CHUNK), default=min(divisors))


@dataclass(frozen=True, slots=True)
class StoreLayout:
    """How an output lies in its store.

    shape: (c, H, W) of full resolution. dtype: of the pixels. colour: kind of channels ("rgb",
    "grey", "channels", ...). shard: height and width of a shard in output pixels. nodata: value of
    pixels without data, or None.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype
    colour: str
    shard: tuple[int, int]
    nodata: float | None = None

    @classmethod
    def of(cls, plan: Plan) -> "StoreLayout":
        """The layout of the output of a plan."""
        dtype, nodata = np.dtype(plan.dtype), plan.value_range.nodata
        return cls(plan.hr_shape, dtype, plan.colour, plan.grid.hr_shard, nodata)

    @property
    def levels(self) -> list[tuple[int, int]]:
        """Height and width of every pyramid level."""
        return level_sizes((self.shape[1], self.shape[2]))

    @property
    def chunk(self) -> tuple[int, int, int]:
        """Inner chunk (c, h, w) of a shard."""
        side = chunk_side(self.shard)
        return 1, side, side

    @property
    def keys(self) -> Iterator[Key]:
        """All shards, full resolution first."""
        return shard_keys((self.shape[1], self.shape[2]), self.shard)
