"""Images whose truth is known, and what every tier leaves on their tiles: measured once, and kept
in .work/routing.
"""

import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import torch

from tierscale.models import registry as models
from tierscale.models.contract.upscaler import Upscaler
from tierscale.models.train.cards.observe import TILE, Observed, Observing, observe_photo
from tierscale.models.train.data.photos import centre_crop, image_files, read_image
from tierscale.pipeline.formats.registry import open_image

SHARED = Path(os.environ.get("TIERSCALE_SHARED", "../shared"))
CACHE = Path(".work/routing")
SCALE = 4
# Side of the crops of large images, in output pixels.
CROP = 2048
# Networks that score tiles.
SCORERS = ("fsrcnn-x4",)


@dataclass(frozen=True, slots=True)
class Scenes:
    """Some images with a kind of damage. images: name and (3, H, W), 0..1."""

    images: Callable[[], Iterator[tuple[str, torch.Tensor]]]
    kind: str = "clean"


def photos(folder: str, count: int | None = None) -> Iterator[tuple[str, torch.Tensor]]:
    """Images of an evaluation set."""
    for path in image_files(SHARED / "data" / "eval" / folder)[:count]:
        yield path.stem, centre_crop(read_image(path), SCALE) / 255


def crops(file: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Three crops of a large image, from its first corner to its last."""
    with open_image(str(SHARED / "data" / "large" / file)) as image:
        for part in range(3):
            y, x = ((length - CROP) * part // 2 for length in image.shape[1:])
            pixels = image.read(y, y + CROP, x, x + CROP)
            yield f"{y},{x}", torch.from_numpy(np.ascontiguousarray(pixels)) / 255


SETS = {
    "Urban100 001-020": Scenes(lambda: photos("Urban100", 20)),
    "Set14": Scenes(lambda: photos("Set14")),
    "earth": Scenes(lambda: crops("earth_daymap_8192x4096.jpg")),
    "painting": Scenes(lambda: crops("starry_night_16384x4096.tif")),
    "slide": Scenes(lambda: crops("CMU-1-Small-Region.svs")),
    "Set14, jpeg50": Scenes(lambda: photos("Set14"), "jpeg50"),
    "Set14, grain8": Scenes(lambda: photos("Set14"), "grain8"),
    "Set14, grain8+jpeg60": Scenes(lambda: photos("Set14"), "grain8+jpeg60"),
}


def _upscaler(tier: str) -> Upscaler:
    """A tier as written for upscale, at its effort."""
    name, effort = models.parse_tier(tier)
    upscaler = models.load(name)
    return partial(upscaler, effort=float(effort)) if effort else upscaler  # type: ignore[return-value]


def scenes(name: str, tiers: Sequence[str]) -> list[Observed]:
    """The tiles of the images of a set under some tiers: the middle of each, in whole tiles."""
    found = []
    how = Observing(
        {tier: _upscaler(tier) for tier in tiers},
        {scorer: models.load(scorer) for scorer in SCORERS},
        (SETS[name].kind,),
        Fraction(SCALE),
        0.0,
    )
    key = "-".join(models.tier_key(tier)[:8] for tier in tiers)
    for image, hr in SETS[name].images():
        path = CACHE / f"{name.replace(' ', '-')}-{image}-{key}.pickle"
        tall, wide = (side // (TILE * SCALE) * TILE * SCALE for side in hr.shape[1:])
        if not path.is_file() and tall and wide:
            top, left = (hr.shape[1] - tall) // 2, (hr.shape[2] - wide) // 2
            seen = observe_photo(
                image, hr[:, top : top + tall, left : left + wide], SETS[name].kind, how
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(pickle.dumps(asdict(seen)))
        if tall and wide:
            found.append(Observed(**pickle.loads(path.read_bytes())))
    return found
