"""What OME-XML says of an image in a TIFF: sizes, positions, channels, significant bits."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import tifffile

from tierscale.pipeline.formats.metadata import Position

UNITS: Mapping[str, str] = {
    "µm": "micrometer",
    "μm": "micrometer",
    "um": "micrometer",
    "micron": "micrometer",
    "microns": "micrometer",
    "\\u00b5m": "micrometer",
    "nm": "nanometer",
    "mm": "millimeter",
    "cm": "centimeter",
    "m": "meter",
    "å": "angstrom",
    "pm": "picometer",
    "inch": "inch",
    "in": "inch",
}


TIMES: Mapping[str, str] = {
    "s": "second",
    "ms": "millisecond",
    "µs": "microsecond",
    "min": "minute",
    "h": "hour",
    "d": "day",
}


@dataclass(frozen=True, slots=True)
class StackInfo:
    """What scientific formats say of an image.

    size: of a pixel, y then x, in `unit`. names, colours, plane: as in PhotoMetadata.
    """

    size: tuple[float, float] | None = None
    unit: str | None = None
    names: tuple[str, ...] = ()
    colours: tuple[str, ...] = ()
    plane: tuple[Position, ...] = ()


def as_number(text: Any) -> float | None:
    """A GDAL no-data value, which is text in the file; None if it is no number."""
    try:
        return float(str(text).strip("\0 "))
    except ValueError:
        return None


def ome_info(description: str, number: int, at: Mapping[str, int]) -> StackInfo:
    """Pixel size, channel names and colours of image `number` in an OME-XML text.

    at: the selected plane, as in SelectedPages.
    """
    try:
        images = [
            element
            for element in ElementTree.fromstring(description)
            if element.tag.endswith("}Image")
        ]
        pixels = next(element for element in images[number] if element.tag.endswith("}Pixels"))
    except (ElementTree.ParseError, IndexError, StopIteration):
        return StackInfo()
    channels = [element for element in pixels if element.tag.endswith("}Channel")]
    names = tuple(channel.get("Name", "") for channel in channels)
    colours = [channel.get("Color") for channel in channels]
    y, x = as_number(pixels.get("PhysicalSizeY")), as_number(pixels.get("PhysicalSizeX"))
    unit = UNITS.get(pixels.get("PhysicalSizeXUnit", "µm").lower())
    measured = x and y and unit
    return StackInfo(
        size=(y, x) if x and y and unit else None,
        unit=unit if measured else None,
        names=names if any(names) else (),
        # OME stores RGBA as one signed 32-bit number.
        colours=tuple(f"{(int(colour) & 0xFFFFFFFF) >> 8:06X}" for colour in colours if colour)
        if all(colours)
        else (),
        plane=ome_positions(pixels, at),
    )


def ome_positions(pixels: ElementTree.Element, at: Mapping[str, int]) -> tuple[Position, ...]:
    """Where the selected plane lies: as it says itself, else by steps from the first."""
    steps = {"z": pixels.get("PhysicalSizeZ"), "t": pixels.get("TimeIncrement")}
    units = {
        "z": UNITS.get(pixels.get("PhysicalSizeZUnit", "µm").lower()),
        "t": TIMES.get(pixels.get("TimeIncrementUnit", "s")),
    }
    by_steps = positions(at, steps, units)
    planes = [element for element in pixels if element.tag.endswith("}Plane")]
    chosen = next((one for one in planes if is_plane(one, at)), None)
    if chosen is None:
        return by_steps
    names = {"z": ("PositionZ", UNITS), "t": ("DeltaT", TIMES)}
    found = []
    for axis, number in at.items():
        name, table = names[axis]
        place, unit = as_number(chosen.get(name)), chosen.get(f"{name}Unit")
        if place is None or (axis == "z" and unit is None):  # the default is a reference frame
            found += [one for one in by_steps if one.axis == axis]
        else:
            found.append(Position(axis, number, place, table.get(unit or "s")))
    return tuple(found)


def is_plane(plane: ElementTree.Element, at: Mapping[str, int]) -> bool:
    """Whether a Plane element tells of the first channel of the selected plane."""
    wanted = {"TheC": 0, "TheZ": at.get("z", 0), "TheT": at.get("t", 0)}
    return all(plane.get(name, "0") == str(number) for name, number in wanted.items())


def positions(
    at: Mapping[str, int], steps: Mapping[str, object], units: Mapping[str, str | None]
) -> tuple[Position, ...]:
    """Where the selected plane lies on each axis whose planes lie `steps` apart.

    Without a step it counts planes, and has no unit.
    """
    found = []
    for axis, number in at.items():
        step = as_number(steps.get(axis))
        known = step is not None
        place = number * step if step is not None else float(number)
        found.append(Position(axis, number, place, units.get(axis) if known else None))
    return tuple(found)


def significant_bits(tif: tifffile.TiffFile) -> int | None:
    """The SignificantBits that OME-XML states, if any."""
    if not tif.is_ome:
        return None
    stated = re.search(r'SignificantBits="(\d+)"', tif.pages.first.description or "")
    return int(stated[1]) if stated else None


def untold_stack(tif: tifffile.TiffFile) -> tifffile.TiffPageSeries | None:
    """The pages of an OME-TIFF whose XML does not say which page is which plane, in its order.

    None: it says so, or the file has another number of pages. Source: OME-TIFF specification,
    section "The TiffData element": without attributes, planes follow the DimensionOrder.
    """
    description = tif.pages.first.description if tif.is_ome else ""
    try:
        root = ElementTree.fromstring(description or "")
    except ElementTree.ParseError:
        return None
    images = [pixels for image in root for pixels in image if pixels.tag.endswith("}Pixels")]
    if len(images) != 1 or any(part.tag.endswith("}TiffData") for part in images[0]):
        return None
    order = images[0].get("DimensionOrder", "")
    samples = tif.pages.first.samplesperpixel
    sizes = {axis: as_number(images[0].get(f"Size{axis}")) or 1 for axis in "CZT"}
    sizes["C"] /= samples
    if sorted(order) != sorted("XYCZT") or math.prod(sizes.values()) != len(tif.pages):
        return None
    axes = "".join(reversed(order[2:]))
    stack = [int(sizes[axis]) for axis in axes]
    first = tif.pages.first
    if len(tif.pages) < 2 or any(page.shape != first.shape for page in tif.pages):
        return None
    pages = [tif.pages.get(number, aspage=True) for number in range(len(tif.pages))]
    shape, letters = (*stack, *first.shape), f"{axes}{first.axes}"
    series = tifffile.TiffPageSeries(pages, shape, first.dtype, letters, kind="ome")
    smaller = [list(page.pages or ()) for page in pages]
    for parts in map(list, zip(*smaller, strict=False)):
        size = (*stack, *parts[0].shape)
        series.levels.append(tifffile.TiffPageSeries(parts, size, first.dtype, letters, kind="ome"))
    return series
