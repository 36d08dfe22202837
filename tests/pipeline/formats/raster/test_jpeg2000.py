"""JPEG 2000: what is whole comes back, and what states impossible lengths is refused."""

import struct

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from tests.pipeline.formats.pictures import check, picture, whole
from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.formats.raster.jpeg2000_boxes import boxes
from tierscale.pipeline.formats.registry import open_image

SOT = b"\xff\x90\0\x0a"


def write(path, pixels, codecformat="jp2"):
    """A file of one tile-part; its bytes."""
    path.write_bytes(imagecodecs.jpeg2k_encode(pixels, codecformat=codecformat, level=0))
    return bytearray(path.read_bytes())


def write_tiles(path, pixels, codecformat="jp2"):
    """A file of tiles of 32 x 32 pixels; its bytes."""
    image = Image.fromarray(pixels)
    image.save(path, format="JPEG2000", tile_size=(32, 32), no_jp2=codecformat == "j2k")
    return bytearray(path.read_bytes())


@pytest.mark.parametrize("codecformat", ["jp2", "j2k"])
@pytest.mark.parametrize(
    ("samples", "dtype", "colour"),
    [(1, np.uint8, "grey"), (3, np.uint8, "rgb"), (3, np.uint16, "rgb"), (4, np.uint8, "rgba")],
)
def test_what_is_whole_comes_back(tmp_path, codecformat, samples, dtype, colour):
    pixels = picture(70, 90, samples, dtype)
    write(tmp_path / "a", pixels if samples > 1 else pixels[..., 0], codecformat)
    check(tmp_path / "a", pixels.transpose(2, 0, 1), colour=colour, random_access=False, bits=None)


@pytest.mark.parametrize("codecformat", ["jp2", "j2k"])
def test_tiles_come_back(tmp_path, codecformat):
    pixels = picture(70, 90)
    write_tiles(tmp_path / "a", pixels, codecformat)
    check(tmp_path / "a", pixels.transpose(2, 0, 1), colour="rgb")


@pytest.mark.parametrize("form", ["jp2", "j2k"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_a_cut_file_is_damaged(tmp_path, form, share):
    path = tmp_path / f"a.{form}"
    good = write(path, picture(80, 90), form)
    path.write_bytes(good[: int(len(good) * share)])
    with pytest.raises(Damaged, match=rf"a\.{form}"), open_image(path) as source:
        whole(source)


@pytest.mark.parametrize(
    ("length", "words"),
    [
        (0x7FFFFFFF, "states 2147483647 bytes"),
        (None, "bytes, of"),  # one byte beyond the end
        (5, "states 5 bytes"),  # less than the header of a box
    ],
)
@pytest.mark.parametrize("kind", [b"jp2h", b"ihdr", b"jp2c"])
def test_a_box_that_states_an_impossible_length_is_damaged(tmp_path, kind, length, words):
    content = write(tmp_path / "a.jp2", picture(40, 50))
    at = content.index(kind) - 4
    stated = len(content) - at + 1 if length is None else length
    content[at : at + 4] = struct.pack(">I", stated)
    (tmp_path / "a.jp2").write_bytes(content)
    with pytest.raises(Damaged, match=rf"a\.jp2: its box '{kind.decode()}' .*{words}"):
        open_image(tmp_path / "a.jp2")


@pytest.mark.parametrize("beyond", [1, 100, 2**31])
@pytest.mark.parametrize("codecformat", ["jp2", "j2k"])
@pytest.mark.parametrize("part", [0, -1])
def test_a_tile_part_that_ends_beyond_the_file_is_damaged(tmp_path, beyond, codecformat, part):
    content = write_tiles(tmp_path / "a", picture(70, 90), codecformat)
    parts = [at for at in range(len(content)) if content.startswith(SOT, at)]
    assert len(parts) == 9
    at = parts[part]
    content[at + 6 : at + 10] = struct.pack(">I", len(content) - at + beyond)
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(Damaged, match=rf"a tile-part at byte {at} states"):
        open_image(tmp_path / "a")


def test_a_segment_that_ends_beyond_the_file_is_damaged(tmp_path):
    content = write(tmp_path / "a", picture(40, 50), "j2k")
    at = content.index(b"\xff\x52")  # COD
    content[at + 2 : at + 4] = b"\xff\xff"
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(Damaged, match=f"a segment at byte {at} states 65537 bytes"):
        open_image(tmp_path / "a")


def test_lengths_may_be_left_open_at_the_end(tmp_path):
    """A last box and a last tile-part of length 0 reach to the end."""
    pixels = picture(40, 50)
    content = write(tmp_path / "a.jp2", pixels)
    box, part = content.index(b"jp2c") - 4, content.index(SOT)
    content[box : box + 4] = content[part + 6 : part + 10] = bytes(4)
    (tmp_path / "a.jp2").write_bytes(content)
    check(tmp_path / "a.jp2", pixels.transpose(2, 0, 1))


def test_boxes_of_64_bits_and_boxes_in_boxes(tmp_path):
    inner = struct.pack(">I4s", 10, b"ihdr") + b"ab"
    outer = struct.pack(">I4sQ", 1, b"jp2h", 16 + len(inner)) + inner
    (tmp_path / "a").write_bytes(outer + struct.pack(">I4s", 0, b"jp2c") + b"xyz")
    with open(tmp_path / "a", "rb") as file:
        listed = list(boxes(file, 0, len(outer) + 11, "a"))
    assert listed == [(b"jp2h", 16, 26), (b"ihdr", 24, 26), (b"jp2c", 34, 37)]


def test_unequal_components_are_refused(tmp_path):
    content = write(tmp_path / "a", picture(40, 50), "j2k")
    content[42] = 11  # bits of the first component, less one
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(Refused, match=r"depths \[7, 11\] is not supported"):
        open_image(tmp_path / "a")
