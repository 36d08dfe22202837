"""XMP packets: what of them stays true of an upright, enlarged picture."""

from __future__ import annotations

import re

# Sizes and resolutions, of the picture before it was enlarged.
FALSE = rb"(?:tiff:(?:ImageWidth|ImageLength|XResolution|YResolution)|exif:Pixel[XY]Dimension)"


def xmp_orientation(xmp: bytes | None) -> int:
    """The orientation that an XMP packet states, 1 to 8; 1 where it states none."""
    stated = re.search(rb"tiff:Orientation\s*(?:=\s*[\"']|>\s*)([1-8])", xmp or b"")
    return int(stated[1]) if stated else 1


def true_xmp(xmp: bytes | None) -> bytes | None:
    """What of an XMP packet stays true: upright, and without sizes and resolutions of before."""
    if not xmp:
        return None
    xmp = re.sub(rb"(tiff:Orientation\s*(?:=\s*[\"']|>\s*))[1-8]", rb"\g<1>1", xmp)
    xmp = re.sub(rb"\s" + FALSE + rb"\s*=\s*(?:\"[^\"]*\"|'[^']*')", b"", xmp)
    return re.sub(rb"<(" + FALSE + rb")>[^<]*</\1>", b"", xmp)
