"""Source and result lie on each other, at every level and in every window."""

from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from tests.pipeline.view.scenes import SCREEN
from tierscale.pipeline.geometry.grid import Rect, Span
from tierscale.pipeline.view import layers
from tierscale.pipeline.view.layers import Original

SOURCE = np.random.default_rng(2).integers(0, 256, (3, 61, 83), np.uint8)


def original(scale, smooth, read=lambda y0, y1, x0, x1: SOURCE[:, y0:y1, x0:x1]):
    return Original(read, SOURCE.shape[1:], Fraction(scale), smooth, SCREEN)


def window(layer, level, y, x):
    return layer.window(level, Rect(Span(*y), Span(*x)))


def test_source_pixels_are_squares():
    shown = window(original(4, False), 0, (100, 140), (200, 280))
    whole = SOURCE.repeat(4, axis=1).repeat(4, axis=2).transpose(1, 2, 0)
    np.testing.assert_array_equal(shown, whole[100:140, 200:280])


@pytest.mark.parametrize("scale", [4, 3, Fraction(5, 2)])
def test_a_window_is_that_part_of_the_whole_picture(scale):
    height, width = int(61 * scale), int(83 * scale)
    whole = window(original(scale, True), 0, (0, height), (0, width))
    box = (0, 0, float(width / scale), float(height / scale))
    grey = Image.fromarray(SOURCE[1].astype(np.float32))
    pillow = grey.resize((width, height), Image.Resampling.BICUBIC, box=box)
    assert np.abs(np.clip(np.asarray(pillow), 0, 255) - whole[..., 1]).max() <= 0.501
    part = window(original(scale, True), 0, (37, 90), (51, 130))
    # Places in a window are other float numbers than those in the whole.
    assert np.abs(part.astype(int) - whole[37:90, 51:130]).max() <= 1


def test_small_levels_are_means_of_the_source(monkeypatch):
    # Level 4 of scale 4: a pixel is 4 by 4 source pixels; the last ones lie at the edge.
    means = SOURCE[:, :60, :80].reshape(3, 15, 4, 20, 4).mean((2, 4)).transpose(1, 2, 0)
    shown = window(original(4, True), 4, (0, 16), (0, 21))
    assert np.abs(shown[:15, :20] - means).max() <= 0.501
    reads = []

    def read(y0, y1, x0, x1):
        reads.append((y1 - y0) * (x1 - x0))
        return SOURCE[:, y0:y1, x0:x1]

    monkeypatch.setattr(layers, "READ_PIXELS", 84 * 8)
    np.testing.assert_array_equal(shown, window(original(4, True, read), 4, (0, 16), (0, 21)))
    assert len(reads) == 8 and max(reads) <= 84 * (8 + 2 * layers.MARGIN)
