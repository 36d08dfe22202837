"""Draws docs/degradations.png: what the photo family is trained against, at 300 %.

`python -m docs.draw_degradations`. Each field is a part of one picture, damaged in its own pixels.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import skimage.data
import torch
from matplotlib import pyplot
from torch import Tensor

from tierscale.models.train.data.degradations import (
    Codec,
    Grain,
    Step,
    blur,
    coded,
    gaussian,
    grain,
    rounded,
    sharpened,
)
from tierscale.models.train.data.shrink import shrink

FILE = Path(__file__).parent / "degradations.png"


def fields() -> Mapping[str, Step]:
    """Titles and damages, in order."""
    noise: Callable[[Grain], Step] = lambda grains: partial(  # noqa: E731
        grain, grains=grains, rng=np.random.default_rng(1)
    )
    return {
        "as it is": lambda levels: levels,
        "blur, sigma 1.5 pixels": partial(blur, kernel=gaussian(1.5, 1.5, 0.0)),
        "blur along a line, 1.5 and 0.2": partial(blur, kernel=gaussian(1.5, 0.2, 0.8)),
        "sharpened, radius 1, 100 %": partial(sharpened, radius=1.0, amount=1.0),
        "grain of 8 levels": noise(Grain(8)),
        "grain of 15 levels, correlated": noise(Grain(15, spread=0.8)),
        "coloured noise of 10 levels": noise(Grain(10, coloured=True)),
        "noise that follows the signal, 15": noise(Grain(15, coloured=True, signal=True)),
        "JPEG 25": partial(coded, codec=Codec("JPEG", 25)),
        "JPEG 60": partial(coded, codec=Codec("JPEG", 60)),
        "WebP 25": partial(coded, codec=Codec("WEBP", 25)),
        "grain of 8, then JPEG 40": lambda levels: coded(
            noise(Grain(8))(levels), Codec("JPEG", 40)
        ),
    }


def picture() -> Tensor:
    """Half of a photo of a coffee cup, shrunk, levels 0..255."""
    return rounded(shrink(torch.from_numpy(skimage.data.coffee()).permute(2, 0, 1), 3))


def main() -> None:
    """Draw the page."""
    figure, axes = pyplot.subplots(3, 4, figsize=(15, 11.4), layout="constrained")
    for axis, (title, step) in zip(axes.flat, fields().items(), strict=True):
        part = rounded(step(picture()))[:, 20:120, 50:166].byte().permute(1, 2, 0).numpy()
        axis.imshow(part, interpolation="nearest")
        axis.set_title(title, fontsize=13)
        axis.axis("off")
    figure.savefig(FILE, dpi=80)
    print(f"{FILE} is drawn")


if __name__ == "__main__":
    main()
