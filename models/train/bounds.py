"""From where on the fidelity of a network's tiles is doubted, measured on pictures.

    python -m tierscale.models.train.measure NAME --eval DIR --only fidelity

The worst tile of all pictures, less MARGIN, is the bound on the network's card. Pictures that are
harder than any of them fall below it, and cost a second look; what a sick card makes falls far
below. Networks that take grain away are measured on damaged pictures too, and their tiles are
averaged over squares of AVERAGED pixels first.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tierscale.models import registry
from tierscale.models.contract.upscaler import Placement, Upscaler
from tierscale.models.fidelity import AVERAGED, RIM, decibels, shrunk, tile_errors
from tierscale.models.train.data.degradations import degrade, seeded
from tierscale.models.train.data.photos import centre_crop, image_files, read_image
from tierscale.models.train.data.shrink import shrink

# dB between the worst tile and the bound.
MARGIN = 3.0
# Side of a tile in source pixels, as tiles have it by default. Smaller ones at far edges count from
# a quarter of its area on.
SIDE = 128
# Scales at which a network of any scale is measured.
SCALES = tuple(Fraction(scale) for scale in ("3/2", "2", "5/2", "3", "4"))
# Of small pictures, for networks that take damage away.
KINDS = ("clean", "jpeg50", "grain8", "blur1+grain4+jpeg60")


@dataclass(frozen=True, slots=True)
class Pictures:
    """What is measured on. folders: of images. most: taken of each; kinds: of damage to them."""

    folders: tuple[Path, ...]
    most: int | None = None
    kinds: tuple[str, ...] = ("clean",)

    def at(self, scale: Fraction) -> Iterator[Tensor]:
        """Small pictures (3, h, w), 8 bits as 0..1."""
        for folder in self.folders:
            for path in image_files(folder)[: self.most]:
                large = centre_crop(read_image(path), scale.numerator) / 255
                for kind in self.kinds:
                    yield degrade(shrink(large, scale).clamp(0, 1), kind, seeded(path.name))


def tile_fidelities(
    upscaler: Upscaler, picture: Tensor, scale: Fraction, block: int, effort: float = 1.0
) -> np.ndarray:
    """Fidelity of the tiles that an upscaler makes of a picture (3, h, w), dB."""
    height, width = picture.shape[1:]
    with torch.inference_mode():
        made = upscaler(picture[None], Placement.whole((height, width), scale), effort).pixels[0]
    eight = (made.clamp(0, 1) * 255).round().numpy()
    lengths = height - 2 * RIM, width - 2 * RIM
    spans = [[slice(at, at + SIDE) for at in range(0, length, SIDE)] for length in lengths]
    valid = np.ones(lengths, bool)
    errors = np.zeros((len(spans[0]), len(spans[1])))
    for result, source in zip(eight, picture.numpy(), strict=True):
        inner = source[RIM : height - RIM, RIM : width - RIM]
        difference = shrunk(result, scale, (height, width)) / 255 - inner
        errors += tile_errors(difference, valid, (spans[0], spans[1]), block) / len(eight)
    areas = [[valid[rows, columns].size for columns in spans[1]] for rows in spans[0]]
    return decibels(errors[np.array(areas) >= SIDE**2 // 4])


def averages(card: Mapping[str, Any]) -> bool:
    """Whether the network of a card takes grain away: it was trained on damaged photos."""
    schedules = (stage.get("schedule") or {} for stage in card.get("stages", ()))
    return any(schedule.get("family") == "photo" for schedule in schedules)


def measure_bound(
    name: str, card: Mapping[str, Any], folder: Path, most: int | None = None
) -> dict[str, Any]:
    """What a card says of fidelity. folder: of folders of images; most: taken of each of these."""
    upscaler = registry.load(name)
    block = AVERAGED if averages(card) else 1
    folders = tuple(sub for sub in sorted(folder.iterdir()) if sub.is_dir())
    pictures = Pictures(folders, most, KINDS if block > 1 else ("clean",))
    efforts = {1.0} if upscaler.efforts is None else {upscaler.efforts.floor, 1.0}
    found = np.concatenate(
        [
            tile_fidelities(upscaler, picture, scale, block, effort)
            for scale in (SCALES if upscaler.scales is None else sorted(upscaler.scales))
            for picture in pictures.at(scale)
            for effort in efforts
        ]
    )
    return {
        "bound": round(float(found.min()) - MARGIN, 1),
        "worst": round(float(found.min()), 1),
        "median": round(float(np.median(found)), 1),
        "tiles": len(found),
        "block": block,
    }
