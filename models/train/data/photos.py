"""Photos decoded once into memory, with their shrunken versions, and random crops of both."""

import hashlib
import json
import os
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, TiffImageFile
from torch import Tensor

from tierscale.models.train.data.shrink import shrink

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
# Shrunken pixels a side that an image must have to be watched: two go when its border is shaved,
# and ClassSR needs four.
MEASURABLE = 4


@dataclass(frozen=True, slots=True)
class Photo:
    """One photo and what a network is given to make it from.

    name: file name.
    hr: (3, scale * h, scale * w), uint8.
    lr: (3, h, w), float32, 0..1 but for overshoots, not rounded.
    """

    name: str
    hr: Tensor
    lr: Tensor

    def on(self, device: torch.device) -> "Photo":
        """The same photo in a device's memory.

        Crops need not be brought there step by step.
        """
        return Photo(self.name, self.hr.to(device), self.lr.to(device))


def image_files(folder: Path) -> list[Path]:
    """Image files of `folder` in order of name, but for hidden ones.

    ValueError: there are none, or no such folder.
    """
    if not folder.is_dir():
        raise ValueError(
            f"{folder} is a file; give the folder it is in"
            if folder.exists()
            else f"there is no folder {folder}; give one"
        )
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise ValueError(
            f"{folder} cannot be listed ({error}); give a folder that can be read"
        ) from error
    files = [
        path
        for path in entries
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    ]
    if not files:
        what = "holds no image files" if entries else "is empty: it holds no image files"
        raise ValueError(
            f"{folder} {what} ({', '.join(sorted(SUFFIXES))}); give a folder that does"
        )
    return files


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """An image file of 8 bits whose pixels are not decoded yet.

    ValueError: it has more bits, or opening or decoding it fails.
    """
    # Scans are larger than what Pillow takes for an attack; check_memory() says what this machine
    # can hold.
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with Image.open(path) as image:
            deep = has_deep_pixels(image)
            if not deep:
                yield image
    # Pillow's readers raise these of damaged headers, and of colours that do not become RGB.
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        raise ValueError(
            f"{path} cannot be decoded ({error}); take it out of the folder or mend it"
        ) from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    if deep:
        raise ValueError(
            f"{path} holds more than 8 bits a channel, which training does not read; convert it to"
            " 8 bits"
        )


def has_deep_pixels(image: Image.Image) -> bool:
    """Whether an opened image has more than 8 bits.

    Pillow cuts them to 8 without a word when there are three channels.
    """
    if isinstance(image, TiffImageFile):
        return max(image.tag_v2.get(BITSPERSAMPLE, (1,))) > 8
    # What the decoder reports of PNG ends like RGB;16B; in BMP a 16 counts the bits of all
    # channels together.
    return image.mode.startswith(("I", "F")) or (
        isinstance(image, PngImageFile) and any(";16" in str(tile.args) for tile in image.tile)
    )


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of an image file, from its header alone.

    ValueError: it cannot be opened or has more than 8 bits.
    """
    with opened(path) as image:
        width, height = image.size
    return height, width


def image_sizes(folder: Path) -> dict[Path, tuple[int, int]]:
    """Height and width of each image file of a folder, in order of name."""
    return {path: image_size(path) for path in image_files(folder)}


def read_image(path: Path) -> Tensor:
    """An image file as RGB, uint8, (3, H, W), as it is stored, whichever way up.

    ValueError: it cannot be decoded or has more bits.
    """
    with opened(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()


def machine_memory() -> int:
    """Bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_memory(folder: Path, sizes: Collection[tuple[int, int]], scale: int) -> None:
    """Refuse, before any is decoded, images (heights, widths) that take too much memory together.

    Too much is more than half of this machine's.
    """
    pixels = [height * width for height, width in sizes]
    # Kept: three values and their shrunken versions as floats. For a while, of one image: Pillow's
    # copies and numpy's.
    needed, allowed = (
        sum(pixels) * (3 + 12 / scale**2) + 11 * max(pixels, default=0),
        machine_memory() / 2,
    )
    if needed > allowed:
        raise ValueError(
            f"the images in {folder} would take {needed / 2**30:.1f} GiB of memory, more than half"
            f" of this machine's, {allowed / 2**30:.1f} GiB; cut the scans into pieces and give"
            " fewer of them"
        )


def is_grey(path: Path) -> bool:
    """Whether a file is stored with a single channel."""
    with Image.open(path) as image:
        return len(image.getbands()) == 1 and image.mode != "P"


def centre_crop(image: Tensor, scale: int) -> Tensor:
    """The central part of (C, H, W) whose height and width are multiples of `scale`."""
    height, width = (size - size % scale for size in image.shape[-2:])
    top, left = (image.shape[-2] - height) // 2, (image.shape[-1] - width) // 2
    return image[..., top : top + height, left : left + width].contiguous()


def photo(name: str, image: Tensor, scale: int) -> Photo:
    """An image (3, H, W), uint8, cropped to a multiple of `scale`, and its shrunken version."""
    hr = centre_crop(image, scale)
    # Divided last, a large photo is never held in floats.
    return Photo(name, hr, shrink(hr, scale).div_(255))


def decoded(folder: Path, sizes: Mapping[Path, tuple[int, int]], scale: int) -> list[Photo]:
    """Photos of a folder whose heights and widths are known.

    ValueError: memory would run out.
    """
    check_memory(folder, sizes.values(), scale)
    return [photo(path.name, read_image(path), scale) for path in sizes]


def read_photos(folder: Path, scale: int, smallest: int) -> list[Photo]:
    """All photos of `folder` of at least `smallest` shrunken pixels a side.

    ValueError: there are none, or memory would run out.
    """
    sizes = {
        path: size for path, size in image_sizes(folder).items() if min(size) // scale >= smallest
    }
    if not sizes:
        raise ValueError(
            f"no image in {folder} has {smallest * scale} pixels a side, which crops of {smallest}"
            f" at scale {scale} need"
        )
    return decoded(folder, sizes, scale)


def read_watched(folder: Path, scale: int) -> list[Photo]:
    """All photos of `folder`; ValueError naming one that is too small to be measured."""
    sizes = image_sizes(folder)
    for path, size in sizes.items():
        if min(size) // scale < MEASURABLE:
            raise ValueError(
                f"{path} of {size[1]}x{size[0]} pixels is too small to watch at scale {scale}; give"
                f" {MEASURABLE * scale} a side or more"
            )
    return decoded(folder, sizes, scale)


def digest(sizes: Mapping[Path, tuple[int, int]]) -> str:
    """How many images there are, and a digest of their names and sizes, in order."""
    content = json.dumps([(path.name, size) for path, size in sizes.items()])
    return f"{len(sizes)} images {hashlib.sha256(content.encode()).hexdigest()[:12]}"


def hold_out(
    photos: Sequence[Photo], crop: int, every: int = 23
) -> tuple[list[Photo], list[Photo]]:
    """Split into photos to train on and to watch progress on.

    Of a single one the lower eighth is watched, `crop` shrunken pixels at least; where it is too
    small to be cut, it is both.
    """
    if len(photos) > 1:
        return [p for index, p in enumerate(photos) if index % every], list(photos[::every])
    whole = photos[0]
    height, scale = whole.lr.shape[-2], whole.hr.shape[-1] // whole.lr.shape[-1]
    cut = height - max(height // 8, crop, MEASURABLE)
    if cut < crop:
        return [whole], [whole]
    upper = Photo(whole.name, whole.hr[:, : scale * cut], whole.lr[:, :cut])
    return [upper], [Photo(whole.name, whole.hr[:, scale * cut :], whole.lr[:, cut:])]


def same(photos: Sequence[Photo], watched: Sequence[Photo]) -> list[str]:
    """Names of the watched photos whose pixels are those of one that is trained on."""

    def equal(one: Tensor, other: Tensor) -> bool:
        # Photos of one camera have one size; their first rows tell them apart at once.
        return (
            one.shape == other.shape
            and torch.equal(one[:, 0], other[:, 0])
            and torch.equal(one, other)
        )

    return [seen.name for seen in watched if any(equal(seen.hr, photo.hr) for photo in photos)]
