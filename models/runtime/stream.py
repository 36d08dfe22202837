"""Networks run down a window a few rows at a time.

What one layer writes is then still in cache when the next one reads it.

Fed with all rows at once, CARN on one CPU thread takes 11 microseconds for each pixel of a 64x64
window but 47 for each of 562x562 (channels last; 18 and 65 otherwise), because every layer goes
through main memory. Fed in bands it keeps its speed at any size. Each layer remembers the few rows
that it needs again: nothing is computed twice, and memory no longer grows with the layers' maps.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Input pixels in a band. Of 64 float channels they are 4 MiB, more than a core's own cache holds
# (512 KiB to 2 MiB), and yet a band of a quarter takes up to 18 % longer: each layer's call has its
# own cost (measured with one thread, float32 and bfloat16).
BAND = 16384


class Stream(Protocol):
    """A layer, or a chain of layers, in the middle of a window."""

    def push(self, rows: Tensor, last: bool) -> Tensor:
        """Take the next rows (N, C, n, w); give the rows (N, D, m, v) that are complete now.

        last: no more will come.
        """
        ...


def check_scale(network: str, scale: int) -> None:
    """ValueError, naming the network, for scales that plain networks are not made for."""
    if scale not in (2, 3, 4):
        raise ValueError(
            f"{network} is made for scales 2, 3 and 4, not {scale}; use anysr-edsr or bicubic for"
            " other scales"
        )


class RowNetwork(nn.Module):
    """A network (N, 3, h, w) -> (N, 3, scale * h, scale * w) that can also be fed by rows.

    The result is the same. scale: output pixels for each input pixel. reach: input pixels it looks
    at on each side; None: the whole window, and no stream().
    """

    scale: int
    reach: int | None
    # Whether it adds to an enlargement that is not its own: what bfloat16 rounds is then small.
    adds_detail = True

    def stream(self) -> Stream:
        """A fresh stream for one window."""
        raise NotImplementedError(
            f"{type(self).__name__} cannot be fed by rows; write its stream()"
        )


class Convolve:
    """A convolution of odd kernel and stride 1, fed by rows; its output lags half a kernel behind.

    Zeros lie around the window. Rows in float32 may meet weights in bfloat16, see convolve().
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, groups: int = 1) -> None:
        self.weight, self.bias, self.groups = weight, bias, groups
        self.margin = weight.shape[-1] // 2
        self.held: Tensor | None = None

    @staticmethod
    def of(layer: nn.Conv2d) -> "Convolve":
        """The same convolution as `layer`, fed by rows."""
        return Convolve(layer.weight, layer.bias, layer.groups)

    def push(self, rows: Tensor, last: bool) -> Tensor:
        if last and self.held is None:  # all rows at once
            return convolve(rows, self.weight, self.bias, (self.margin, self.margin), self.groups)
        if self.margin:
            # Zeros of another memory format than the rows' would bring all that follows into
            # theirs, a third of the time (measured).
            border = rows.new_zeros(*rows.shape[:2], self.margin, rows.shape[3]).contiguous(
                memory_format=torch.channels_last
            )
            above = border if self.held is None else self.held
            rows = torch.cat([above, rows, border] if last else [above, rows], dim=2)
            self.held = rows[:, :, -2 * self.margin :]
        return convolve(rows, self.weight, self.bias, (0, self.margin), self.groups)


def convolve(
    rows: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int], groups: int = 1
) -> Tensor:
    """F.conv2d(); rows in float32 are fed to weights in bfloat16 as the sum of two terms.

    So a network sees its windows as they are: rounded, their steps are a quarter of a level of 255,
    and that alone would be most of what bfloat16 makes wrong (measured, EDSR: 64.5 dB from float32
    in place of 69.9).
    """
    if rows.dtype == torch.float32 and weight.dtype == torch.bfloat16:
        near = rows.bfloat16()
        rows = torch.cat([near, (rows - near).bfloat16()], dim=1)
        weight = torch.cat([weight, weight], dim=1)
    return F.conv2d(rows, weight, bias, padding=padding, groups=groups)


class Delay:
    """Rows that wait until another branch, which lags behind, has caught up."""

    def __init__(self) -> None:
        self.held: Tensor | None = None

    def match(self, rows: Tensor, count: int) -> Tensor:
        """Take rows; return the `count` oldest ones that were not returned yet."""
        waiting = (
            rows
            if self.held is None or self.held.shape[2] == 0
            else torch.cat([self.held, rows], dim=2)
        )
        self.held = waiting[:, :, count:]
        return waiting[:, :, :count]


class Skip:
    """A stream whose input is added to its output."""

    def __init__(self, inner: Stream) -> None:
        self.inner, self.delay = inner, Delay()

    def push(self, rows: Tensor, last: bool) -> Tensor:
        inner = self.inner.push(rows, last)
        return inner.add_(self.delay.match(rows, inner.shape[2]))


class Chain:
    """Streams, and functions that work pixel by pixel, one after another."""

    def __init__(self, *parts: Stream | Callable[[Tensor], Tensor]) -> None:
        self.parts = parts

    def push(self, rows: Tensor, last: bool) -> Tensor:
        for part in self.parts:
            rows = part(rows) if callable(part) else part.push(rows, last)
        return rows


class Finely:
    """A stream fed with about `pixels` pixels at a time.

    For the part of a network whose maps are larger than its input. reach: of the stream, where it
    lags behind by more than the rows of a piece.
    """

    def __init__(self, stream: Stream, pixels: int, reach: int = 0) -> None:
        self.stream, self.pixels, self.reach = stream, pixels, reach

    def push(self, rows: Tensor, last: bool) -> Tensor:
        pieces = [
            rows[:, :, start:stop]
            for start, stop in bands(rows.shape[2], rows.shape[3], self.reach, self.pixels)
        ]
        self.reach = 0  # only the first piece needs to be taller
        results = [
            self.stream.push(piece, last and index == len(pieces) - 1)
            for index, piece in enumerate(pieces)
        ]
        return results[0] if len(results) == 1 else torch.cat(results, dim=2)


def bands(height: int, width: int, reach: int, pixels: int = BAND) -> Iterator[tuple[int, int]]:
    """Rows (start, stop) to push one after another.

    The first band is taller by `reach`, so that no layer is left without output.
    """
    rows = max(2, pixels // width)
    start, stop = 0, reach + rows
    while stop < height:
        yield start, stop
        start, stop = stop, stop + rows
    yield start, height


def run(stream: Callable[[], Stream], windows: Tensor, scale: int, reach: int) -> Tensor:
    """Enlarge windows (N, C, h, w) to (N, 3, scale * h, scale * w).

    Each window goes through a stream of its own. A window's result does not depend on its batch,
    not even in the last bit.
    """
    count, _, height, width = windows.shape
    result = windows.new_empty(count, 3, scale * height, scale * width)
    for index in range(count):
        layers, row = stream(), 0
        window = windows[index : index + 1].contiguous(memory_format=torch.channels_last)
        for start, stop in bands(height, width, reach):
            rows = layers.push(window[:, :, start:stop], stop == height)
            result[index, :, row : row + rows.shape[2]] = rows[0]
            row += rows.shape[2]
    return result


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """The type of what is made of maps of a type: float32 for bfloat16, else the same."""
    return torch.promote_types(dtype, torch.float32)


def shuffle(step: int) -> Callable[[Tensor], Tensor]:
    """Channels become pixels: (N, C * step * step, n, w) -> (N, C, n * step, w * step)."""
    return lambda rows: F.pixel_shuffle(rows, step)
