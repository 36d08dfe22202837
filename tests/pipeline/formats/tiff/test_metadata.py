"""What a TIFF says beside its pixels is kept for every level, or named where it is not."""

import struct

import numpy as np
import pytest
import tifffile

from tests.pipeline.formats.pictures import exif_of, picture
from tests.pipeline.output.export.sample import ICC
from tierscale.pipeline.formats.blocks.exif import block_directories
from tierscale.pipeline.formats.registry import open_image
from tierscale.pipeline.plan.options import Selection

KEYS = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633)
XMP = b"<x:xmpmeta>shelfmark 12</x:xmpmeta>"
IPTC = b"\x1c\x02\x19\x00\x0cshelfmark 12"
GEO = [
    (33550, "d", 3, (10.0, 10.0, 0.0), True),
    (33922, "d", 6, (0.0, 0.0, 0.0, 500000.0, 4600000.0, 0.0), True),
    (34735, "H", len(KEYS), KEYS, True),
    (42113, "s", 0, "-1", True),
]


def write(path, pixels, *tags, smaller=(), **options):
    """A TIFF with tags in its first page, and smaller levels that say nothing."""
    with tifffile.TiffWriter(path) as writer:
        kind = {"photometric": "rgb" if pixels.ndim == 3 else "minisblack", "metadata": None}
        writer.write(
            pixels, **{**kind, "subifds": len(smaller) or None, "extratags": tags, **options}
        )
        for level in smaller:
            writer.write(level, **kind, subfiletype=1)


def test_a_smaller_level_has_what_full_resolution_says_in_its_own_size(tmp_path):
    pixels = picture(96, 130)
    write(
        tmp_path / "a.tif",
        pixels,
        *GEO,
        (700, "B", len(XMP), XMP, True),
        (315, "s", 0, "A. Maker", True),
        (274, "H", 1, 1, True),
        smaller=[pixels[::2, ::2]],
        iccprofile=ICC,
        resolution=(300, 150),
        resolutionunit=2,
    )
    with open_image(tmp_path / "a.tif", Selection(level=1)) as source:
        found = source.metadata
    assert found.icc == ICC and found.xmp == XMP and exif_of(found.exif)[315] == "A. Maker"
    assert (found.resolution, found.resolution_unit) == ((150, 75), "inch")
    assert found.nodata == -1 and found.geo["GeoKeyDirectory"] == list(KEYS)
    assert found.geo["ModelPixelScale"][:2] == [20, 20]
    assert found.geo["ModelTiepoint"] == [0, 0, 0, 500000, 4600000, 0]


def test_a_smaller_level_is_as_much_larger_as_it_has_fewer_pixels(tmp_path):
    pixels = picture(97, 131, 1)[..., 0]
    write(tmp_path / "a.tif", pixels, *GEO, smaller=[pixels[::2, ::2]])
    with open_image(tmp_path / "a.tif", Selection(level=1)) as source:
        assert source.shape == (1, 49, 66)
        wide, high, _ = source.metadata.geo["ModelPixelScale"]
    assert (wide * 66, high * 49) == pytest.approx((1310, 970))


def test_a_smaller_level_is_turned_as_full_resolution_says(tmp_path):
    pixels = picture(96, 130)
    write(tmp_path / "a.tif", pixels, (274, "H", 1, 6, True), smaller=[pixels[::2, ::2]])
    with open_image(tmp_path / "a.tif", Selection(level=1)) as source:
        assert source.shape == (3, 65, 48)


def test_a_smaller_level_of_an_ome_tiff_has_larger_pixels(tmp_path):
    pixels = np.zeros((3, 64, 96), np.uint16)
    size = {"axes": "CYX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5}
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as writer:
        writer.write(pixels, subifds=1, metadata=size, photometric="minisblack")
        writer.write(pixels[:, ::2, ::2], subfiletype=1, photometric="minisblack")
    for level, expected in ((0, (0.5, 0.25)), (1, (1.0, 0.5))):
        with open_image(tmp_path / "a.ome.tif", Selection(level=level)) as source:
            assert source.metadata.pixel_size == expected


def test_rational_polynomials_stay_on_the_ground(tmp_path):
    rpc = (-1.0, -1.0, 48.0, 64.0, 43.26, 5.5, 565.0, 48.0, 64.0, 0.1, 0.15, 525.0, *(0.5,) * 80)
    write(tmp_path / "a.tif", picture(96, 128), (50844, "d", 92, rpc, True))
    with open_image(tmp_path / "a.tif") as source:
        found = source.metadata.scaled(4).geo["RPCCoefficient"]
        part = source.metadata.cropped(10, 20).geo["RPCCoefficient"]
    # The centre of a pixel at line l lies at line (l + 1/2) * 4 - 1/2 of the larger raster.
    assert found[2:4] == [193.5, 257.5] and found[7:9] == [192, 256]
    assert found[4:7] == list(rpc[4:7]) and found[9:] == list(rpc[9:])
    assert part[2:4] == [28, 54] and part[7:9] == [48, 64]


@pytest.mark.parametrize(
    ("code", "kind", "stored"),
    [
        (33723, "B", IPTC),
        (33723, "I", struct.unpack(f"<{len(IPTC + b'000') // 4}I", IPTC + b"000")),
        (34377, "B", b"8BIM\x04\x25\x00\x00\x00\x00\x00\x01x\x00" + b"8BIM\x04\x04\x00\x00"
         + struct.pack(">I", len(IPTC)) + IPTC),
    ],
)  # fmt: skip
def test_iptc_is_found_wherever_writers_put_it(tmp_path, code, kind, stored):
    write(tmp_path / "a.tif", picture(9, 12), (code, kind, len(stored), stored, True))
    with open_image(tmp_path / "a.tif") as source:
        assert source.metadata.iptc.startswith(IPTC)


@pytest.mark.parametrize(("density", "kept"), [((2, 1), (2, 1)), ((1, 1), None)])
def test_without_a_unit_the_ratio_of_a_resolution_tells_of_oblong_pixels(tmp_path, density, kept):
    write(tmp_path / "a.tif", picture(9, 12), resolution=density, resolutionunit=1)
    with open_image(tmp_path / "a.tif") as source:
        assert (source.metadata.resolution, source.metadata.resolution_unit) == (kept, None)


def test_tags_that_an_output_does_not_hold_are_named(tmp_path):
    tags = [(50255, "B", 4, b"abcd", True), (65123, "H", 1, 7, True)]
    write(tmp_path / "a.tif", picture(9, 12), *tags)
    with open_image(tmp_path / "a.tif") as source:
        (note,) = source.notes
    assert "Annotations" in note and "65123" in note and "damaged" not in note
    write(tmp_path / "b.tif", picture(9, 12), *((65000 + i, "H", 1, i, True) for i in range(20)))
    with open_image(tmp_path / "b.tif") as source:
        assert "and 12 others" in source.notes[0]


def test_a_plain_file_has_nothing_to_name(tmp_path):
    for options in ({}, {"tile": (16, 16), "compression": "zlib", "predictor": True}):
        write(tmp_path / "a.tif", picture(40, 50), *GEO[:3], **options)
        with open_image(tmp_path / "a.tif") as source:
            assert source.notes == ()


CAPTIONS = ["a caption", '{"a": 1}', "<p>x</p>", "ImageJ"]


@pytest.mark.parametrize("caption", [caption.encode() for caption in (*CAPTIONS, "Brücke")])
@pytest.mark.parametrize("options", [{"metadata": None}, {}])
def test_a_caption_is_kept_whatever_it_begins_with(tmp_path, caption, options):
    kind = {"photometric": "rgb", "description": caption}
    tifffile.imwrite(tmp_path / "a.tif", picture(9, 12), **kind, **options)
    with open_image(tmp_path / "a.tif") as source:
        assert block_directories(source.metadata.exif)[0][270].text == caption.decode()
        assert source.notes == ()


@pytest.mark.parametrize(
    ("kind", "name"),
    [({"ome": True}, "OME-TIFF"), ({"imagej": True}, "ImageJ"),
     ({"description": "Aperio Image Library v1|MPP = 0.5", "metadata": None}, "Aperio")],
)  # fmt: skip
def test_a_description_for_programs_is_no_caption_and_named(tmp_path, kind, name):
    tifffile.imwrite(tmp_path / "a.tif", picture(9, 12), photometric="rgb", tile=None, **kind)
    with open_image(tmp_path / "a.tif") as source:
        exif = source.metadata.exif
        assert exif is None or 270 not in block_directories(exif)[0]
        assert any(f"of its {name} description" in note for note in source.notes)


def test_the_description_in_which_tifffile_keeps_a_shape_is_no_statement(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", picture(9, 12), photometric="rgb")
    with open_image(tmp_path / "a.tif") as source:
        assert source.notes == ()
        assert 270 not in block_directories(source.metadata.exif)[0]
