"""What the chunks of a PNG say beside its pixels: colours, EXIF, XMP, IPTC, resolution."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

from tierscale.pipeline.formats.blocks.exif import exif_facts
from tierscale.pipeline.formats.blocks.iptc import iptc_of
from tierscale.pipeline.formats.blocks.xmp import true_xmp, xmp_orientation
from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.formats.png.header import Chunks
from tierscale.pipeline.formats.png.texts import (
    TEXT_LIMIT,
    XMP_KEYWORD,
    left_out,
    raw_profiles,
    texts,
)
from tierscale.pipeline.formats.profile import (
    D65,
    REC709,
    are_chromaticities,
    coded_profile,
    is_profile,
    profile,
)


def png_metadata(chunks: Chunks, grey: bool, uri: str) -> tuple[PhotoMetadata, list[str], int]:
    """Metadata, notes and EXIF orientation from the chunks of a PNG; grey: without colours.

    Refused: its colours are such as no output can carry.
    """
    notes: list[str] = []
    found = texts(chunks.texts, notes)
    blocks = raw_profiles(found, notes)
    facts = exif_facts(chunks.bodies.get(b"eXIf") or blocks.get("exif"))
    xmp = found.get(XMP_KEYWORD) or blocks.get("xmp")
    icc = colour_profile(chunks.bodies, blocks.get("icc"), grey, uri, notes)
    resolution, unit = physical_resolution(chunks.bodies.get(b"pHYs", b""))
    if resolution is None:
        resolution, unit = facts.resolution, facts.resolution_unit
    metadata = PhotoMetadata(
        icc=icc,
        srgb=icc is None and says_srgb(chunks.bodies),
        exif=facts.block,
        xmp=true_xmp(xmp),
        iptc=iptc_of(blocks.get("iptc")),
        resolution=resolution,
        resolution_unit=unit,
    )
    orientation = facts.orientation or xmp_orientation(xmp)
    return metadata, [*facts.notes, *notes, *other_notes(chunks, found)], orientation


def other_notes(chunks: Chunks, found: dict[str, bytes]) -> list[str]:
    """Notes on what an output does not hold."""
    notes = left_out(found)
    if b"sBIT" in chunks.bodies:
        bits = ", ".join(str(bits) for bits in chunks.bodies[b"sBIT"])
        notes.append(f"it states {bits} significant bits (sBIT), the output does not")
    if len(chunks.bodies.get(b"acTL", b"")) == 8:
        frames = struct.unpack(">I", chunks.bodies[b"acTL"][:4])[0]
        notes.append(f"took the still picture of an animation of {frames} frames")
    if chunks.others:
        names = ", ".join(sorted(kind.decode("latin-1") for kind in chunks.others))
        notes.append(f"its chunks {names} were left out")
    return notes


def says_srgb(bodies: Mapping[bytes, bytes]) -> bool:
    """Whether chunks say that the colours are sRGB."""
    code = bodies.get(b"cICP", b"")
    return code[:2] == bytes((1, 13)) if len(code) == 4 else b"sRGB" in bodies


def colour_profile(
    bodies: Mapping[bytes, bytes], raw: bytes | None, grey: bool, uri: str, notes: list[str]
) -> bytes | None:
    """The ICC profile of the colours, None: they are as sRGB, or nothing is said.

    raw: the profile of a text. cICP goes before all others (PNG specification, third edition).
    Appends to `notes`. Refused: no output can carry them.
    """
    code = bodies.get(b"cICP", b"")
    if len(code) == 4:
        return coded_profile(code[0], code[1], uri)
    if b"iCCP" in bodies:
        _, _, packed = bodies[b"iCCP"].partition(b"\0")
        try:
            return zlib.decompressobj().decompress(packed[1:], TEXT_LIMIT)
        except zlib.error:
            notes.append("its ICC profile is damaged and was left out")
            return None
    if b"sRGB" in bodies:
        return None
    return raw if is_profile(raw) else stated_profile(bodies, grey)


def stated_profile(bodies: Mapping[bytes, bytes], grey: bool) -> bytes | None:
    """The ICC profile of what gAMA and cHRM state; None: they state nothing, or what cannot be.

    Where gAMA alone is missing, the usual 1/2.2 holds (PNG specification, 11.3.2).
    """
    stated, points = bodies.get(b"gAMA", b""), bodies.get(b"cHRM", b"")
    gamma = int.from_bytes(stated, "big") / 100000 if len(stated) == 4 else 0.0
    if not gamma and len(points) != 32:
        return None
    white, primaries = D65, REC709
    if len(points) == 32:
        numbers = tuple(number / 100000 for number in struct.unpack(">8I", points))
        if not are_chromaticities(numbers):
            return None
        white, primaries = numbers[:2], numbers[2:]
    return profile(1 / (gamma or 1 / 2.2), white=white, primaries=None if grey else primaries)


def physical_resolution(body: bytes) -> tuple[tuple[float, float] | None, str | None]:
    """(pixels per unit, x then y, or None; "centimetre" or None) of a pHYs chunk.

    Without a unit the two tell how oblong a pixel is; square ones say nothing.
    """
    if len(body) != 9:
        return None, None
    x, y, unit = struct.unpack(">IIB", body)
    if not x or not y or (unit != 1 and x == y):
        return None, None
    return ((x / 100, y / 100), "centimetre") if unit == 1 else ((float(x), float(y)), None)
