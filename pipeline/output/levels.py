"""Sizes of an output: its pyramid levels, its shards, and the chunks inside them."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tierscale.pipeline.plan.plan import Plan

# Levels are added until both sides are at most this long, in pixels.
SMALLEST_LEVEL = 1024
# Inner chunks hold at least this many bytes where the shard allows it.
CHUNK_BYTES = 1 << 19

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


def chunk_shape(
    shape: Sequence[int],
    shard: tuple[int, int],
    tiles: tuple[int, int],
    dtype: np.dtype,
    colour: str,
) -> tuple[int, int, int]:
    """Inner chunk (c, h, w) of a shard that holds `tiles` (rows, columns) of tiles.

    A chunk holds whole tiles, and CHUNK_BYTES or more where the shard allows it. Channels of a
    scientific image (colour "channels") lie in chunks of their own.
    """
    channels = 1 if colour == "channels" else shape[0]
    for rows in _divisors(tiles[0]):
        for columns in _divisors(tiles[1]):
            height, width = shard[0] // tiles[0] * rows, shard[1] // tiles[1] * columns
            if channels * height * width * dtype.itemsize >= CHUNK_BYTES:
                return channels, height, width
    return channels, *shard


def _divisors(number: int) -> list[int]:
    return sorted({math.gcd(number, part) for part in range(1, number + 1)})


@dataclass(frozen=True, slots=True)
class StoreLayout:
    """How an output lies in its store.

    shape: (c, H, W) of full resolution. dtype: of the pixels. colour: kind of channels ("rgb",
    "grey", "channels", ...). shard: height and width of a shard in output pixels. shard_tiles: rows
    and columns of tiles in it.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype
    colour: str
    shard: tuple[int, int]
    shard_tiles: tuple[int, int]

    @classmethod
    def of(cls, plan: Plan) -> "StoreLayout":
        """The layout of the output of a plan."""
        grid = plan.grid
        return cls(
            plan.hr_shape, np.dtype(plan.dtype), plan.colour, grid.hr_shard, grid.shard_tiles
        )

    @property
    def levels(self) -> list[tuple[int, int]]:
        """Height and width of every pyramid level."""
        return level_sizes((self.shape[1], self.shape[2]))

    @property
    def chunk(self) -> tuple[int, int, int]:
        """Inner chunk (c, h, w) of a shard."""
        return chunk_shape(self.shape, self.shard, self.shard_tiles, self.dtype, self.colour)

    @property
    def keys(self) -> Iterator[Key]:
        """All shards, full resolution first."""
        return shard_keys((self.shape[1], self.shape[2]), self.shard)
