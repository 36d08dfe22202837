"""What kind of picture an image is, and which family of networks errs least on it.

A small network looks at some tiles of the input, and at the quality that the tables of a JPEG tell.
It estimates blur, grain and compression, and what bicubic, the clean family and the photo family
leave wrong. It was fitted on photos with known damage, where these are measured
(models/train/kinds.py).
"""

import json
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tierscale.models.contract.checkpoints import (
    WeightsFile,
    fill,
    read_tensors,
    write_tensors,
)
from tierscale.models.contract.kind import FAMILIES, Kind
from tierscale.models.weights import ZOO

# Side in pixels of the tiles that are judged.
SIDE = 64
# What the network's outputs are, in order: blur in pixels, grain in levels, and compression as 0
# (none) to 1 (JPEG of quality 0), each of about 0..1 when divided by these; then logarithms of mean
# squared errors: of bicubic, and of each family's over bicubic's.
UNITS = {"blur": 3.0, "grain": 15.0, "compression": 1.0}
OUTPUTS = len(UNITS) + 1 + len(FAMILIES)


@dataclass(frozen=True, slots=True)
class Judgement:
    """The kind of an image, and the mean squared errors (values 0..1) that are expected on it."""

    kind: Kind
    bicubic: float
    families: dict[str, float]


class KindNetwork(nn.Module):
    """Estimates for tiles (N, 3, h, w), 0..1, of 16 pixels a side or more: (N, OUTPUTS).

    They come with what their file tells of compression, (N, 2), see told().
    scale: of the networks whose errors it knows. weights: SHA-256, hex, of the file it was read
    from.
    """

    def __init__(self, scale: Fraction, width: int = 24) -> None:
        super().__init__()
        self.scale, self.width, self.weights = scale, width, ""
        self.layers = nn.Sequential(
            nn.Conv2d(6, width, 5, padding=2),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * width, 3 * width, 3, stride=2, padding=1),
            nn.ReLU(),
        )
        self.head = nn.Sequential(
            nn.Linear(6 * width + 2, 3 * width), nn.ReLU(), nn.Linear(3 * width, OUTPUTS)
        )

    def forward(self, tiles: Tensor, compression: Tensor) -> Tensor:
        # What is finer than three pixels, on the scale of grain, beside the picture itself.
        smooth = F.avg_pool2d(F.pad(tiles, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        seen = self.layers(torch.cat([tiles - 0.5, 16 * (tiles - smooth)], dim=1))
        spread, centre = torch.std_mean(seen, dim=(2, 3))
        return self.head(torch.cat([centre, spread, compression], dim=1))


def told(quality: int | None) -> tuple[float, float]:
    """What a file tells of its compression: whether it is known, and 0 (none) to 1 (quality 0).

    quality: of a JPEG, 1 to 100, by its tables; None: it is none.
    """
    return (0.0, 0.0) if quality is None else (1.0, 1 - quality / 100)


def judge(network: KindNetwork, tiles: Tensor, quality: int | None) -> Judgement:
    """The kind and the errors of an image, from some of its tiles (N, 3, h, w), 0..1.

    quality: of a JPEG, by its tables; None: it is none. The kind is the median of the tiles', the
    errors are means.
    """
    with torch.inference_mode():
        estimates = network(tiles, tiles.new_tensor([told(quality)] * len(tiles))).double()
    middle = estimates.median(dim=0).values
    blur, grain, compression = (
        max(0.0, middle[index].item()) * unit for index, unit in enumerate(UNITS.values())
    )
    bicubic = estimates[:, len(UNITS)].exp()
    ratios = estimates[:, len(UNITS) + 1 :].exp()
    if quality is None and compression > TRACE:
        quality = round(100 * (1 - compression))
    return Judgement(
        Kind(blur, grain, quality),
        bicubic.mean().item(),
        {
            family: (bicubic * ratios[:, index]).mean().item()
            for index, family in enumerate(FAMILIES)
        },
    )


# Compression below this, JPEG of a quality above 96, is none.
TRACE = 0.04


@lru_cache(maxsize=4)
def load_kind_network(scale: Fraction) -> KindNetwork | None:
    """The network that knows the families of a scale; None: it has but one family."""
    path = ZOO / f"kind-x{scale}.safetensors"
    if scale.denominator != 1 or not path.is_file():
        return None
    return read_kind_network(path)


def write_kind_network(path: Path, network: KindNetwork, card: dict[str, object]) -> None:
    """Store a network and how it was fitted, in 16 bits."""
    about = {"scale": str(network.scale), "width": str(network.width), "card": json.dumps(card)}
    write_tensors(path, network.state_dict(), about, half=True)


def read_kind_network(path: Path) -> KindNetwork:
    """The network of a file; ValueError, naming the file, when it is none."""
    file = WeightsFile.read(path)
    tensors, about = read_tensors(file)
    try:
        network = KindNetwork(Fraction(about["scale"]), int(about["width"]))
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{path} holds no network that judges kinds of pictures ({error!r}); write it with"
            " python -m tierscale.models.train.kinds"
        ) from error
    fill(network, tensors, path.name)
    network.weights = file.digest
    return network.eval().requires_grad_(False)
