"""EXIF blocks with one damaged tag: the others stay, and the picture is upright."""

import struct

import pytest
from PIL import Image

from tests.pipeline.formats.pictures import exif_of, picture, write_png
from tierscale.pipeline.formats.png.stream import chunk
from tierscale.pipeline.formats.registry import open_image

ARTIST, COPYRIGHT, ORIENTATION, GPS = 315, 33432, 274, 0x8825
# GPS tags whose type is not that of the standard: altitude as a signed fraction, text for numbers.
ODD = {
    "GPSAltitude": (6, 10, struct.pack("<ii", -430, 1)),
    "GPSLatitude": (2, 2, b"north\0\0\0"),
    "GPSAltitudeRef": (5, 2, b"below\0\0\0"),
}


def entry(tag, kind, count, value):
    return struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")


def block(odd):
    """An EXIF block with orientation 6, an artist, and one odd GPS tag."""
    tag, kind, data = ODD[odd]
    gps_at, data_at, artist_at = 8 + 2 + 3 * 12 + 4, 68, 76
    first = [
        entry(ORIENTATION, 3, 1, struct.pack("<H", 6)),
        entry(ARTIST, 2, 9, struct.pack("<I", artist_at)),
        entry(GPS, 4, 1, struct.pack("<I", gps_at)),
    ]
    count = 1 if kind == 10 else len(data)
    head = b"II*\0" + struct.pack("<I", 8)
    directory = struct.pack("<H", 3) + b"".join(first) + bytes(4)
    gps = struct.pack("<H", 1) + entry(tag, kind, count, struct.pack("<I", data_at)) + bytes(4)
    return head + directory + gps + data + b"A. Maker\0"


@pytest.mark.parametrize("form", ["jpg", "png", "webp"])
@pytest.mark.parametrize("odd", ODD)
def test_one_odd_tag_costs_neither_the_orientation_nor_the_other_tags(tmp_path, odd, form):
    path = tmp_path / f"a.{form}"
    if form == "png":
        write_png(path, picture(20, 32), 2, 8, False, chunk(b"eXIf", block(odd)))
    else:
        Image.fromarray(picture(20, 32)).save(path, exif=b"Exif\0\0" + block(odd))
    with open_image(path) as source:
        assert source.shape == (3, 32, 20), "it lies upright"
        kept = exif_of(source.metadata.exif)
        assert kept[ARTIST] == "A. Maker" and kept[ORIENTATION] == 1
        lost = [note for note in source.notes if "damaged" in note]
        assert all(odd in note for note in lost)
        assert lost or kept.get_ifd(GPS), "what is lost is named"
