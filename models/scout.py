"""The pre-pass network: what each tier will leave wrong on a tile, from the tile's own pixels.

What a network saves over a cheaper one is nearly in proportion to the energy of the finest
differences; that alone ranks tiles well. So the energies of some bands, alike in all directions,
are put on a logarithmic scale, and a few cheap layers learn by how much each place departs from
that rule.
"""

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tierscale.models.contract.checkpoints import WeightsFile, fill, read_tensors, write_tensors

# No tier is predicted to leave less than this, 120 dB.
LEAST = 1e-12
# Energies below this are sensor and rounding noise: one 8-bit step squared is 1.5e-5.
FLOOR = 1e-6
# Weight of the first statistic under which what is predicted is in proportion to the first energy:
# its logarithm is stored divided by 3.
RULE = 3.0
# Side in input pixels of the cells that statistics are taken of, and how many statistics there are.
CELL, STATISTICS = 4, 13


def statistics(tiles: Tensor) -> Tensor:
    """Statistics of the cells of tiles (N, 3, h, w), 0..1.

    (N, STATISTICS, h / CELL, w / CELL), both rounded up. Logarithms of energies, brought to about
    -2..2, see energies(); then, as they are, lightness, and how much all edges of a cell run the
    same way.
    """
    x = F.pad(tiles, (2, 3, 2, 3), mode="replicate")
    y = x.mean(dim=1, keepdim=True)
    cells = CellMeans(*tiles.shape[-2:])
    dx, dy = y.diff(dim=-1)[..., :-1, :], y.diff(dim=-2)[..., :-1]
    across, down, both = cells(dx.square()), cells(dy.square()), cells(dx * dy)
    light = cells(y)
    logs = torch.log(torch.cat(energies(x, y, cells, light), dim=1).clamp(min=0) + FLOOR)
    along = ((across - down).square() + 4 * both.square()).sqrt() / (across + down + 1e-5)
    return torch.cat([(logs + 7) / 3, light, along], dim=1)


@dataclass(frozen=True, slots=True)
class CellMeans:
    """Means over the cells of tiles of `height` by `width` pixels, of maps with a margin around."""

    height: int
    width: int

    def __call__(self, values: Tensor, top: int = 2, left: int = 2) -> Tensor:
        """Means of maps whose pixel (top, left) is the tile's first."""
        inner = values[..., top : top + self.height, left : left + self.width]
        return F.avg_pool2d(inner, CELL, ceil_mode=True)


def energies(x: Tensor, y: Tensor, cells: CellMeans, light: Tensor) -> list[Tensor]:
    """Energies of some bands, alike in all directions, of the cells of tiles.

    First differences of the colours x; then of their mean y: diagonal, second and third
    differences, over two pixels, of means of 2x2, mean size of first differences squared, between
    cells (whose means `light` is), mixed second differences, variance; and between colours.
    """
    dx, dy = y.diff(dim=-1), y.diff(dim=-2)
    inner_x, inner_y = dx[..., :-1, :], dy[..., :-1]  # of one size, each beginning at its pixel
    xx, yy, xy = dx.diff(dim=-1), dy.diff(dim=-2), dx.diff(dim=-2)
    xxx, yyy = xx.diff(dim=-1), yy.diff(dim=-2)
    smooth = F.avg_pool2d(y, 2, stride=1)
    colours = x.diff(dim=-1)[..., :-1, :].square().add_(x.diff(dim=-2)[..., :-1].square())
    falling, rising = y[..., 1:, 1:] - y[..., :-1, :-1], y[..., 1:, :-1] - y[..., :-1, 1:]
    around = F.pad(light, (1, 1, 1, 1), mode="replicate")

    def wide(values: Tensor, top: int, left: int) -> Tensor:
        """Energy of differences over two pixels on both axes."""
        across = (values[..., 2:] - values[..., :-2]).square()
        down = (values[..., 2:, :] - values[..., :-2, :]).square()
        return cells(across, top, left) + cells(down, left, top)

    return [
        cells(colours.mean(dim=1, keepdim=True)),
        cells(falling.square() + rising.square()),
        cells(xx.square(), 2, 1) + cells(yy.square(), 1, 2),
        cells(xxx.square(), 2, 1) + cells(yyy.square(), 1, 2),
        wide(y, 2, 1),
        wide(smooth, 1, 1),
        cells(inner_x.abs()).square() + cells(inner_y.abs()).square(),
        (around[..., 1:-1, 2:] - around[..., 1:-1, :-2]).square()
        + (around[..., 2:, 1:-1] - around[..., :-2, 1:-1]).square(),
        cells(xy.square()),
        cells(y.square()) - light.square(),
        cells((x[:, :1] - x[:, 2:]).square()),
    ]


class Scout(nn.Module):
    """Predicted mean squared error (values 0..1) of each tier on tiles (N, 3, h, w): (N, T).

    h and w at least 1; float32. What the last tier leaves is predicted, and how much each saves
    over the one before; whether it saves or errs more is the same for all tiles. Both are found for
    every cell and averaged over the tile, so that the size of a tile does not matter.

    tiers: as written, from light to full.
    digests: what registry.scout_key() knows them by.
    scale: output pixels for each input pixel.
    weights: SHA-256, hex, of the file that it was read from.
    signs: of what each tier saves over the one before it, and of what the last leaves: -1 where a
    heavier tier errs more on most images.
    """

    centre: Tensor
    spread: Tensor

    def __init__(
        self,
        tiers: Sequence[str],
        digests: Sequence[str],
        scale: Fraction,
        width: int = 24,
        signs: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.signs = list(signs or (1 for _ in tiers))
        self.tiers, self.digests = tuple(tiers), tuple(digests)
        self.scale, self.width = scale, width
        self.weights = ""
        self.columns = list(range(len(self.tiers)))
        self.look = nn.Conv2d(STATISTICS, width, 3)
        self.relate = nn.Conv2d(width, width, 3)
        self.think = nn.Conv2d(width, width, 1)
        self.tell = nn.Conv2d(width, len(tiers), 1)
        self.pass_on = nn.Conv2d(STATISTICS, len(tiers), 1, bias=False)
        self.register_buffer("centre", torch.zeros(STATISTICS, 1, 1))
        self.register_buffer("spread", torch.ones(STATISTICS, 1, 1))
        with torch.no_grad():
            # Fitting starts near the rule.
            self.tell.weight.mul_(0.05)
            self.tell.get_parameter("bias").fill_(-9.0)
            self.pass_on.weight.zero_()
            self.pass_on.weight[:, 0] = RULE

    def start(self, seen: Tensor) -> None:
        """Centre on some statistics (N, STATISTICS, h, w)."""
        spread, centre = torch.std_mean(seen, dim=(0, 2, 3))
        self.centre.copy_(centre[:, None, None])
        self.spread.copy_(spread[:, None, None] + 1e-3)

    @torch.no_grad()
    def temper(self, share: float) -> None:
        """Keep a share of what was learnt beside the rule.

        The rule: savings are in proportion to the first energy, in logarithms.
        """
        self.tell.weight.mul_(share)
        self.pass_on.weight.mul_(share)
        self.pass_on.weight[:, 0] += (1 - share) * RULE

    @torch.no_grad()
    def balance(self, seen: Tensor, parts: Tensor) -> None:
        """Bring the mean of what is predicted from some statistics to that of `parts`.

        parts: (N, T, h, w), see parts(); where their mean has their sign.
        """
        wanted, predicted = (
            self.sized(values).mean(dim=(0, 2, 3)).clamp(min=1e-12)
            for values in (parts, self.parts(seen))
        )
        self.tell.get_parameter("bias").add_(torch.log(wanted / predicted))

    def parts(self, seen: Tensor) -> Tensor:
        """What each tier but the first saves over the one before it, then what the last one leaves.

        seen: statistics of cells (N, STATISTICS, h, w). (N, T, h, w), of the tiers' signs.
        """
        normal = (seen - self.centre) / self.spread
        known = F.relu(self.look(F.pad(normal, (1, 1, 1, 1), mode="replicate")))
        known = known + F.relu(self.relate(F.pad(known, (1, 1, 1, 1), mode="replicate")))
        logs = self.tell(F.relu(self.think(known))) + self.pass_on(seen)
        return self.sized(logs.clamp(-25, 5).exp())

    def sized(self, parts: Tensor) -> Tensor:
        """Parts (N, T, h, w) times their signs: from sizes to parts, and back."""
        return parts * parts.new_tensor(self.signs).view(-1, 1, 1)

    def forward(self, tiles: Tensor) -> Tensor:
        parts = self.parts(statistics(tiles)).mean(dim=(2, 3))
        return parts.flip(1).cumsum(dim=1).flip(1)[:, self.columns].clamp_min(LEAST)

    def only(self, digests: Sequence[str]) -> "Scout":
        """This scout for some of its tiers, in its order; it shares the weights."""
        chosen, places = copy.copy(self), [self.digests.index(digest) for digest in digests]
        chosen.columns = [self.columns[place] for place in places]
        chosen.tiers = tuple(self.tiers[place] for place in places)
        chosen.digests = tuple(digests)
        return chosen


def write_scout(path: Path, scout: Scout) -> None:
    """Store a scout with what it was fitted for."""
    about = {
        "tiers": json.dumps(scout.tiers),
        "digests": json.dumps(scout.digests),
        "scale": str(scout.scale),
        "width": str(scout.width),
    }
    about["signs"] = json.dumps(scout.signs)
    write_tensors(path, scout.state_dict(), about)


def read_scout(path: Path) -> Scout:
    """The scout of a file; ValueError, naming the file, when it is none."""
    file = WeightsFile.read(path)
    tensors, about = read_tensors(file)
    try:
        signs = json.loads(about.get("signs", "null"))
        scout = Scout(
            json.loads(about["tiers"]),
            json.loads(about["digests"]),
            Fraction(about["scale"]),
            int(about["width"]),
            signs,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} does not say what it was fitted for ({error!r}); write it with tierscale"
            " scout fit"
        ) from error
    fill(scout, tensors, path.name)
    scout.weights = file.digest
    return scout.eval().requires_grad_(False)
