"""Images whose truth is known, and what every tier leaves on them: measured once, and kept in
.work/routing.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from tierscale.jobs.fit_scout import runner
from tierscale.models import registry as models
from tierscale.models.contract.upscaler import Placement
from tierscale.models.train.data.photos import centre_crop, image_files, read_image
from tierscale.models.train.data.shrink import shrink
from tierscale.models.train.scouting.observe import Enlarge
from tierscale.pipeline.formats.registry import open_image
from tierscale.pipeline.run.tiers import load_tiers

SHARED = Path(os.environ.get("TIERSCALE_SHARED", "../shared"))
CACHE = Path(".work/routing")
SCALE = 4
# Side of the crops of large images, and of the squares that errors are kept for, in input pixels.
CROP, SQUARE = 2048, 8


@dataclass(frozen=True, slots=True)
class Scene:
    """One image. lr: (3, h, w) float32, 0..1. errors: mean squared error of each tier in squares of
    SQUARE input pixels, (T, h', w'); areas: input pixels of the squares, (h', w'). seconds: that
    each tier took, (T,).
    """

    name: str
    lr: np.ndarray
    errors: np.ndarray
    areas: np.ndarray
    seconds: np.ndarray

    def tiles(self, tile: int) -> tuple[np.ndarray, np.ndarray]:
        """True errors (tiles, T) and areas (tiles,) of tiles of `tile` input pixels, a multiple of
        SQUARE, in reading order.
        """
        areas = sums(self.areas, tile // SQUARE)
        return (sums(self.errors * self.areas, tile // SQUARE) / areas).reshape(
            len(self.errors), -1
        ).T, areas.ravel()


def sums(values: np.ndarray, side: int) -> np.ndarray:
    """Sums of a map (…, h, w) over squares of `side`; those at the far edges are what is left."""
    rows, columns = (np.arange(0, length, side) for length in values.shape[-2:])
    return np.add.reduceat(np.add.reduceat(values, rows, axis=-2), columns, axis=-1)


def photos(folder: str, count: int | None = None) -> Iterator[tuple[str, torch.Tensor]]:
    """Images of an evaluation set: name and (3, H, W), 0..1."""
    for path in image_files(SHARED / "data" / "eval" / folder)[:count]:
        yield path.stem, centre_crop(read_image(path), SCALE) / 255


def crops(file: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Three crops of a large image, from its first corner to its last."""
    with open_image(str(SHARED / "data" / "large" / file)) as image:
        for part in range(3):
            y, x = ((length - CROP) * part // 2 for length in image.shape[1:])
            yield (
                f"{y},{x}",
                torch.from_numpy(np.ascontiguousarray(image.read(y, y + CROP, x, x + CROP))) / 255,
            )


SETS: dict[str, Callable[[], Iterator[tuple[str, torch.Tensor]]]] = {
    "Urban100 001-020": lambda: photos("Urban100", 20),
    "Set14": lambda: photos("Set14"),
    "earth": lambda: crops("earth_daymap_8192x4096.jpg"),
    "painting": lambda: crops("starry_night_16384x4096.tif"),
    "slide": lambda: crops("CMU-1-Small-Region.svs"),
}


def observe(lr: torch.Tensor, hr: torch.Tensor, tier: Enlarge) -> tuple[np.ndarray, float]:
    """What a tier leaves of a shrunk image: mean squared errors in squares (h', w'), and its
    seconds of processor.
    """
    place = Placement.whole((lr.shape[1], lr.shape[2]), Fraction(SCALE))
    with torch.inference_mode():
        began = time.process_time()
        made = tier(lr[None], place).pixels[0].clamp(0, 1)
        seconds = time.process_time() - began
        errors = (
            F.avg_pool2d((made - hr).square().mean(dim=0, keepdim=True), SCALE)[0].double().numpy()
        )
    return sums(errors, SQUARE) / sums(np.ones_like(errors), SQUARE), seconds


def scenes(kind: str, tiers: Sequence[str], count: int | None = None) -> list[Scene]:
    """The images of a set, or its first `count`, measured with tiers as written for upscale; what
    each leaves is kept for the next time.
    """
    keys = [hashlib.sha256(models.scout_key(tier).encode()).hexdigest()[:12] for tier in tiers]
    found, runners = [], [runner(tier) for tier in load_tiers(tiers, Fraction(SCALE))]
    for index, (name, hr) in enumerate(SETS[kind]()):
        if count is not None and index >= count:
            break
        lr, left, seconds = shrink(hr, SCALE).clamp(0, 1), [], []
        for key, run in zip(keys, runners, strict=True):
            path = CACHE / f"{kind.replace(' ', '-')}-{name}-{key}.npz"
            if not path.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                errors, taken = observe(lr, hr, run)
                np.savez(path, errors=errors, seconds=taken)
            with np.load(path) as saved:
                left.append(saved["errors"])
                seconds.append(float(saved["seconds"]))
        areas = sums(np.ones(lr.shape[1:]), SQUARE)
        found.append(Scene(name, lr.numpy(), np.stack(left), areas, np.array(seconds)))
    return found
