"""The pre-pass network: what each tier will leave wrong on a tile, predicted from the tile's own pixels.

The error of an enlargement follows from how much fine detail a place has in which band and direction. So a bank of small filters
is squared, pooled and put on a logarithmic scale, where a few cheap layers turn it into a map of log errors.
"""

import copy
import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.weights import digest_file, fill, read_tensors, write_tensors

# Energies below this are sensor and rounding noise: one 8-bit step squared is 1.5e-5.
FLOOR = 1e-6


def filters() -> Tensor:
    """Nine filters of fine and coarse detail on the mean of the colours, (9, 3, 4, 4): differences along both axes and both diagonals,
    the checkerboard, second differences, and edges four pixels wide.
    """
    bank = torch.zeros(9, 4, 4)
    step = torch.tensor([1.0, -1.0])
    bank[0, 1:3, 1:3] = step.expand(2, 2)
    bank[1] = bank[0].T
    bank[2, 1:3, 1:3] = torch.diag(step)
    bank[3, 1:3, 1:3] = torch.diag(step).flip(1)
    bank[4, 1:3, 1:3] = torch.outer(step, step)
    bank[5, 1:3] = torch.tensor([0.5, -0.5, -0.5, 0.5])
    bank[6] = bank[5].T
    bank[7] = torch.tensor([0.25, 0.25, -0.25, -0.25]).expand(4, 4)
    bank[8] = bank[7].T
    return bank[:, None].expand(-1, 3, -1, -1) / 3


class Scout(nn.Module):
    """Predicted mean squared error (values 0..1) of each tier on tiles (N, 3, h, w), h and w at least 1: (N, T), float32.

    tiers: as written, cheap to dear. digests: what models.scout_key() knows them by. scale: output pixels for each input pixel.
    weights: SHA-256, hex, of the file that it was read from.
    A dearer tier is never predicted to leave more than a cheaper one: the cheapest's log error is predicted, and what each
    next tier takes off it. The map is local and averaged over the tile, so that the size of a tile does not matter.
    """

    def __init__(self, tiers: Sequence[str], digests: Sequence[str], scale: Fraction, width: int = 24) -> None:
        super().__init__()
        self.tiers, self.digests, self.scale, self.width = tuple(tiers), tuple(digests), scale, width
        self.weights = ""
        self.columns = list(range(len(self.tiers)))
        self.bank = nn.Conv2d(3, width, 4, stride=2, bias=False)
        self.look = nn.Conv2d(width + 2, width, 3)
        self.think = nn.Conv2d(width, width, 1)
        self.tell = nn.Conv2d(width, len(tiers), 1)
        self.pass_on = nn.Conv2d(width + 2, len(tiers), 1, bias=False)
        self._initialise()

    def _initialise(self) -> None:
        """Start from errors in proportion to the energy of the finest differences.

        Measured: with random filters a few minutes of fitting rank tiles worse than that plain energy does.
        """
        assert self.tell.bias is not None
        with torch.no_grad():
            self.bank.weight.sub_(self.bank.weight.mean(dim=(2, 3), keepdim=True)).mul_(2)
            self.bank.weight[:9] = filters()
            self.tell.weight.mul_(0.1)
            self.tell.bias.fill_(-1.0)
            self.tell.bias[0] = -8.0
            self.pass_on.weight.zero_()
            self.pass_on.weight[0, self.width] = 3.0

    def maps(self, tiles: Tensor) -> Tensor:
        """Natural logarithms of the local error of each tier: (N, T, h / 4, w / 4), rounded up."""
        height, width = tiles.shape[-2:]
        x = F.pad(tiles, (1, 1 + width % 2, 1, 1 + height % 2), mode="replicate")
        energy = F.avg_pool2d(self.bank(x).square(), 2, ceil_mode=True)  # (N, width, h / 4, w / 4)
        finest = energy[:, :2].mean(dim=1, keepdim=True)
        light = F.avg_pool2d(x.mean(dim=1, keepdim=True), 4, ceil_mode=True)[..., : energy.shape[2], : energy.shape[3]]
        told = torch.cat([(torch.log(torch.cat([energy, finest], dim=1) + FLOOR) + 7) / 3, light], dim=1)
        seen = F.relu(self.look(F.pad(told, (1, 1, 1, 1), mode="replicate")))
        first, gains = (self.tell(F.relu(self.think(seen))) + self.pass_on(told)).tensor_split([1], dim=1)
        return torch.cat([first, F.softplus(gains).neg()], dim=1).cumsum(dim=1)

    def forward(self, tiles: Tensor) -> Tensor:
        return self.maps(tiles).exp().mean(dim=(2, 3))[:, self.columns]

    def only(self, digests: Sequence[str]) -> "Scout":
        """This scout for some of its tiers, in its order; it shares the weights."""
        chosen, places = copy.copy(self), [self.digests.index(digest) for digest in digests]
        chosen.columns = [self.columns[place] for place in places]
        chosen.tiers = tuple(self.tiers[place] for place in places)
        chosen.digests = tuple(digests)
        return chosen


def write_scout(path: Path, scout: Scout) -> None:
    """Store a scout with what it was fitted for."""
    about = {"tiers": json.dumps(scout.tiers), "digests": json.dumps(scout.digests), "scale": str(scout.scale), "width": str(scout.width)}
    write_tensors(path, scout.state_dict(), about)


def read_scout(path: Path) -> Scout:
    """The scout of a file; ValueError, naming the file, when it is none."""
    tensors, about = read_tensors(path)
    try:
        scout = Scout(json.loads(about["tiers"]), json.loads(about["digests"]), Fraction(about["scale"]), int(about["width"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} does not say what it was fitted for ({error!r}); write it with python -m models.train.scout") from error
    fill(scout, tensors, path.name)
    scout.weights = digest_file(path)
    return scout.eval().requires_grad_(False)
