"""Pixels of any kind as people see them on a screen."""

import numpy as np
import pytest
from PIL import Image

from tierscale.pipeline.output.pictures.preview import PixelKind, display
from tierscale.pipeline.output.receipts import Folder


def ramp_of(channels, dtype, top):
    values = np.linspace(0, top, 20 * 30).reshape(20, 30)
    return np.stack([values] * channels).astype(dtype)


@pytest.mark.parametrize(
    ("colour", "channels", "shape"),
    [
        ("grey", 1, (20, 30)),
        ("greya", 2, (20, 30, 4)),
        ("rgb", 3, (20, 30, 3)),
        ("rgba", 4, (20, 30, 4)),
        ("channels", 5, (20, 30, 3)),
        ("channels", 1, (20, 30, 3)),
    ],
)
@pytest.mark.parametrize(("dtype", "top"), [("u1", 255), ("u2", 900), ("f4", 0.3)])
def test_every_kind_becomes_eight_bits_that_rise(colour, channels, shape, dtype, top):
    kind = PixelKind(colour, has_alpha=colour in ("rgba", "greya"))
    shown = display(ramp_of(channels, dtype, top), kind)
    assert shown.shape == shape and shown.dtype == np.uint8
    grey = shown.reshape(600, -1)[:, 0].astype(int)
    assert (np.diff(grey) >= 0).all() and grey[-1] - grey[0] > 200


def test_eight_bit_colours_stay_as_they_are():
    pixels = np.random.default_rng(0).integers(0, 255, (3, 5, 6), np.uint8)
    np.testing.assert_array_equal(display(pixels, PixelKind("rgb")), pixels.transpose(1, 2, 0))


def test_a_hue_is_kept_and_alpha_is_not_stretched():
    pixels = ramp_of(4, "u2", 1000)
    pixels[1], pixels[3] = pixels[1] // 2, 65535
    shown = display(pixels, PixelKind("rgba", has_alpha=True)).astype(int)
    assert np.abs(shown[10, 15, 0] - 2 * shown[10, 15, 1]) <= 4
    assert (shown[..., 3] == 255).all()


def test_pixels_without_data_do_not_stretch_the_rest():
    pixels = ramp_of(1, "f4", 0.5)
    pixels[:, :3] = -9999
    shown = display(pixels, PixelKind("grey", nodata=-9999))
    assert (shown[:3] == 0).all() and shown[3:].max() == 255 and np.median(shown[3:]) > 80


def test_an_image_without_any_data_is_black():
    pixels = np.full((1, 4, 4), np.nan, np.float32)
    assert not display(pixels, PixelKind("grey")).any()


def test_an_image_of_two_by_thirty_thousand_pixels_gets_its_pictures(command, tmp_path):
    Image.new("RGB", (2, 30_000), (90, 120, 30)).save(tmp_path / "thin.png")
    output = tmp_path / "thin.zarr"
    options = ("--tiers", "bicubic", "--ray", "none", "--workers", "1")
    code, _, err = command("upscale", tmp_path / "thin.png", output, *options)
    assert code == 0, err
    folder = Folder(str(output)).path
    with Image.open(folder / "preview.png") as picture:
        assert picture.size == (1, 938)
    with Image.open(folder / "routing.png") as picture:
        assert picture.width < 1024 and picture.height < 1100


def test_a_channel_is_shown_in_its_own_colour():
    pixels = np.stack([ramp_of(1, "u2", 900)[0], np.zeros((20, 30), "u2")])
    shown = display(pixels, PixelKind("channels", colours=("FF0000", "00FF00")))
    assert shown[-1, -1].tolist() == [255, 0, 0]
