"""What Pillow says of a picture beside its pixels, and what it leaves unread."""

from __future__ import annotations

from typing import Any

from PIL import Image

from tierscale.pipeline.formats.blocks.exif import ExifFacts, exif_facts
from tierscale.pipeline.formats.blocks.iptc import IPTC_RESOURCE
from tierscale.pipeline.formats.blocks.xmp import true_xmp, xmp_orientation
from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.formats.profile import adobe_rgb

# Marks of the parts of a JPEG that hold what did not fit into its XMP packet, and of those that
# point to further pictures, such as the gain map of an HDR photo.
EXTENDED_XMP, FURTHER_PICTURES = b"http://ns.adobe.com/xmp/extension/", b"MPF\0"


def raster_metadata(image: Image.Image) -> tuple[PhotoMetadata, list[str], int]:
    """Metadata, notes and EXIF orientation of an opened picture."""
    info: dict[Any, Any] = image.info
    facts = exif_facts(info.get("exif"))
    notes = [*facts.notes, *left_out(image)]
    icc = info.get("icc_profile") or None
    if icc is None and image.mode in ("RGB", "YCbCr") and facts.adobe_rgb:
        icc = adobe_rgb()
        notes.append("its EXIF block says Adobe RGB; the profile was put in")
    xmp = info.get("xmp")
    xmp = xmp.encode() if isinstance(xmp, str) else xmp
    resources = info.get("photoshop")
    density, unit = pixel_density(info, facts)
    metadata = PhotoMetadata(
        icc=icc,
        exif=facts.block,
        xmp=true_xmp(xmp),
        iptc=resources.get(IPTC_RESOURCE) if isinstance(resources, dict) else None,
        resolution=density,
        resolution_unit=unit,
    )
    return metadata, notes, facts.orientation or xmp_orientation(xmp)


def left_out(image: Image.Image) -> list[str]:
    """Notes on what an output does not hold."""
    notes: list[str] = []
    comment = image.info.get("comment")
    if isinstance(comment, bytes | str) and comment.strip():
        notes.append("its comment was left out")
    parts = [body for _, body in getattr(image, "applist", ())]
    if any(body.startswith(EXTENDED_XMP) for body in parts):
        notes.append("its extended XMP was left out")
    if any(body.startswith(FURTHER_PICTURES) for body in parts):
        notes.append("the further pictures that it holds were left out")
    return notes


def pixel_density(
    info: dict[Any, Any], facts: ExifFacts
) -> tuple[tuple[float, float] | None, str | None]:
    """(pixels per unit, x then y, or None; the unit, or None where only their ratio is stated)."""
    # Pillow makes up 72 dpi for a JPEG whose EXIF block states none.
    stated = info.get("dpi") if info.get("jfif_unit") or "exif" not in info else None
    if isinstance(stated, tuple) and len(stated) == 2 and all(stated):
        return (float(stated[0]), float(stated[1])), "inch"
    if facts.resolution is not None:
        return facts.resolution, facts.resolution_unit
    ratio = info.get("jfif_density")
    if info.get("jfif_unit") == 0 and isinstance(ratio, tuple) and all(ratio):
        x, y = float(ratio[0]), float(ratio[1])
        return ((x, y), None) if x != y else (None, None)
    return None, None
