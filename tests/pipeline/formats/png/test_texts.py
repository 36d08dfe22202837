"""Blocks that ImageMagick and exiftool put into texts of a PNG are read as their chunks are."""

import struct
import zlib

import pytest

from tests.pipeline.formats.pictures import exif_of, picture, write_png
from tests.pipeline.output.export.sample import ICC
from tierscale.pipeline.formats.png.stream import chunk
from tierscale.pipeline.formats.registry import open_image

XMP = b'<x:xmpmeta><r tiff:Orientation="6"/>shelfmark 12</x:xmpmeta>'
IPTC = b"\x1c\x02\x19\x00\x0cshelfmark 12"
RESOURCES = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(IPTC)) + IPTC + b"\0"


def exif_block():
    """An EXIF block, big-endian: orientation 6, 300 dpi, an artist."""
    entries = (
        struct.pack(">HHIHH", 274, 3, 1, 6, 0)
        + struct.pack(">HHII", 282, 5, 1, 62)
        + struct.pack(">HHII", 283, 5, 1, 62)
        + struct.pack(">HHII", 315, 2, 9, 70)
    )
    values = struct.pack(">II", 300, 1) + b"A. Maker\0"
    return b"MM\0*\0\0\0\x08\0\x04" + entries + bytes(4) + values


def text(kind, keyword, block, length=None):
    """A text chunk that holds a raw profile."""
    lines = f"\nname\n    {len(block) if length is None else length}\n{block.hex()}\n".encode()
    body = keyword.encode() + b"\0"
    if kind == b"tEXt":
        return chunk(kind, body + lines)
    if kind == b"zTXt":
        return chunk(kind, body + b"\0" + zlib.compress(lines))
    return chunk(kind, body + b"\1\0\0\0" + zlib.compress(lines))


def opened(path, *chunks):
    write_png(path, picture(20, 32), 2, 8, False, b"".join(chunks))
    with open_image(path) as source:
        return source.shape, source.metadata, source.notes


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt"])
@pytest.mark.parametrize("name", ["exif", "APP1"])
def test_exif_in_a_text_sets_the_picture_upright(tmp_path, kind, name):
    block = text(kind, f"Raw profile type {name}", b"Exif\0\0" + exif_block())
    shape, found, notes = opened(tmp_path / "a.png", block)
    assert shape == (3, 32, 20) and notes == ("it was set upright",)
    assert exif_of(found.exif)[315] == "A. Maker"
    assert (found.resolution, found.resolution_unit) == ((300, 300), "inch")


def test_the_chunk_of_its_own_goes_before_a_text(tmp_path):
    straight = exif_block().replace(struct.pack(">HH", 6, 0), struct.pack(">HH", 1, 0))
    profile = text(b"zTXt", "Raw profile type exif", exif_block())
    shape, _, _ = opened(tmp_path / "a.png", profile, chunk(b"eXIf", straight))
    assert shape == (3, 20, 32)


@pytest.mark.parametrize("name", ["xmp", "APP1"])
def test_xmp_in_a_text_is_kept_and_turns_the_picture(tmp_path, name):
    mark = b"http://ns.adobe.com/xap/1.0/\0" if name == "APP1" else b""
    block = text(b"zTXt", f"Raw profile type {name}", mark + XMP)
    shape, found, _ = opened(tmp_path / "a.png", block)
    assert shape == (3, 32, 20)
    assert found.xmp == XMP.replace(b'"6"', b'"1"')


def test_iptc_and_a_profile_in_texts_are_kept(tmp_path):
    _, found, notes = opened(
        tmp_path / "a.png",
        text(b"zTXt", "Raw profile type iptc", RESOURCES),
        text(b"zTXt", "Raw profile type icc", ICC),
    )
    assert (found.iptc, found.icc, notes) == (IPTC, ICC, ())


@pytest.mark.parametrize("block", [
    text(b"tEXt", "Raw profile type exif", exif_block(), length=7),
    chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 3\nxyz\n"),
    chunk(b"tEXt", b"Raw profile type exif\0"),
    chunk(b"zTXt", b"Raw profile type exif\0\0abc"),
])  # fmt: skip
def test_a_damaged_raw_profile_is_named(tmp_path, block):
    shape, found, notes = opened(tmp_path / "a.png", block)
    assert shape == (3, 20, 32) and found.exif is None
    assert len(notes) == 1 and "Raw profile type exif" in notes[0] and "damaged" in notes[0]


def test_texts_and_chunks_that_an_output_does_not_hold_are_named(tmp_path):
    _, _, notes = opened(
        tmp_path / "a.png",
        chunk(b"tEXt", b"Author\0A. Maker"),
        chunk(b"tEXt", b"Software\0ImageMagick"),
        chunk(b"tEXt", b"date:create\x002020-01-01"),
        chunk(b"iTXt", b"Title\0\0\0de\0Titel\0Br\xc3\xbccke"),
        chunk(b"sCAL", b"\x011.0\x001.0"),
        chunk(b"tIME", struct.pack(">HBBBBB", 2020, 1, 1, 0, 0, 0)),
        text(b"zTXt", "Raw profile type 8bim", b"8BIM"),
    )
    assert notes == (
        'its text "Raw profile type 8bim" is of a kind that outputs do not hold and was left out',
        "its texts Author, Title were left out",
        "its chunks sCAL were left out",
    )
