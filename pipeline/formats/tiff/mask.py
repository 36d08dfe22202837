"""Masks of TIFF pages: pages that tell which pixels are valid, as GDAL writes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import tifffile

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.formats.source import Colour, Pixels, Samples, window_strips
from tierscale.pipeline.formats.tiff.pages import SelectedPages
from tierscale.pipeline.plan.value_range import holds

REDUCED, MASK = 1, 4
# What becomes of a kind of colours when the mask is put beside it as alpha.
WITH_ALPHA: dict[Colour, Colour] = {"grey": "greya", "rgb": "rgba"}


@dataclass(frozen=True, slots=True)
class MaskUse:
    """How a mask is told in the pixels: as alpha, or by a value where nothing is valid.

    value: of pixels that are not valid; None: alpha of 0, in a channel of its own where `added`.
    """

    samples: Samples
    metadata: PhotoMetadata
    value: float | None
    added: bool
    note: str


@dataclass(slots=True)
class MaskedPixels:
    """Pixels with their mask in them. mask: (1, y, x), not 0 where pixels are valid."""

    inner: Pixels
    mask: Pixels
    use: MaskUse
    shape: tuple[int, int, int] = field(init=False)
    dtype: np.dtype = field(init=False)
    random_access: bool = field(init=False)

    def __post_init__(self) -> None:
        channels, height, width = self.inner.shape
        self.shape = (channels + self.use.added, height, width)
        self.dtype = self.inner.dtype
        self.random_access = self.inner.random_access

    def read(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        """A window."""
        block = self.inner.read(y0, y1, x0, x1)
        valid = self.mask.read(y0, y1, x0, x1) != 0  # (1, y, x)
        if self.use.value is not None:
            return np.where(valid, block, np.asarray(self.use.value).astype(self.dtype))
        if self.use.added:
            top = np.asarray(np.iinfo(self.dtype).max, self.dtype)
            block = np.concatenate([block, np.where(valid, top, np.zeros_like(top))])
        else:
            block[-1:][~valid] = 0
        return block

    def strips(self) -> Iterator[tuple[int, np.ndarray]]:
        """Rows from top to bottom."""
        yield from window_strips(self)

    def close(self) -> None:
        """Close both files."""
        self.inner.close()
        self.mask.close()


def mask_of(tif: tifffile.TiffFile, selected: SelectedPages) -> SelectedPages | None:
    """The page of the mask of the selected one; None: it has none.

    Masks follow the page of full resolution, among its smaller levels, and have the size of theirs.
    """
    first, size = selected.full.index, selected.page.shape[:2]
    if not isinstance(first, int) or len(selected.planes) != 1:
        return None
    for number in range(first + 1, len(tif.pages)):
        page: Any = tif.pages.get(number, aspage=True)
        if not page.subfiletype & (REDUCED | MASK):
            return None
        if page.subfiletype & MASK and page.shape[:2] == size and page.samplesperpixel == 1:
            return replace(selected, page=page, planes=((page, 0),), notes=())
    return None


def mask_use(samples: Samples, dtype: np.dtype, metadata: PhotoMetadata, uri: str) -> MaskUse:
    """How the mask of an image is told in its pixels. Refused: they have no room for it."""
    stated = metadata.nodata
    if stated is not None and holds(stated, dtype):
        note = f"pixels outside its mask were set to the no-data value {stated:g}"
        return MaskUse(samples, metadata, stated, False, note)
    if dtype.kind == "f":
        metadata = replace(metadata, nodata=np.nan)
        return MaskUse(samples, metadata, np.nan, False, "pixels outside its mask were set to NaN")
    if samples.alpha is not None:
        return MaskUse(samples, metadata, None, False, "pixels outside its mask were made clear")
    colour = WITH_ALPHA.get(samples.colour)
    if colour is None:
        raise Refused(
            f"{uri}: its mask cannot be kept beside separate channels of {dtype.name} without a"
            " no-data value; give pixels outside it one, such as by gdalwarp -dstnodata 0"
        )
    samples = replace(samples, colour=colour, alpha="straight")
    metadata = replace(metadata, masked=metadata.geo is not None)
    return MaskUse(samples, metadata, None, True, "its mask was read as alpha")
