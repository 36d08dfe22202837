"""Which pages of a TIFF make up the selected image: series, level, plane of a stack, channels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import tifffile

from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.formats.tiff.images import chosen_image, list_images
from tierscale.pipeline.plan.options import Selection

STACK_AXES: Mapping[str, str] = {"Z": "z", "T": "t"}


@dataclass(frozen=True, slots=True)
class SelectedPages:
    """One image of a TIFF.

    page: the page that says how all planes are stored.
    planes: for each channel page of a stack its page and the number of planes that its data lies
        beyond the page's offset (0 but for ImageJ stacks, which have one directory for all planes).
    kind: the series kind of tifffile, such as "ome", "imagej", "svs".
    number: of the series or page.
    notes: what was chosen.
    full: the page of full resolution of which `page` may be a smaller level.
    at: number of the selected plane on the axes of a stack, "z" and "t".
    """

    page: Any
    planes: tuple[tuple[Any, int], ...]
    kind: str
    number: int
    notes: tuple[str, ...]
    full: Any
    at: Mapping[str, int] = field(default_factory=dict)

    @property
    def reduction(self) -> tuple[float, float]:
        """How many pixels of full resolution a pixel has in width and in height."""
        wide, high = (getattr(self.full, name) for name in ("imagewidth", "imagelength"))
        return wide / self.page.imagewidth, high / self.page.imagelength


def select_pages(tif: tifffile.TiffFile, selection: Selection, uri: str) -> SelectedPages:
    """The pages of the selected image. Refused: there is none. Damaged: pages are missing."""
    images = list_images(tif)
    if not images:
        raise Damaged(
            f"{uri}: the TIFF file holds no page directory; it is cut short, fetch it again"
        )
    number, notes = chosen_image(tif, images, selection.series, uri)
    picture = images[number]
    series = picture.series
    levels = series.levels
    if not 0 <= selection.level < len(levels):
        raise Refused(
            f"{uri}: there is no pyramid level {selection.level}; --level goes from 0 to"
            f" {len(levels) - 1}"
        )
    if selection.level:
        notes.append(f"took pyramid level {selection.level} of {len(levels)}")
    level = levels[selection.level]
    if picture.page is None:
        planes = stack_planes(level, selection, uri, notes)
    else:
        check_no_planes(selection, len(images), uri)
        planes = [(picture.stored, 0)]
    if any(page is None for page, _ in planes):
        raise Damaged(
            f"{uri}: the image lies partly in other files, which are not opened; join them into one"
            " file"
        )
    page = level.keyframe if picture.page is None else planes[0][0]
    full = levels[0].keyframe if picture.page is None else page
    at = {
        name: getattr(selection, name) or 0
        for axis, name in STACK_AXES.items()
        if picture.page is None and axis in level.axes
    }
    return SelectedPages(page, tuple(planes), series.kind, number, tuple(notes), full, at)


def check_no_planes(selection: Selection, count: int, uri: str) -> None:
    """Refuse to look for a plane of a stack where each page is an image of its own."""
    for name in STACK_AXES.values():
        if getattr(selection, name):
            raise Refused(
                f"{uri}: --{name} {getattr(selection, name)} was given, but its {count} pages are"
                " images of their own; choose one with --series"
            )


def axis_names(leading: Sequence[str]) -> dict[str, str]:
    """The options that choose on the axes of a stack. One that is not named is chosen by z."""
    names = {axis: STACK_AXES[axis] for axis in leading if axis in STACK_AXES}
    others = [axis for axis in leading if axis not in (*STACK_AXES, "C")]
    return names | {others[0]: "z"} if len(others) == 1 and "Z" not in names else names


def stack_planes(
    level: Any, selection: Selection, uri: str, notes: list[str]
) -> list[tuple[Any, int]]:
    """The planes, one for each channel page, of a series with axes such as TZCYX.

    Appends what was chosen to `notes`. Refused: there is no such plane. Damaged: pages are missing.
    """
    leading = [
        (axis, size)
        for axis, size in zip(level.axes, level.shape, strict=True)
        if axis not in "YXS"
    ]
    names = axis_names([axis for axis, _ in leading])
    chosen = {
        axis: choose((axis, names.get(axis)), size, selection, uri, notes)
        for axis, size in leading
        if axis != "C"
    }
    for name in STACK_AXES.values():
        if getattr(selection, name) and name not in names.values():
            raise Refused(
                f"{uri}: --{name} {getattr(selection, name)} was given, but the image has no"
                " such axis; leave it out"
            )
    indices = [0]
    for axis, size in leading:
        steps = range(size) if axis == "C" else (chosen[axis],)
        indices = [index * size + step for index in indices for step in steps]
    count = math.prod(size for _, size in leading)
    pages = list(level.pages)
    if len(pages) == count:
        return [(pages[index], 0) for index in indices]
    if len(pages) == 1:
        return [(pages[0], index) for index in indices]
    raise Damaged(
        f"{uri}: the file declares {count} planes but holds {len(pages)} pages; it is cut short,"
        " fetch it again"
    )


def choose(
    axis: tuple[str, str | None], size: int, selection: Selection, uri: str, notes: list[str]
) -> int:
    """The position on one axis of a stack: the selected one, or the first.

    axis: its letter, and the option that chooses on it. Appends what was chosen to `notes`.
    Refused: there is no such position.
    """
    letter, name = axis
    wanted = (getattr(selection, name) if name else None) or 0
    if not 0 <= wanted < size:
        raise Refused(f"{uri}: there is no {name}={wanted}; --{name} goes from 0 to {size - 1}")
    if size > 1:
        notes.append(
            f"took plane {name or letter}={wanted} of {size}"
            + (f" (--{name} chooses)" if name else "")
        )
    return wanted
