"""The images that a TIFF holds, and which of them is meant: previews and camera raws are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tifffile

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.tiff.ome import untold_stack

# Kinds of series in which tifffile knows no more than that pages have the same size: each page is
# an image of its own.
PLAIN_KINDS = ("generic", "uniform")
# Photometric interpretations of sensors (DNG 1.7, TIFF/EP), the tag of a DNG, the mark of a CR2.
SENSOR_PHOTOMETRICS = (32803, 34892)
DNG_VERSION = 50706
CR2_MARK = (8, b"CR\x02")


@dataclass(frozen=True, slots=True)
class Picture:
    """One image of a TIFF.

    page: its number in the series where each page is an image of its own, else None.
    """

    series: Any
    page: int | None

    @property
    def stored(self) -> Any:
        """The page that says how it is stored; None: it lies in another file.

        Of a page that tifffile took for one like the first, its own directory is read.
        """
        if self.page is None:
            return self.series.keyframe
        pages = self.series.pages
        page = pages[self.page] if self.page < len(pages) else None
        return page.aspage() if isinstance(page, tifffile.TiffFrame) else page

    @property
    def place(self) -> tuple[int, ...]:
        """Where its page stands in the file: number of the page, and of a SubIFD of it."""
        page = self.series.pages[self.page or 0]
        index = 0 if page is None else page.index
        return (index,) if isinstance(index, int) else tuple(index)

    @property
    def size(self) -> str:
        """Its size, as a person writes it."""
        page = self.stored
        return "unknown size" if page is None else f"{page.imagewidth} x {page.imagelength} pixels"

    @property
    def is_reduced(self) -> bool:
        """Whether the file says that it is a smaller version of another image."""
        page = self.stored
        return page is not None and bool(page.is_reduced)

    @property
    def is_sensor(self) -> bool:
        """Whether its samples are those of a camera's sensor."""
        page = self.stored
        return page is not None and int(page.photometric) in SENSOR_PHOTOMETRICS


def list_images(tif: tifffile.TiffFile) -> list[Picture]:
    """The images of a file, in the order of its pages; masks are left out."""
    pictures: list[Picture] = []
    for series in all_series(tif):
        loose = series.kind in PLAIN_KINDS and len(series.pages) > 1
        numbers: Sequence[int | None] = range(len(series.pages)) if loose else (None,)
        pictures += [Picture(series, page) for page in numbers]
    if {picture.series.kind for picture in pictures} <= set(PLAIN_KINDS):
        # tifffile gives pages of one size together.
        pictures.sort(key=lambda picture: picture.place)
    return [picture for picture in pictures if not picture.series.keyframe.is_mask] or pictures


def all_series(tif: tifffile.TiffFile) -> list[Any]:
    """The series that tifffile finds.

    Of many pages it compares four, and stumbles over others that differ; then it looks at each.
    """
    untold = untold_stack(tif)
    if untold is not None:
        return [untold]
    try:
        return tif.series
    except RuntimeError:
        tif.is_uniform = False
        return tif.series


def chosen_image(
    tif: tifffile.TiffFile, images: Sequence[Picture], wanted: int | None, uri: str
) -> tuple[int, list[str]]:
    """The number of the image that is meant, and notes. wanted: the one that was asked for.

    Without a wish it is the first that is no reduced version of another. Refused: there is no such
    image; a camera raw is to be enlarged, and not its preview.
    """
    if wanted is not None and not 0 <= wanted < len(images):
        raise Refused(
            f"{uri}: there is no image {wanted}; --series goes from 0 to {len(images) - 1}"
        )
    number = wanted
    if number is None:
        full = (index for index, image in enumerate(images) if not image.is_reduced)
        number = next(full, 0)
    if is_camera_raw(tif, images):
        check_preview(images, wanted, number, uri)
        return number, [f"took a preview of {images[number].size} of a camera raw"]
    if len(images) == 1:
        return number, []
    note = f"took image {number} of {len(images)} in the file, {images[number].size}"
    if wanted is None and number:
        note += f"; image 0 is a preview of {images[0].size}"
    return number, [f"{note} (--series chooses)"]


def is_camera_raw(tif: tifffile.TiffFile, images: Sequence[Picture]) -> bool:
    """Whether this is what a camera's sensor gave, with or without previews."""
    at, mark = CR2_MARK
    tif.filehandle.seek(at)
    if tif.filehandle.read(len(mark)) == mark or DNG_VERSION in tif.pages.first.tags:
        return True
    # Pages of one series are alike.
    firsts = [image for image in images if not image.page]
    return any(image.is_sensor for image in firsts)


def check_preview(images: Sequence[Picture], wanted: int | None, number: int, uri: str) -> None:
    """Refused: the image of a camera raw that is meant is not a preview that was asked for."""
    if wanted is not None and images[number].is_reduced and not images[number].is_sensor:
        return
    previews = [
        f"--series {index} ({image.size})"
        for index, image in enumerate(images)
        if image.is_reduced and not image.is_sensor
    ]
    other = f", or take its preview by {' or '.join(previews)}" if previews else ""
    raise Refused(
        f"{uri}: it is a camera raw, whose sensor values are no picture yet; develop it to TIFF"
        f" with a raw converter{other}"
    )
