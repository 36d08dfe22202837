"""Smaller levels of an output, each from the one before."""

from collections.abc import Callable

import numpy as np


def half(size: tuple[int, int], shard: tuple[int, int], read: Callable[[tuple[int, int]], np.ndarray]) -> np.ndarray:
    """The pixels of a shard as means of 2x2 pixels of the level before; (c, H, W), its type.

    size: shards of the level before, rows and columns; read: the pixels of one of them.
    """
    rows, columns = (range(2 * at, min(2 * at + 2, count)) for at, count in zip(shard, size, strict=True))
    pixels = np.concatenate([np.concatenate([read((y, x)) for x in columns], axis=2) for y in rows], axis=1)
    # An odd last row or column is repeated: its mean is itself.
    pixels = np.pad(pixels, ((0, 0), (0, pixels.shape[1] % 2), (0, pixels.shape[2] % 2)), mode="edge")
    total = np.float32 if pixels.dtype.itemsize <= 2 else np.float64
    mean = np.zeros((pixels.shape[0], pixels.shape[1] // 2, pixels.shape[2] // 2), total)
    for dy in (0, 1):
        for dx in (0, 1):
            mean += pixels[:, dy::2, dx::2]
    mean /= 4
    return (mean if pixels.dtype.kind == "f" else np.rint(mean)).astype(pixels.dtype)
