"""Draws docs/crops.png and docs/photo.png: enlarged crops beside bicubic, at 100 %.

`python -m docs.draw_photo`. crops.png: a clean picture, and a JPEG as it was published. photo.png:
one picture with known damage, enlarged by bicubic, the clean family and the photo family.
"""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import skimage.data
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

import tierscale
from tierscale.models.train.data.degradations import degrade, seeded
from tierscale.models.train.data.shrink import shrink

DOCS = Path(__file__).parent
SCALE = 4
CLEAN, PHOTO = "edsr64-x4", "edsr-x4-photo"
DAMAGE = ("clean", "jpeg50", "grain8", "grain8+jpeg60", "blur1+jpeg60")
# Height of a title, and the gap between fields, in pixels.
TITLE, GAP = 24, 6

# Top, left, height and width of a part of an input.
Part = tuple[int, int, int, int]


def enlarged(pixels: np.ndarray, tier: str, part: Part) -> np.ndarray:
    """A part of an input (h, w, 3), uint8, enlarged with what lies around it."""
    result = tierscale.upscale_array(pixels, Fraction(SCALE), tiers=tier, axes="yxc")
    y, x, height, width = (value * SCALE for value in part)
    return np.asarray(result)[y : y + height, x : x + width]


def nearest(pixels: np.ndarray, part: Part) -> np.ndarray:
    """The input itself, a square for each pixel."""
    y, x, height, width = part
    inner = pixels[y : y + height, x : x + width]
    return inner.repeat(SCALE, axis=0).repeat(SCALE, axis=1)


def page(rows: Sequence[Sequence[tuple[str, np.ndarray]]], file: Path) -> None:
    """Write titled fields of one size, in rows, pixel by pixel."""
    height, width = rows[0][0][1].shape[:2]
    tall, wide = height + TITLE + GAP, width + GAP
    sheet = Image.new("RGB", (wide * len(rows[0]) - GAP, tall * len(rows) - GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for row, fields in enumerate(rows):
        for column, (title, pixels) in enumerate(fields):
            draw.text((column * wide + 2, row * tall + 3), title, fill="black", font=font)
            sheet.paste(Image.fromarray(pixels), (column * wide, row * tall + TITLE))
    sheet.save(file, optimize=True)
    print(f"{file} is drawn")


def small(picture: np.ndarray) -> Tensor:
    """A picture (h, w, 3), uint8, shrunk by the scale: (3, h, w), 0..1."""
    tall, wide = (side // SCALE * SCALE for side in picture.shape[:2])
    return shrink(torch.from_numpy(picture[:tall, :wide]).permute(2, 0, 1), SCALE) / 255


def levels(picture: Tensor) -> np.ndarray:
    """A picture (3, h, w), 0..1, as (h, w, 3), uint8."""
    return (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def draw_crops() -> None:
    """A clean picture and a published JPEG, by bicubic and by the networks that suit them."""
    rows = []
    clean = levels(small(skimage.data.astronaut()))
    for title, pixels, tier, part in (
        ("clean photo", clean, CLEAN, (14, 40, 60, 80)),
        ("photo as published, JPEG", skimage.data.rocket(), PHOTO, (165, 265, 60, 80)),
    ):
        rows.append(
            [
                (title, nearest(pixels, part)),
                ("bicubic", enlarged(pixels, "bicubic", part)),
                (tier, enlarged(pixels, tier, part)),
            ]
        )
    page(rows, DOCS / "crops.png")


def draw_photo() -> None:
    """A picture with known damage, by bicubic and both families."""
    rows = []
    for kind in DAMAGE:
        name = "coffee"
        pixels = levels(degrade(small(skimage.data.coffee()), kind, seeded(name)))
        part = (30, 20, 60, 75)
        rows.append(
            [
                (kind, nearest(pixels, part)),
                *(
                    (title, enlarged(pixels, tier, part))
                    for title, tier in (
                        ("bicubic", "bicubic"),
                        (f"{CLEAN} (clean family)", CLEAN),
                        (f"{PHOTO} (photo family)", PHOTO),
                    )
                ),
            ]
        )
    page(rows, DOCS / "photo.png")


if __name__ == "__main__":
    draw_crops()
    draw_photo()
