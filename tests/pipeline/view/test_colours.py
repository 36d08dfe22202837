"""What values look like on a screen."""

import numpy as np
import pytest

from tierscale.pipeline.view.colours import Screen


def omero(windows, colours, active=None):
    channels = [
        {"window": {"start": low, "end": high}, "color": colour, "active": shown}
        for (low, high), colour, shown in zip(
            windows, colours, active or [True] * len(windows), strict=True
        )
    ]
    return {"ome": {"omero": {"channels": channels}}}


def test_colours_of_8_bits_are_shown_as_they_are():
    pixels = np.random.default_rng(1).integers(0, 256, (3, 5, 6), np.uint8)
    screen = Screen.of(omero([(0, 255)] * 3, ["FF0000", "00FF00", "0000FF"]), "rgb", None)
    np.testing.assert_array_equal(screen.show(pixels), pixels.transpose(1, 2, 0))


def test_windows_of_values_are_black_and_white():
    pixels = np.array([[[900, 1000, 1500, 2000, 2100]]], np.uint16)
    screen = Screen.of(omero([(1000, 2000)], ["FFFFFF"]), "grey", None)
    assert screen.show(pixels).tolist() == [[0, 0, 128, 255, 255]]
    floats = np.array([[[np.nan, 0.5, np.inf]]], np.float32)
    shown = Screen.plain(floats.dtype, 1, "grey", None).show(floats)
    assert shown.tolist() == [[0, 128, 255]]


def test_separate_channels_are_lights_of_their_colours():
    pixels = np.array([[[255, 0]], [[0, 255]], [[255, 255]]], np.uint8)
    colours = ["FF0000", "00FFFF", "00FF00"]
    screen = Screen.of(omero([(0, 255)] * 3, colours, [True, True, False]), "channels", None)
    assert screen.show(pixels).tolist() == [[[255, 0, 0], [0, 255, 255]]]


@pytest.mark.parametrize(("alpha", "shown"), [("straight", 60), ("premultiplied", 120)])
def test_clear_pixels_keep_their_colours(alpha, shown):
    pixels = np.array([60, 60, 60, 127], np.uint8).reshape(4, 1, 1)
    (((*rgb, opacity),),) = Screen.plain(pixels.dtype, 4, "rgba", alpha).show(pixels).tolist()
    assert rgb == [shown] * 3 and opacity == 127
    (((*grey, opacity),),) = Screen.plain(pixels.dtype, 2, "greya", alpha).show(pixels[2:]).tolist()
    assert grey == [shown] * 3 and opacity == 127
