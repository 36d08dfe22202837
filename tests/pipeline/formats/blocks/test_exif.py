"""EXIF blocks come out as they went in; one damaged tag costs neither others nor the picture."""

import struct

import pytest
from PIL import Image

from tests.pipeline.formats.pictures import exif_of, picture, write_png
from tierscale.pipeline.formats.blocks.directories import Entry
from tierscale.pipeline.formats.blocks.exif import block_directories, exif_facts
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
        assert kept.get_ifd(GPS), "an odd type is kept as it is"
        assert source.notes == ("it was set upright",)


def big_endian(*entries, behind=b""):
    """A big-endian block of entries (tag, type, count, 4 bytes), with values behind them."""
    listed = b"".join(struct.pack(">HHI", *entry[:3]) + entry[3] for entry in entries)
    return b"MM\0*\0\0\0\x08" + struct.pack(">H", len(entries)) + listed + bytes(4) + behind


@pytest.mark.parametrize("kind", [2, 129])
def test_text_stays_the_bytes_that_it_was(kind):
    text = "© 2020 Museum Köln".encode()
    block = big_endian((COPYRIGHT, kind, len(text), struct.pack(">I", 26)), behind=text)
    first, _ = block_directories(exif_facts(block).block)
    assert (first[COPYRIGHT].data, first[COPYRIGHT].kind) == (text, kind)
    assert first[COPYRIGHT].text == "© 2020 Museum Köln"


def test_text_that_is_no_utf_8_is_read_as_latin_1():
    assert Entry(2, 5, "Köln\0".encode("latin-1")).text == "Köln"


def test_numbers_of_any_type_keep_their_values_in_either_order_of_bytes():
    behind = struct.pack(">iihhfd", -430, 7, -2, 3, 0.5, 0.25)
    gps_at = 8 + 2 + 2 * 12 + 4
    values_at = gps_at + 2 + 4 * 12 + 4
    gps = struct.pack(">H", 4) + b"".join(
        struct.pack(">HHII", tag, kind, count, values_at + at)
        for tag, kind, count, at in ((4, 10, 1, 0), (6, 8, 2, 8), (7, 11, 1, 12), (8, 12, 1, 16))
    )
    # Two short numbers and a float fit into the entry itself.
    gps = gps.replace(struct.pack(">I", values_at + 8), behind[8:12])
    gps = gps.replace(struct.pack(">I", values_at + 12), behind[12:16])
    block = big_endian(
        (ORIENTATION, 3, 1, b"\0\6\0\0"),
        (GPS, 4, 1, struct.pack(">I", gps_at)),
        behind=gps + bytes(4) + behind,
    )
    facts = exif_facts(block)
    found = block_directories(facts.block)[1][GPS]
    assert facts.orientation == 6 and facts.notes == ()
    assert found[4].numbers == (-430 / 7,) and found[6].numbers == (-2, 3)
    assert found[7].numbers == (0.5,) and found[8].numbers == (0.25,)


def test_what_is_false_after_enlarging_is_left_out_and_the_maker_note_is_named():
    exif = Image.Exif()
    exif[271], exif[256] = "maker", 4000
    exif.get_ifd(0x8769).update({0x927C: b"secret", 0xA002: 4000, 0x829A: 0.5})
    facts = exif_facts(exif.tobytes())
    first, parts = block_directories(facts.block)
    assert set(first) == {271, ORIENTATION, 0x8769} and set(parts[0x8769]) == {0x829A}
    assert facts.notes == ("the maker note of its EXIF block was left out",)


@pytest.mark.parametrize(
    "block", [b"Exif\0\0", b"no block at all", b"II*\0\xff\xff\xff\xff", b"MM"]
)
def test_a_block_that_cannot_be_read_is_named(block):
    facts = exif_facts(block)
    assert facts.block is None and len(facts.notes) == 1 and "damaged" in facts.notes[0]


def test_values_beyond_the_block_are_lost_alone_and_named():
    block = big_endian(
        (271, 2, 6, struct.pack(">I", 5000)),
        (ORIENTATION, 3, 1, b"\0\3\0\0"),
        (0x8769, 4, 1, struct.pack(">I", 5000)),
    )
    facts = exif_facts(block)
    assert facts.orientation == 3
    assert facts.notes == ("of its EXIF block, Make, ExifOffset is damaged and was left out",)


def test_cleaning_twice_changes_nothing():
    once = exif_facts(block("GPSAltitude")).block
    assert exif_facts(once).block == once
