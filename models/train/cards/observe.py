"""What tiers leave on tiles of photos, and how far their results lie from each other."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tierscale.models.contract.upscaler import Placement, Upscaler
from tierscale.models.difference import difference, local_energy
from tierscale.models.train.data.degradations import degrade, seeded
from tierscale.models.train.data.photos import centre_crop, image_files, read_image
from tierscale.models.train.data.shrink import shrink

# Side of a tile, and most input pixels a side of a photo that are used: from its middle.
TILE, SIDE = 64, 192
# How tiles are scored where no network is light enough.
ENERGY = "energy"


@dataclass(frozen=True, slots=True)
class Observed:
    """The tiles of one photo with one kind of damage.

    scores: by the name of what scores, (n,). errors: mean squared errors of the tiers, (n, T).
    apart: mean squared differences of their results, (n, T, T). Values 0..1 squared.
    """

    photo: str
    kind: str
    scores: Mapping[str, np.ndarray]
    errors: np.ndarray
    apart: np.ndarray


@dataclass(frozen=True, slots=True)
class Observing:
    """What is observed: tiers by name, from light to full; scorers, networks by name; kinds.

    seconds: when to stop with what there is. seed: of the order of photos.
    """

    tiers: Mapping[str, Upscaler]
    scorers: Mapping[str, Upscaler]
    kinds: Sequence[str]
    scale: Fraction
    seconds: float
    seed: int = 0


def observe_photo(name: str, hr: Tensor, kind: str, how: Observing) -> Observed:
    """The tiles of one photo (3, H, W), 0..1, of whole tiles, shrunk to 8 bits and damaged."""
    lr = degrade(shrink(hr, how.scale), kind, seeded(name))
    place = Placement.whole((lr.shape[-2], lr.shape[-1]), how.scale)
    with torch.inference_mode():
        made = [tier(lr[None], place).pixels[0].clamp(0, 1) for tier in how.tiers.values()]
    tiles = (
        lr.unfold(1, TILE, TILE).unfold(2, TILE, TILE).permute(1, 2, 0, 3, 4).flatten(0, 1)
    )  # (3, h, w) -> (n, 3, TILE, TILE)
    scores = {ENERGY: local_energy(tiles).numpy()}
    for scorer, network in how.scorers.items():
        scores[scorer] = torch.cat(
            [difference(network, tile[None], how.scale) for tile in tiles]
        ).numpy()
    side = int(TILE * how.scale)

    def by_tile(one: Tensor, other: Tensor) -> np.ndarray:
        squared = (one - other).square().mean(dim=0, keepdim=True)
        return F.avg_pool2d(squared, side)[0].flatten().double().numpy()

    return Observed(
        name,
        kind,
        scores,
        np.stack([by_tile(one, hr) for one in made], axis=1),
        np.stack([np.stack([by_tile(one, other) for other in made], 1) for one in made], 1),
    )


def observe(
    folders: Sequence[Path],
    how: Observing,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Observed]:
    """The tiles of photos of some folders in all kinds, or of those that there was time for.

    progress: called with (photos done, all). ValueError: no photo has a whole tile.
    """
    files = [path for folder in folders for path in image_files(folder)]
    started, found = time.monotonic(), []
    for done, index in enumerate(np.random.default_rng(how.seed).permutation(len(files)), start=1):
        hr = middle(centre_crop(read_image(files[index]), how.scale.numerator) / 255, how.scale)
        if hr.numel():
            found += [observe_photo(files[index].name, hr, kind, how) for kind in how.kinds]
        progress(done, len(files))
        if time.monotonic() - started > how.seconds:
            break
    if not found:
        raise ValueError(
            f"no photo in {', '.join(map(str, folders))} has {TILE * how.scale} pixels a side, the"
            f" least to observe at scale {how.scale}; give larger ones"
        )
    return found


def middle(hr: Tensor, scale: Fraction) -> Tensor:
    """The middle of a photo (3, H, W), in whole tiles, at most SIDE input pixels a side."""
    tiles = [min(int(length / scale), SIDE) // TILE for length in hr.shape[1:]]
    sides = [count * int(TILE * scale) for count in tiles]
    top, left = ((length - side) // 2 for length, side in zip(hr.shape[1:], sides, strict=True))
    return hr[:, top : top + sides[0], left : left + sides[1]]
