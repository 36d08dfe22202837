"""Any image becomes a Source: the content of a file decides its format, not its name."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.formats.arrays.array import array_source
from tierscale.pipeline.formats.arrays.zarr_array import METADATA, open_zarr
from tierscale.pipeline.formats.beside import read_beside
from tierscale.pipeline.formats.decoding import decoding
from tierscale.pipeline.formats.fingerprint import array_identity, selected, stamp_of
from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.formats.png.reader import open_png
from tierscale.pipeline.formats.raster.jpeg2000 import open_jpeg2000
from tierscale.pipeline.formats.raster.netpbm import open_npy, open_pnm
from tierscale.pipeline.formats.raster.pillow import open_raster
from tierscale.pipeline.formats.source import Alpha, Colour, Source
from tierscale.pipeline.formats.tiff.reader import open_tiff
from tierscale.pipeline.plan.options import Selection
from tierscale.pipeline.storage.path_policy import check_secrets
from tierscale.pipeline.storage.sidecar import SIDECAR_SUFFIX, sidecar

__all__ = [
    "READERS",
    "SUFFIXES",
    "Alpha",
    "Colour",
    "PhotoMetadata",
    "Reader",
    "Selection",
    "Source",
    "is_output",
    "open_array",
    "open_image",
]

# (offset, bytes) that tell a format.
Mark = tuple[int, bytes]
HEAD_BYTES = 512


@dataclass(frozen=True, slots=True)
class Reader:
    """How files of one format are known and opened.

    marks: any one of them tells the format.
    suffixes: of names that such files carry.
    open: (path, selection, max_bytes) -> Source.
    stacks: whether files hold pyramid levels and planes that a selection may choose.
    series: whether they hold several images.
    """

    marks: tuple[Mark, ...]
    suffixes: tuple[str, ...]
    open: Callable[[str, Selection, int | None], Source]
    stacks: bool = False
    series: bool = True


TIFF_SUFFIXES = (
    *(".tif", ".tiff", ".btf", ".tf8", ".svs", ".ndpi"),
    *(".scn", ".bif", ".cog", ".gtiff", ".lsm", ".qptiff"),
)
READERS: dict[str, Reader] = {
    "TIFF": Reader(
        ((0, b"II*\0"), (0, b"MM\0*"), (0, b"II+\0"), (0, b"MM\0+")),
        TIFF_SUFFIXES,
        open_tiff,
        stacks=True,
    ),
    "PNG": Reader(((0, b"\x89PNG\r\n\x1a\n"),), (".png", ".apng"), open_png, series=False),
    "JPEG": Reader(
        ((0, b"\xff\xd8\xff"),), (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), open_raster
    ),
    "WebP": Reader(((8, b"WEBP"),), (".webp",), open_raster),
    "AVIF": Reader(((4, b"ftypavif"), (4, b"ftypavis")), (".avif", ".avifs"), open_raster),
    "GIF": Reader(((0, b"GIF87a"), (0, b"GIF89a")), (".gif",), open_raster),
    "BMP": Reader(((0, b"BM"),), (".bmp", ".dib"), open_raster, series=False),
    "PNM": Reader(((0, b"P5"), (0, b"P6")), (".pgm", ".ppm", ".pnm"), open_pnm, series=False),
    "PBM": Reader(
        ((0, b"P4"), (0, b"P1"), (0, b"P2"), (0, b"P3")),
        (".pbm", ".pgm", ".ppm", ".pnm"),
        open_raster,
        series=False,
    ),
    "JPEG 2000": Reader(
        ((0, b"\0\0\0\x0cjP  "), (0, b"\xff\x4f\xff\x51")),
        (".jp2", ".j2k", ".jpx", ".jpf", ".j2c", ".jpc"),
        open_jpeg2000,
        series=False,
    ),
    "NumPy": Reader(((0, b"\x93NUMPY"),), (".npy",), open_npy, series=False),
}
# What names of images end in, zarr folders included.
SUFFIXES = frozenset({".zarr"}.union(*(reader.suffixes for reader in READERS.values())))
# Formats that are known by name only, so that a refusal can name them.
UNSUPPORTED: dict[str, tuple[Mark, ...]] = {
    "DICOM": ((128, b"DICM"),),
    "OpenEXR": ((0, b"\x76\x2f\x31\x01"),),
    "FLI or FLC animation": ((4, b"\x11\xaf"), (4, b"\x12\xaf")),
    "HEIF": ((4, b"ftyphe"), (4, b"ftypmif1"), (4, b"ftypmsf1")),
    "JPEG XL": ((0, b"\xff\x0a"), (0, b"\0\0\0\x0cJXL ")),
    "PDF": ((0, b"%PDF"),),
    "Photoshop": ((0, b"8BPS"),),
    "HDF5": ((0, b"\x89HDF"),),
    "FITS": ((0, b"SIMPLE  ="),),
    "ZIP (a .npz or zipped zarr must be unpacked)": ((0, b"PK\x03\x04"),),
    "video": ((4, b"ftyp"), (0, b"\x1aE\xdf\xa3"), (8, b"AVI ")),
    "gzip": ((0, b"\x1f\x8b"),),
    "SVG or other XML": ((0, b"<?xml"), (0, b"<svg")),
    "Radiance HDR": ((0, b"#?RADIANCE"), (0, b"#?RGBE")),
}
LFS_MARK = b"version https://git-lfs.github.com/spec/"

# Of a file that holds several images, the first.
WHOLE = Selection()


def open_image(
    uri: str | os.PathLike[str],
    selection: Selection = WHOLE,
    max_bytes: int | None = None,
) -> Source:
    """The image at `uri`: a path, a file:// URI or a URI of an object store.

    max_bytes: refuse what would take more bytes to decode (None: half of this machine's memory);
    checked before any pixel is decoded.
    Refused: it cannot be opened at all. Damaged: it is broken.
    """
    path = os.fspath(uri)
    path = path.removeprefix("file://")
    if "://" in path:
        check_secrets(path)
        return remote_image(path, selection, max_bytes)
    if os.path.isdir(path):
        return folder_image(path, selection, max_bytes)
    if os.path.exists(path) and not os.path.isfile(path):
        raise Refused(
            f"{path}: it is not a regular file (a pipe, a device or a socket); copy the image into"
            " one"
        )
    return file_image(path, selection, max_bytes)


def file_image(path: str, selection: Selection, max_bytes: int | None) -> Source:
    """A local file."""
    with decoding(path, "the file"), open(path, "rb") as file:
        stamp = stamp_of(path)
        head = file.read(HEAD_BYTES)
    name = format_of(head, path)
    reader = READERS[name]
    check_selection(reader, name, selection, path)
    source = replace(reader.open(path, selection, max_bytes), stamp=stamp)
    suffix = os.path.splitext(path)[1].lower()
    claimed = any(suffix in other.suffixes for other in READERS.values())
    if claimed and suffix not in reader.suffixes:
        source.notes = (f"it is named {suffix} but holds {name}", *source.notes)
    return read_beside(source, path, selection)


def is_output(path: str) -> bool:
    """Whether a path or URI is an output of ours, or the folder beside one.

    An output is known by that folder, which nothing else makes. Scanners pass over both, and do not
    descend into them.
    """
    name = path.rstrip("/").rsplit("/", 1)[-1]
    if name.endswith(SIDECAR_SUFFIX):
        return True
    return name.lower().endswith(".zarr") and sidecar(path).exists()


def format_of(head: bytes, path: str) -> str:
    """The key in READERS of a file that begins with `head`.

    Damaged: it is empty. Refused: the format is not supported; named where it is known.
    """
    if not head:
        raise Damaged(f"{path}: the file is empty; fetch it again")
    for name, reader in READERS.items():
        if any(head.startswith(mark, at) for at, mark in reader.marks):
            return name
    if head.startswith(LFS_MARK):
        raise Refused(
            f"{path}: it is a Git LFS pointer, not the image; run `git lfs pull` to fetch the image"
        )
    for name, marks in UNSUPPORTED.items():
        if any(head.startswith(mark, at) for at, mark in marks):
            raise Refused(f"{path}: the format {name} is not supported; convert it to TIFF or PNG")
    raise Refused(
        f"{path}: it is not an image of a known format (it begins with {head[:12]!r}); give one of"
        f" {', '.join(READERS)} or zarr"
    )


def check_selection(reader: Reader, name: str, selection: Selection, path: str) -> None:
    """Refuse to look for levels, planes or images that files of this format never hold."""
    wanted = (
        {"level": selection.level, "z": selection.z, "t": selection.t} if not reader.stacks else {}
    )
    wanted |= {"series": selection.series} if not reader.series else {}
    for option, value in wanted.items():
        if value:
            raise Refused(f"{path}: {name} files have no {option} {value}; leave out --{option}")


def folder_image(path: str, selection: Selection, max_bytes: int | None) -> Source:
    """A zarr in a local folder."""
    if not any(os.path.exists(os.path.join(path, name)) for name in METADATA):
        raise Refused(
            f"{path}: this folder is not a zarr (it has none of {', '.join(METADATA)}); name an"
            " image file or a zarr"
        )
    return open_zarr(path, selection, max_bytes)


def remote_image(uri: str, selection: Selection, max_bytes: int | None) -> Source:
    """A zarr or a file in an object store.

    Zarrs are read in place; a file is fetched, and ingested so that it is fetched seldom.
    """
    suffix = os.path.splitext(uri.rstrip("/"))[1].lower()
    if not any(suffix in reader.suffixes for reader in READERS.values()):
        return open_zarr(uri, selection, max_bytes)
    from tierscale.pipeline.storage.download import download

    with decoding(uri, "the object"):
        local, listed = download(uri)
    identity = {
        "format": "object",
        "bytes": listed.bytes,
        "etag": listed.etag,
        "selection": selected(selection),
    }
    source = open_image(local, selection, max_bytes)
    return replace(
        source, uri=uri, random_access=False, identify=partial(dict, identity), stamp=None
    )


def open_array(array: Any, axes: str) -> Source:
    """A numpy, dask or zarr array as a source; axes "cyx", "yxc" or "yx".

    Three channels are RGB, four RGBA, any other number greys. Refused: it is no image.
    """
    return array_source(array, axes, "the array", partial(array_identity, array, axes))
