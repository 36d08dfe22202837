"""What the boxes of a JPEG 2000 file say of its components, and what is refused."""

import struct

import imagecodecs
import numpy as np
import pytest

from tests.pipeline.formats.pictures import whole
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.registry import open_image


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


def test_xmp_is_kept_and_other_metadata_are_named(tmp_path):
    xmp = b"<x:xmpmeta>shelfmark 12</x:xmpmeta>"
    uuids = (
        bytes.fromhex("be7acfcb97a942e89c71999491e3afac") + xmp,
        b"JpgTiffExif->JP2" + b"II*\0",
        bytes.fromhex("b14bf8bd083d4b43a5ae8cd7d5a6ce03") + b"II*\0",
    )
    boxes = (colr(16), *(box(b"uuid", body) for body in uuids), box(b"xml ", b"<a/>"))
    write(tmp_path / "a.jp2", flat(1, 2, 3), *boxes)
    with open_image(tmp_path / "a.jp2") as source:
        assert source.metadata.xmp == xmp and source.metadata.srgb
        assert source.notes == ("its boxes EXIF, GeoJP2, GML or other XML were left out",)
