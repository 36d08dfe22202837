"""What JPEG, WebP and others say beside their pixels is kept, or named."""

import struct

import pytest
from PIL import Image

from tests.pipeline.formats.pictures import exif_of, picture
from tierscale.pipeline.formats.registry import open_image

IPTC = b"\x1c\x02\x19\x00\x0cshelfmark 12"
PHOTOSHOP = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", len(IPTC)) + IPTC + b"\0"


def exif_block(**numbers):
    exif = Image.Exif()
    exif[33432] = "museum"
    for name, value in numbers.items():
        exif[{"x": 282, "y": 283, "unit": 296}[name]] = value
    return exif.tobytes()


def with_part(path, *parts):
    """A JPEG with parts (number of the application, body) behind its first mark."""
    data = path.read_bytes()
    extra = b"".join(
        struct.pack(">BBH", 0xFF, number, len(body) + 2) + body for number, body in parts
    )
    path.write_bytes(data[:2] + extra + data[2:])


@pytest.mark.parametrize("form", ["webp", "avif", "jpg"])
@pytest.mark.parametrize(("unit", "name"), [(2, "inch"), (3, "centimetre")])
def test_the_resolution_of_an_exif_block_is_kept(tmp_path, form, unit, name):
    path = tmp_path / f"a.{form}"
    Image.fromarray(picture(20, 32)).save(path, exif=exif_block(x=300, y=150, unit=unit))
    with open_image(path) as source:
        assert source.metadata.resolution == (300, 150)
        assert source.metadata.resolution_unit == name


def test_no_resolution_is_made_up(tmp_path):
    Image.fromarray(picture(20, 32)).save(tmp_path / "a.jpg", exif=exif_block())
    with open_image(tmp_path / "a.jpg") as source:
        assert source.metadata.resolution is None


def test_oblong_pixels_of_a_jpeg_without_a_unit_are_kept(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(picture(20, 32)).save(path)
    data = path.read_bytes()
    at = data.index(b"JFIF\0") + 7
    path.write_bytes(data[:at] + b"\0\0\2\0\1" + data[at + 5 :])
    with open_image(path) as source:
        assert (source.metadata.resolution, source.metadata.resolution_unit) == ((2, 1), None)


def test_iptc_of_a_jpeg_is_kept(tmp_path):
    Image.fromarray(picture(20, 32)).save(tmp_path / "a.jpg")
    with_part(tmp_path / "a.jpg", (0xED, PHOTOSHOP))
    with open_image(tmp_path / "a.jpg") as source:
        assert source.metadata.iptc == IPTC and source.notes == ()


@pytest.mark.parametrize(
    ("part", "word"),
    [
        ((0xFE, b"scanned by A."), "comment"),
        ((0xE1, b"http://ns.adobe.com/xmp/extension/\0abc"), "extended XMP"),
    ],
)
def test_what_an_output_does_not_hold_is_named(tmp_path, part, word):
    Image.fromarray(picture(20, 32)).save(tmp_path / "a.jpg")
    with_part(tmp_path / "a.jpg", part)
    with open_image(tmp_path / "a.jpg") as source:
        assert len(source.notes) == 1 and word in source.notes[0]


def test_text_that_is_not_ascii_is_kept(tmp_path):
    exif = Image.Exif()
    exif[33432] = "© Köln".encode()
    Image.fromarray(picture(20, 32)).save(tmp_path / "a.jpg", exif=exif)
    with open_image(tmp_path / "a.jpg") as source:
        assert "© Köln".encode() in source.metadata.exif
        assert exif_of(source.metadata.exif)[33432]
