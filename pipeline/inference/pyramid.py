"""Smaller levels of an output, each from the one before."""

from collections.abc import Callable

import numpy as np

# Rows that are averaged at a time.
ROWS = 64


def half(
    size: tuple[int, int], shard: tuple[int, int], read: Callable[[tuple[int, int]], np.ndarray]
) -> np.ndarray:
    """The pixels of a shard as means of 2x2 pixels of the level before; (c, H, W), its type.

    size: shards of the level before, rows and columns; read: the pixels of one of them.
    """
    rows, columns = (
        range(2 * at, min(2 * at + 2, count)) for at, count in zip(shard, size, strict=True)
    )
    pixels = _joined([[read((y, x)) for x in columns] for y in rows])
    height, width = pixels.shape[1] // 2, pixels.shape[2] // 2
    total = np.float32 if pixels.dtype.itemsize <= 2 else np.float64
    result = np.empty((len(pixels), height, width), pixels.dtype)
    for row in range(0, height, ROWS):
        part = pixels[:, 2 * row : 2 * (row + ROWS)]
        mean = np.zeros((len(part), part.shape[1] // 2, width), total)
        for dy in (0, 1):
            for dx in (0, 1):
                mean += part[:, dy::2, dx::2]
        mean /= 4
        result[:, row : row + ROWS] = mean if pixels.dtype.kind == "f" else np.rint(mean)
    return result


def _joined(parts: list[list[np.ndarray]]) -> np.ndarray:
    """Arrays (c, h, w) by rows as one, of even height and width: an odd last row or column is
    repeated, so that its mean is itself.

    The arrays are taken out of `parts` one by one: all of them twice would be a worker's largest
    need of memory.
    """
    height, width = sum(row[0].shape[1] for row in parts), sum(part.shape[2] for part in parts[0])
    first = parts[0][0]
    whole = np.empty((len(first), height + height % 2, width + width % 2), first.dtype)
    top = 0
    for row in parts:
        left, tall = 0, row[0].shape[1]
        while row:
            part = row.pop(0)
            whole[:, top : top + tall, left : left + part.shape[2]] = part
            left += part.shape[2]
        top += tall
    if height % 2:
        whole[:, height] = whole[:, height - 1]
    if width % 2:
        whole[:, :, width] = whole[:, :, width - 1]
    return whole
