"""What the boxes of a JPEG 2000 file say of its components, and what is refused."""

import io
import struct

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.pipeline.formats.pictures import whole
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.georeference import geo_transform
from tierscale.pipeline.formats.raster.jpeg2000_boxes import (
    EXIF_UUID,
    GEO_UUID,
    IPTC_UUID,
    XMP_UUID,
)
from tierscale.pipeline.formats.registry import open_image

ORIENTATION, MAKER = 274, 271


def box(kind, body):
    return struct.pack(">I4s", 8 + len(body), kind) + body


def colr(space):
    return box(b"colr", struct.pack(">3BI", 1, 0, 0, space))


def write(path, pixels, *said):
    """A lossless JP2 of pixels (y, x, components) with these boxes in its header."""
    stream = imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k", mct=False)
    height, width, count = pixels.shape
    depth = 8 * pixels.dtype.itemsize - 1
    head = box(b"ihdr", struct.pack(">IIH4B", height, width, count, depth, 7, 0, 0))
    header = box(b"jp2h", head + b"".join(said))
    marks = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
    path.write_bytes(marks + header + box(b"jp2c", stream))


def flat(*values, dtype=np.uint8):
    return np.broadcast_to(np.array(values, dtype), (40, 48, len(values))).copy()


@pytest.mark.parametrize(
    ("inks", "rgb"),
    [((0, 0, 0, 0), (255,) * 3), ((0, 255, 255, 0), (255, 0, 0)), ((0, 0, 0, 255), (0, 0, 0))],
)
def test_inks_become_colours(tmp_path, inks, rgb):
    write(tmp_path / "a.jp2", flat(*inks), colr(12))
    with open_image(tmp_path / "a.jp2") as source:
        assert source.colour == "rgb" and source.alpha is None and "CMYK" in source.notes[0]
        assert whole(source)[:, 3, 3].tolist() == list(rgb)


def test_the_profile_and_the_resolution_are_kept(tmp_path):
    icc = imagecodecs.cms_profile("adobergb")
    resolution = box(b"res ", box(b"resc", struct.pack(">4H2b", 300, 254, 600, 254, 4, 4)))
    write(tmp_path / "a.jp2", flat(1, 2, 3), box(b"colr", b"\2\0\0" + icc), resolution)
    with open_image(tmp_path / "a.jp2") as source:
        metadata = source.metadata
        assert metadata.icc == icc and metadata.resolution_unit == "centimetre"
        np.testing.assert_allclose(metadata.resolution, (600 / 2.54, 300 / 2.54))
        assert source.colour == "rgb"


@pytest.mark.parametrize(("kind", "alpha"), [(1, "straight"), (2, "premultiplied")])
def test_opacity_is_what_the_file_says(tmp_path, kind, alpha):
    entries = [(0, 0, 1), (1, 0, 2), (2, 0, 3), (3, kind, 0)]
    body = struct.pack(">H", 4) + b"".join(struct.pack(">3H", *entry) for entry in entries)
    write(tmp_path / "a.jp2", flat(10, 20, 30, 40), colr(16), box(b"cdef", body))
    with open_image(tmp_path / "a.jp2") as source:
        assert (source.colour, source.alpha) == ("rgba", alpha)
        assert whole(source)[:, 0, 0].tolist() == [10, 20, 30, 40]


@pytest.mark.parametrize(
    ("values", "said", "words"),
    [
        ((1, 2, 3), colr(14), "colour space 14"),
        ((1, 2), colr(16), "3 components but there are 2"),
        ((1,), box(b"pclr", bytes(9)), "palette"),
        ((1, 2, 3, 4), box(b"colr", b"\2\0\0" + bytes(16) + b"CMYK" + bytes(16) + b"acsp"), "CMYK"),
    ],
)
def test_what_cannot_be_read_rightly_is_refused(tmp_path, values, said, words):
    write(tmp_path / "a.jp2", flat(*values), said)
    with pytest.raises(Refused, match=words):
        open_image(tmp_path / "a.jp2")


def test_luma_and_chroma_become_colours(tmp_path):
    write(tmp_path / "a.jp2", flat(76, 85, 255), colr(18))
    with open_image(tmp_path / "a.jp2") as source:
        assert np.abs(whole(source)[:, 0, 0].astype(int) - (255, 0, 0)).max() <= 3


def uuid(mark, body):
    return box(b"uuid", mark + body)


def exif(orientation):
    block = Image.Exif()
    block[ORIENTATION], block[MAKER] = orientation, "scanner"
    return block.tobytes().removeprefix(b"Exif\0\0")


def geo():
    tags = [(33550, "d", 3, (2.0, 2.0, 0.0), True), (33922, "d", 6, (0, 0, 0, 100, 200, 0), True)]
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((1, 1), np.uint8), extratags=tags, metadata=None)
    return file.getvalue()


def behind(path, *said):
    """Boxes behind the image."""
    path.write_bytes(path.read_bytes() + b"".join(said))


@pytest.mark.parametrize("place", ["before", "behind"])
def test_metadata_are_kept_and_other_boxes_are_named(tmp_path, place):
    xmp, iptc = b"<x:xmpmeta>shelfmark 12</x:xmpmeta>", b"\x1c\2\x05\0\4page"
    uuids = [uuid(XMP_UUID, xmp), uuid(EXIF_UUID, exif(1)), uuid(IPTC_UUID, iptc)]
    said = [*uuids, uuid(GEO_UUID, geo()), uuid(b"x" * 16, b"?"), box(b"xml ", b"<a/>")]
    before, after = (said, []) if place == "before" else ([], said)
    write(tmp_path / "a.jp2", flat(1, 2, 3), colr(16), *before)
    behind(tmp_path / "a.jp2", *after)
    with open_image(tmp_path / "a.jp2") as source:
        metadata = source.metadata
        assert metadata.xmp == xmp and metadata.srgb and metadata.iptc == iptc
        assert b"scanner" in metadata.exif
        assert geo_transform(metadata.geo) == [2, 0, 100, 0, -2, 200]
        assert source.notes == (f"its boxes uuid {'78' * 16}, GML or other XML were left out",)


def test_a_picture_is_set_upright_without_its_place(tmp_path):
    pixels = flat(1, 2, 3)
    pixels[0, 0] = 200
    write(tmp_path / "a.jp2", pixels, colr(16), uuid(EXIF_UUID, exif(6)), uuid(GEO_UUID, geo()))
    with open_image(tmp_path / "a.jp2") as source:
        assert source.shape == (3, 48, 40) and source.metadata.geo is None
        assert whole(source)[:, 0, -1].tolist() == [200] * 3
        assert source.notes == ("it was set upright, without its georeferencing",)


def test_a_place_that_cannot_be_read_is_told(tmp_path):
    write(tmp_path / "a.jp2", flat(1, 2, 3), colr(16), uuid(GEO_UUID, b"II*\0"))
    with open_image(tmp_path / "a.jp2") as source:
        (note,) = source.notes
        assert "GeoJP2 box cannot be read" in note and source.metadata.geo is None


def test_damage_behind_the_image_costs_no_pixel(tmp_path):
    write(tmp_path / "a.jp2", flat(1, 2, 3), colr(16))
    behind(tmp_path / "a.jp2", uuid(EXIF_UUID, exif(1))[:-20])
    with open_image(tmp_path / "a.jp2") as source:
        assert source.notes == ("what follows its image cannot be read and was left out",)
        assert whole(source)[:, 5, 5].tolist() == [1, 2, 3]
