"""What all exports share: reading the pyramid, a temporary name, progress, pixels per metre."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import zarr

from tierscale.pipeline.errors import Damaged, Refused, one_line
from tierscale.pipeline.formats.decoding import decoding
from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.storage.failures import DENIED, storage_failure

Progress = Callable[[int, int], None]

METRES: Mapping[str, float] = {
    "angstrom": 1e-10, "picometer": 1e-12, "nanometer": 1e-9, "micrometer": 1e-6, "millimeter": 1e-3, "centimeter": 1e-2, "meter": 1.0,
    "inch": 0.0254,
}  # fmt: skip


def open_levels(zarr_path: str) -> list[Any]:
    """The arrays of all pyramid levels of an OME-Zarr, full resolution first."""
    try:
        group: Any = zarr.open_group(zarr_path, mode="r")
        return [group[entry["path"]] for entry in group.attrs["ome"]["multiscales"][0]["datasets"]]
    except (
        Exception
    ) as error:  # no group, no metadata, no array: all mean that there is nothing to export
        raise Refused(
            f"{zarr_path}: it is no OME-Zarr image ({one_line(error)}); name an output of tierscale"
        ) from error


def check_folder(out: str) -> None:
    """Refuse a file in a folder that is not there."""
    folder = os.path.dirname(os.path.abspath(out))
    if not os.path.isdir(folder):
        raise Refused(f"{out}: there is no folder {folder}; make it, or choose another place")


@contextmanager
def finished(out: str) -> Iterator[str]:
    """A temporary name beside `out` that takes its place only if the block ends well. Refused:
    nothing can be written there.
    """
    check_folder(out)
    if os.path.isdir(out):
        raise Refused(f"{out}: it is a folder; name a file in it")
    temporary = f"{out}.part{os.getpid()}"
    try:
        yield temporary
        os.replace(temporary, out)
    except OSError as error:
        if error.errno in DENIED:
            raise storage_failure(out, error) from error
        raise Damaged(
            f"{out}: it cannot be written ({one_line(error)}); free space or choose another place"
        ) from error
    finally:
        with suppress(OSError):  # it may never have come to be
            os.remove(temporary)


class Counter:
    """Counts items on their way to the file and tells `progress` of (items so far, total)."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.total, self.progress, self.done = total, progress, 0

    def through(self, items: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """The items, counted."""
        for item in items:
            self.done += 1
            if self.progress:
                self.progress(self.done, self.total)
            yield item


def per_metre(facts: PhotoMetadata) -> tuple[float, float] | None:
    """Pixels per metre, x then y, from the resolution or else the physical size of a pixel."""
    if facts.resolution and facts.resolution_unit:
        length = 0.0254 if facts.resolution_unit == "inch" else 0.01
        return facts.resolution[0] / length, facts.resolution[1] / length
    if facts.pixel_size and facts.pixel_unit and facts.pixel_unit in METRES:
        return 1 / (facts.pixel_size[1] * METRES[facts.pixel_unit]), 1 / (
            facts.pixel_size[0] * METRES[facts.pixel_unit]
        )
    return None


def read_part(zarr_path: str, level: Any, part: tuple[Any, ...]) -> np.ndarray:
    """A part of a level; Damaged, naming the zarr, if it cannot be read. What goes wrong while
    writing is told apart by `finished`.
    """
    with decoding(zarr_path, "the output zarr"):
        return np.asarray(level[part])
