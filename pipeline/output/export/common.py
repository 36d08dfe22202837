"""What all exports share: the output to export, a temporary name, progress, pixels per metre."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import zarr

from tierscale.pipeline.errors import Damaged, Refused, one_line
from tierscale.pipeline.formats.decoding import decoding
from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.storage.failures import DENIED, storage_failure
from tierscale.pipeline.storage.paths import sync_file, sync_folder, sync_tree

# Called with (items written, all of them).
Progress = Callable[[int, int], None]

# Added to the name of a folder while it is written, and to that of the one that it replaces.
ENDS = ("part", "old")
METRES: Mapping[str, float] = {
    "angstrom": 1e-10,
    "picometer": 1e-12,
    "nanometer": 1e-9,
    "micrometer": 1e-6,
    "millimeter": 1e-3,
    "centimeter": 1e-2,
    "meter": 1.0,
    "inch": 0.0254,
}


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Exported:
    """An output to export.

    path: of its OME-Zarr. colour, alpha: kinds of channels and of alpha, as in Source. metadata:
    of the output. flat: write all bands into one page, whatever they are.
    """

    path: str
    colour: str
    alpha: str | None
    metadata: PhotoMetadata
    flat: bool = False

    @property
    def is_raster(self) -> bool:
        """Whether its bands belong into one page: it is a map, or this was asked for."""
        return bool(self.metadata.geo) or self.flat

    @property
    def has_mask(self) -> bool:
        """Whether it is a map whose last channel tells which pixels are valid."""
        return self.is_raster and self.metadata.masked and self.alpha is not None

    @property
    def has_planes(self) -> bool:
        """Whether each channel is a page of its own, as in microscopy."""
        return self.colour == "channels" and not self.is_raster

    def name(self) -> str:
        """What the OME-Zarr calls the image; else the name of its folder."""
        ome: Any = zarr.open_group(self.path, mode="r").attrs.get("ome") or {}
        images = ome.get("multiscales") or [{}]
        return str(images[0].get("name") or os.path.basename(self.path.rstrip("/")))

    def levels(self) -> list[zarr.Array]:
        """The arrays of all pyramid levels, full resolution first. Refused: no OME-Zarr."""
        try:
            group = zarr.open_group(self.path, mode="r")
            ome: Any = group.attrs["ome"]
            names = [str(entry["path"]) for entry in ome["multiscales"][0]["datasets"]]
            return [_array(group, name) for name in names]
        # No group, no metadata, no array: all mean that there is nothing to export.
        except Exception as error:
            raise Refused(
                f"{self.path} is not an OME-Zarr image ({one_line(error)}); name an output of"
                " tierscale"
            ) from error

    def read(self, level: zarr.Array, part: tuple[Any, ...]) -> np.ndarray:
        """A part of a level. Damaged: it cannot be read; errors of writing are the caller's."""
        with decoding(self.path, "the output zarr"):
            return np.asarray(level[part])


def _array(group: zarr.Group, name: str) -> zarr.Array:
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise TypeError(f"{name} is a group, not an array")
    return array


def check_folder(out: str) -> None:
    """Refuse a file in a folder that does not exist."""
    folder = os.path.dirname(os.path.abspath(out))
    if not os.path.isdir(folder):
        raise Refused(f"{out}: there is no folder {folder}; create it, or choose another place")


@contextmanager
def _written(out: str) -> Iterator[None]:
    """Raise errors of the disk as Refused, where nothing can be written, or Damaged."""
    try:
        yield
    except OSError as error:
        if error.errno in DENIED:
            raise storage_failure(out, error) from error
        raise Damaged(
            f"{out} cannot be written ({one_line(error)}); free space or choose another place"
        ) from error


@contextmanager
def whole_file(out: str) -> Iterator[str]:
    """A temporary name beside `out` that replaces it only if the block ends well.

    Refused: nothing can be written there. Damaged: the disk is full, or fails.
    """
    check_folder(out)
    if os.path.isdir(out):
        raise Refused(f"{out} is a folder; name a file in it")
    temporary = f"{out}.part{os.getpid()}"
    try:
        with _written(out):
            yield temporary
            sync_file(Path(temporary))
            os.replace(temporary, out)
            sync_folder(Path(out).absolute().parent)
    finally:
        with suppress(OSError):  # it may never have been created
            os.remove(temporary)


@contextmanager
def whole_folder(out: str) -> Iterator[str]:
    """A temporary folder beside `out` that replaces it only if the block ends well.

    Refused: nothing can be written there. Damaged: the disk is full, or fails.
    """
    check_folder(out)
    target = Path(out.rstrip("/"))
    temporary, replaced = (target.with_name(f"{target.name}.{end}{os.getpid()}") for end in ENDS)
    try:
        with _written(out):
            temporary.mkdir()
            yield str(temporary)
            sync_tree(temporary)
            if target.exists():
                target.rename(replaced)
            temporary.rename(target)
            sync_folder(target.absolute().parent)
    finally:
        for left in (temporary, replaced):
            shutil.rmtree(left, ignore_errors=True)


def with_progress(items: Iterable[T], total: int, progress: Progress | None) -> Iterator[T]:
    """The items; `progress` is called with (items so far, total) at each."""
    for number, item in enumerate(items, 1):
        if progress:
            progress(number, total)
        yield item


def per_metre(metadata: PhotoMetadata) -> tuple[float, float] | None:
    """Pixels per metre, x then y, from the resolution or else the physical size of a pixel."""
    if metadata.resolution and metadata.resolution_unit:
        length = 0.0254 if metadata.resolution_unit == "inch" else 0.01
        return metadata.resolution[0] / length, metadata.resolution[1] / length
    if metadata.pixel_size and metadata.pixel_unit and metadata.pixel_unit in METRES:
        return 1 / (metadata.pixel_size[1] * METRES[metadata.pixel_unit]), 1 / (
            metadata.pixel_size[0] * METRES[metadata.pixel_unit]
        )
    return None
