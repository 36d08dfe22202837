"""A PNG holds every pixel of the zarr it came from, or is refused."""

import struct

import numpy as np
import pytest
import zarr
from PIL import Image

from tests.pipeline.output.export.sample import (
    COLOURS,
    ICC,
    METADATA,
    XMP,
    exported,
    stored,
    write_output,
)
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.registry import open_image
from tierscale.pipeline.output.export.png import export_png


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("colour", ["grey", "greya", "rgb", "rgba"])
def test_png_holds_every_pixel(tmp_path, dtype, colour):
    levels = write_output(tmp_path / "a.zarr", (COLOURS[colour], 130, 170), dtype)
    calls: list[tuple[int, int]] = []
    row = COLOURS[colour] * 170 * np.dtype(dtype).itemsize
    export_png(
        exported(tmp_path, colour, metadata=METADATA),
        str(tmp_path / "a.png"),
        max_bytes=20 * 37 * row,
        progress=lambda *c: calls.append(c),
    )
    assert calls[-1] == (4, 4)
    with open_image(tmp_path / "a.png") as source:
        assert source.colour == colour
        np.testing.assert_array_equal(source.read(0, 130, 0, 170), levels[0])
        assert (source.metadata.icc, source.metadata.xmp, source.metadata.exif) == (
            ICC,
            XMP,
            METADATA.exif,
        )
        assert source.metadata.resolution == pytest.approx((1200 / 2.54, 600 / 2.54), abs=0.01)
    with Image.open(tmp_path / "a.png") as image:
        image.load()
        if dtype == np.uint8:
            np.testing.assert_array_equal(np.asarray(image), stored(levels[0], colour))
        assert (
            image.info["icc_profile"] == ICC
            and image.getexif()[271] == "maker"
            and round(image.info["dpi"][0]) == 1200
        )


def test_premultiplied_colours_are_divided_for_png(tmp_path):
    group = zarr.open_group(
        str(tmp_path / "a.zarr"),
        mode="w",
        attributes={"ome": {"multiscales": [{"datasets": [{"path": "0"}]}]}},
    )
    pixels = np.array(
        [[[100, 0, 50]], [[50, 0, 50]], [[0, 0, 50]], [[100, 0, 255]]], dtype=np.uint8
    )
    group.create_array("0", data=pixels)
    export_png(
        exported(tmp_path, "rgba", alpha="premultiplied"),
        str(tmp_path / "a.png"),
        max_bytes=1 << 20,
    )
    with open_image(tmp_path / "a.png") as source:
        assert source.read(0, 1, 0, 3)[:, 0].T.tolist() == [
            [255, 128, 0, 100],
            [0, 0, 0, 0],
            [50, 50, 50, 255],
        ]


REFUSED = [
    ((1, 9, 9), np.float32, "grey", 1 << 20, "not float32"),
    ((2, 9, 9), np.uint8, "channels", 1 << 20, "not 2 separate channels"),
    ((3, 9, 999), np.uint8, "rgb", 50000, "takes 58.5 KiB, but only 48.8 KiB"),
]


@pytest.mark.parametrize(("shape", "dtype", "colour", "allowed", "why"), REFUSED)
def test_what_png_cannot_hold_is_refused_naming_tiff(tmp_path, shape, dtype, colour, allowed, why):
    write_output(tmp_path / "a.zarr", shape, dtype)
    with pytest.raises(Refused, match=f"{why}.* export to TIFF"):
        export_png(exported(tmp_path, colour), str(tmp_path / "a.png"), max_bytes=allowed)
    assert not (tmp_path / "a.png").exists()


def test_a_side_that_png_cannot_count_is_refused_for_that_and_not_for_memory(tmp_path):
    attributes = {"ome": {"multiscales": [{"datasets": [{"path": "0"}]}]}}
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", attributes=attributes)
    group.create_array("0", shape=(1, 1 << 31, 1), dtype=np.uint8, chunks=(1, 1 << 20, 1))
    with pytest.raises(Refused, match="sides of up to 2147483647 pixels, not 1x2147483648"):
        export_png(exported(tmp_path, "grey"), str(tmp_path / "a.png"), max_bytes=1 << 20)


def test_png_of_one_pixel_by_hand(tmp_path):
    group = zarr.open_group(
        str(tmp_path / "a.zarr"),
        mode="w",
        attributes={"ome": {"multiscales": [{"datasets": [{"path": "0"}]}]}},
    )
    group.create_array("0", data=np.full((1, 1, 1), 7, np.uint8))
    export_png(exported(tmp_path, "grey"), str(tmp_path / "a.png"), max_bytes=1 << 20)
    data = (tmp_path / "a.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">IIBBBBB", data[16:29]) == (
        1,
        1,
        8,
        0,
        0,
        0,
        0,
    )
    assert data.endswith(b"IEND\xaeB`\x82")
