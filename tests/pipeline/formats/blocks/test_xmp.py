"""XMP packets tell of the upright, enlarged picture."""

import pytest

from tierscale.pipeline.formats.blocks.xmp import true_xmp, xmp_orientation

ATTRIBUTES = (
    b'<r:Description tiff:Orientation="6" tiff:ImageWidth="400" exif:PixelXDimension = \'400\''
    b' tiff:XResolution="300/1" dc:title="x"/>'
)
ELEMENTS = (
    b"<tiff:Orientation>6</tiff:Orientation><tiff:ImageLength>300</tiff:ImageLength>"
    b"<exif:PixelYDimension>300</exif:PixelYDimension><dc:title>x</dc:title>"
)


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (ATTRIBUTES, b'<r:Description tiff:Orientation="1" dc:title="x"/>'),
        (ELEMENTS, b"<tiff:Orientation>1</tiff:Orientation><dc:title>x</dc:title>"),
        (b"<x>shelfmark 12</x>", b"<x>shelfmark 12</x>"),
        (b"", None),
        (None, None),
    ],
)
def test_what_is_false_after_enlarging_goes(packet, expected):
    assert true_xmp(packet) == expected


@pytest.mark.parametrize(
    ("packet", "expected"), [(ATTRIBUTES, 6), (ELEMENTS, 6), (b"<x/>", 1), (None, 1)]
)
def test_the_orientation_is_read(packet, expected):
    assert xmp_orientation(packet) == expected
