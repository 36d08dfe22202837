"""Where everything lies: tiles, shards and windows as rectangles of whole pixels.

Rectangles are in input pixels unless named hr_. Output coordinates come from
models.contract.upscaler.hr_edge alone, so what covers the input once covers the output once, at
any scale.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np

from tierscale.models.contract.upscaler import hr_edge, hr_length

# Tiles along a side of a shard: the first of these that keeps the halo's work within bounds,
# because memory grows with its square.
SHARD_TILES = (4, 5, 6)
# Windows may be this much longer than what they answer for, on each axis, with the context that
# CARN needs (reach 21, blend 4).
MOST_HALO = 1.135
CONTEXT = 25


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Pixels start to stop (not included) on one axis."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """Number of pixels."""
        return self.stop - self.start

    def grown(self, by: int, length: int) -> "Span":
        """Wider by `by` on both sides, kept within 0..length."""
        return Span(max(0, self.start - by), min(length, self.stop + by))


@dataclass(frozen=True, slots=True, order=True)
class Rect:
    """Rows y by columns x."""

    y: Span
    x: Span

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.y.length * self.x.length

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns, to index an array with."""
        return slice(self.y.start, self.y.stop), slice(self.x.start, self.x.stop)

    def within(self, outer: "Rect") -> "Rect":
        """The same pixels counted from the corner of `outer`."""
        return Rect(
            Span(self.y.start - outer.y.start, self.y.stop - outer.y.start),
            Span(self.x.start - outer.x.start, self.x.stop - outer.x.start),
        )

    def around(self, other: "Rect") -> "Rect":
        """The smallest rectangle that holds both."""
        return Rect(
            Span(min(self.y.start, other.y.start), max(self.y.stop, other.y.stop)),
            Span(min(self.x.start, other.x.start), max(self.x.stop, other.x.stop)),
        )


def tile_length(requested: int, scale: Fraction) -> int:
    """The tile side to use: `requested` rounded up to a multiple of the scale's denominator, so
    that core edges fall on output pixels.
    """
    return -(-requested // scale.denominator) * scale.denominator


def cores(length: int, tile: int) -> list[Span]:
    """Spans of `tile` pixels that cover 0..length once; the last one may be shorter."""
    return [Span(start, min(start + tile, length)) for start in range(0, length, tile)]


@lru_cache(maxsize=256)
def shard_tiles(length: int, tile: int) -> int:
    """Tiles along one side of a shard, for an axis of `length` pixels: the fewest that keep halos
    small.
    """
    overheads = {count: _windows_length(length, tile, count) / length for count in SHARD_TILES}
    return next(
        (count for count in SHARD_TILES if overheads[count] <= MOST_HALO),
        min(overheads, key=lambda count: overheads[count]),
    )


def _windows_length(length: int, tile: int, count: int) -> int:
    """What windows of whole shards of `count` tiles read along an axis, halos included."""
    total = 0
    for core in cores(length, count * tile):
        wanted = core.grown(CONTEXT, length).length
        total += min(
            length,
            next(one for one in window_lengths(tile, count, CONTEXT, 0) if one >= wanted),
        )
    return total


def window_lengths(tile: int, count: int, context: int, strip: int) -> list[int]:
    """Lengths that windows come in, each with `context` on both sides.

    They are a narrow strip, and quarters of tiles up to `count` tiles. Quarters serve the ragged
    far edge of an image, where rounding up to a whole tile would waste most.
    """
    return [strip + 2 * context] + [
        part * tile // 4 + 2 * context for part in range(1, 4 * count + 1)
    ]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a network's windows read around what they answer for.

    reach: input pixels on each side. multiple: where a window may begin, in input pixels; networks
    that look at squares of a grid of their own give what they give for the whole image only there.
    """

    reach: int
    multiple: int = 1


@dataclass(frozen=True, slots=True)
class Grid:
    """How an image is cut.

    size: height and width of the input, in pixels.
    scale: output pixels for each input pixel.
    tile: side of a tile in input pixels, a multiple of the scale's denominator.
    """

    size: tuple[int, int]
    scale: Fraction
    tile: int

    def __post_init__(self) -> None:
        if self.tile % self.scale.denominator:
            raise ValueError(
                f"a tile of {self.tile} pixels is not a multiple of {self.scale.denominator}, the"
                f" denominator of scale {self.scale}"
            )

    @property
    def hr_size(self) -> tuple[int, int]:
        """Height and width of the output."""
        return hr_length(self.size[0], self.scale), hr_length(self.size[1], self.scale)

    @property
    def tiles(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        return -(-self.size[0] // self.tile), -(-self.size[1] // self.tile)

    @property
    def shard_tiles(self) -> tuple[int, int]:
        """Rows and columns of tiles in a full shard."""
        return min(self.tiles[0], shard_tiles(self.size[0], self.tile)), min(
            self.tiles[1], shard_tiles(self.size[1], self.tile)
        )

    @property
    def shards(self) -> tuple[int, int]:
        """Rows and columns of shards."""
        (rows, columns), (tall, wide) = self.tiles, self.shard_tiles
        return -(-rows // tall), -(-columns // wide)

    @property
    def hr_shard(self) -> tuple[int, int]:
        """Height and width of a full shard in output pixels."""
        tall, wide = self.shard_tiles
        hr_tile = self.tile * self.scale.numerator // self.scale.denominator
        return tall * hr_tile, wide * hr_tile

    def core(self, row: int, column: int) -> Rect:
        """The input pixels that tile (row, column) answers for."""
        return self.block(Span(row, row + 1), Span(column, column + 1))

    def block(self, rows: Span, columns: Span) -> Rect:
        """The cores of a rectangle of tiles, together."""
        return Rect(
            Span(rows.start * self.tile, min(rows.stop * self.tile, self.size[0])),
            Span(columns.start * self.tile, min(columns.stop * self.tile, self.size[1])),
        )

    def shard_block(self, shard: tuple[int, int]) -> tuple[Span, Span]:
        """Rows and columns of the tiles in a shard."""
        spans = [
            Span(index * side, min((index + 1) * side, count))
            for index, side, count in zip(shard, self.shard_tiles, self.tiles, strict=True)
        ]
        return spans[0], spans[1]

    def shard_core(self, shard: tuple[int, int]) -> Rect:
        """The input pixels behind one shard."""
        return self.block(*self.shard_block(shard))

    def all_shards(self) -> Iterator[tuple[int, int]]:
        """Row and column of every shard, in rows from the top left."""
        rows, columns = self.shards
        return ((y, x) for y in range(rows) for x in range(columns))

    def hr(self, rect: Rect) -> Rect:
        """The output pixels that `rect` becomes."""
        (height, width), scale = self.size, self.scale
        return Rect(
            Span(hr_edge(rect.y.start, height, scale), hr_edge(rect.y.stop, height, scale)),
            Span(hr_edge(rect.x.start, width, scale), hr_edge(rect.x.stop, width, scale)),
        )

    def window(self, need: Rect, around: Surroundings, blend: int) -> Rect:
        """The input rectangle to read so that `need` comes out right.

        Lengths come from a short list (one narrow strip, or quarters of tiles, each with its
        halo), so that windows have few shapes. At the edge of the image the window slides inwards
        instead of shrinking: it ends where the image ends, which is where the network's own border
        treatment belongs.
        """
        return Rect(self._along(need.y, 0, around, blend), self._along(need.x, 1, around, blend))

    def _along(self, need: Span, axis: int, around: Surroundings, blend: int) -> Span:
        length, reach = self.size[axis], around.reach
        wanted = need.grown(reach, length)
        if around.multiple > 1:
            # It ends with the image rather than sliding: it would begin off the multiple then.
            every = math.lcm(around.multiple, self.scale.denominator)
            start = wanted.start // every * every
            return Span(start, min(length, start + -(-(wanted.stop - start) // every) * every))
        lengths = window_lengths(self.tile, self.shard_tiles[axis], reach + blend, blend)
        enough = next((one for one in lengths if one >= wanted.length), wanted.length)
        longest = min(length, enough)
        step = self.scale.denominator
        # Origins fall on output pixels where they can; at the far edge the window ends with the
        # image.
        start = max(0, min(wanted.start // step * step, length - longest))
        return Span(start, min(length, max(start + longest, wanted.stop)))


def quadtree(routes: np.ndarray, rows: Span, columns: Span) -> Iterator[tuple[Span, Span]]:
    """Cut a block of tiles into few large blocks of one tier each, halving it on both axes until
    that is so.

    routes: (rows, columns) of the whole image, tier indices.
    """
    part = routes[rows.start : rows.stop, columns.start : columns.stop]
    if (part == part.flat[0]).all():
        yield rows, columns
        return
    for part_rows in halves(rows):
        for part_columns in halves(columns):
            yield from quadtree(routes, part_rows, part_columns)


def halves(span: Span) -> list[Span]:
    """Both halves of a span, the first one longer by one where the length is odd; the span itself
    where it cannot be cut.
    """
    if span.length == 1:
        return [span]
    middle = span.start + -(-span.length // 2)
    return [Span(span.start, middle), Span(middle, span.stop)]
