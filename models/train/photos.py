"""Photos decoded once into memory, with their shrunken versions, and random crops of both."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.train.degrade import shrink

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})


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
        """The same photo in a device's memory, so that crops need not be brought there step by step."""
        return Photo(self.name, self.hr.to(device), self.lr.to(device))


def image_files(folder: Path) -> list[Path]:
    """Image files of `folder` in order of name; ValueError when there are none."""
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise ValueError(f"{folder} holds no image files ({', '.join(sorted(SUFFIXES))}); give a folder that does")
    return files


def read_image(path: Path) -> Tensor:
    """An image file as RGB, uint8, (3, H, W); ValueError when it cannot be decoded or has more than 8 bits."""
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"{path} holds more than 8 bits ({image.mode}); give photos of 8 bits")
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()
    except (OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be decoded ({error}); take it out of the folder or mend it") from error


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
    """Pair an image (3, H, W), uint8, cropped to a multiple of `scale`, with its shrunken version."""
    hr = centre_crop(image, scale)
    return Photo(name, hr, shrink(hr / 255, Fraction(scale)))


def read_photos(folder: Path, scale: int, smallest: int) -> list[Photo]:
    """All photos of `folder` of at least `smallest` shrunken pixels a side."""
    photos = [photo(path.name, read_image(path), scale) for path in image_files(folder)]
    large = [p for p in photos if min(p.lr.shape[-2:]) >= smallest]
    if not large:
        raise ValueError(f"no image in {folder} has {smallest * scale} pixels a side, which crops of {smallest} at scale {scale} need")
    return large


def hold_out(photos: Sequence[Photo], every: int = 23) -> tuple[list[Photo], list[Photo]]:
    """Split into photos to train on and photos to watch progress on, never the same ones unless there is only one."""
    watched = list(photos[::every])
    trained = [p for index, p in enumerate(photos) if index % every] or watched
    return trained, watched


def draw(photos: Sequence[Photo], crop: int, batch: int, seed: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Random crops, flipped and transposed: (batch, 3, crop, crop) and (batch, 3, scale * crop, scale * crop), float32, 0..1.

    Everything follows from `seed` (of the run, step), so that a resumed run draws what the unbroken one would have.
    Larger photos are drawn more often, in proportion to their area.
    """
    rng = np.random.default_rng(seed)
    area = np.array([p.lr[0].numel() for p in photos], dtype=np.float64)
    small, large = [], []
    for index in rng.choice(len(photos), size=batch, p=area / area.sum()):
        lr, hr = photos[index].lr, photos[index].hr
        scale = hr.shape[-1] // lr.shape[-1]
        y, x = (int(rng.integers(size - crop + 1)) for size in lr.shape[-2:])
        pair = [lr[:, y : y + crop, x : x + crop], hr[:, y * scale : (y + crop) * scale, x * scale : (x + crop) * scale]]
        flips = [dim for dim in (-2, -1) if rng.random() < 0.5]
        pair = [part.flip(flips) for part in pair]
        if rng.random() < 0.5:
            pair = [part.transpose(-2, -1) for part in pair]
        small.append(pair[0])
        large.append(pair[1])
    return torch.stack(small), torch.stack(large).float().div_(255)
