"""SRNO: features at input resolution become pixels at any places.

Wei and Zhang 2023, "Super-Resolution Neural Operator". For each queried place the four nearest
features, weighed by area, are lifted to `width` channels (section 3.2); two layers of Galerkin
attention (section 3.3) mix all queries of a window; a perceptron makes red, green and blue of each.
"""

from collections.abc import Iterable, Iterator
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tierscale.models.contract.modules import module_list
from tierscale.models.runtime.nearest import Axis

# Queries worked on at a time on a CPU: 256 channels of them are 2 MiB.
QUERIES = 2048
# Between -1 and 1; on its side of the line between two input pixels a place falls to the right or
# lower one.
NUDGE = 1e-6


def centres(count: int) -> Tensor:
    """Centres of `count` pixels on -1..1: (count,), float32, rounded as in the upstream code.

    At odd scales the upstream weights make noise of the last rounding error, hence this very order
    of operations.
    """
    half = 1 / count
    return (2 * half) * torch.arange(count).float() + (half - 1)


def places(axis: Axis) -> Tensor:
    """Centres of a window's output rows, -1..1 from its first row to its end: (count,), float32.

    A window that starts and ends on whole output pixels is an image of its own; in others the phase
    of the whole image's grid counts.
    """
    p, q = axis.scale.numerator, axis.scale.denominator
    if axis.first * q == axis.origin * p and axis.count * q == axis.length * p:
        return centres(axis.count)
    rows = torch.arange(axis.first, axis.first + axis.count)
    twice = (2 * rows + 1) * q - 2 * p * axis.origin  # 2p times the place in input pixels
    return (twice.double() / (p * axis.length) - 1).float()


def corners(axis: Axis) -> tuple[Tensor, Tensor]:
    """The features before and after each output row, and how far off each is.

    Rows (2, count), int64, and distances in input pixels, (2, count).
    """
    at, known, length = places(axis), centres(axis.length), axis.length
    shifted = torch.stack([at + (-1 / length + NUDGE), at + (1 / length + NUDGE)])
    shifted.clamp_(-1 + NUDGE, 1 - NUDGE)
    rows = (((shifted + 1) * length - 1) / 2).round().long().clamp_(0, length - 1)
    return rows, (at - known[rows]) * length


class Galerkin(nn.Module):
    """Attention without softmax (equations 9 to 11), then a perceptron.

    Queries are mixed only through one small matrix for each head.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.key_gain, self.value_gain = (
            nn.Parameter(torch.ones(heads, width // heads)) for _ in range(2)
        )
        self.key_shift, self.value_shift = (
            nn.Parameter(torch.zeros(heads, width // heads)) for _ in range(2)
        )
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)

    def mix(self, x: Tensor) -> Tensor:
        """Sum over queries x (N, Q, width) of keys times values: (N, heads, d, d)."""
        key = self._normal(self.key(x), self.key_gain, self.key_shift)
        value = self._normal(self.value(x), self.value_gain, self.value_shift)
        return key.transpose(-2, -1) @ value

    def _normal(self, x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
        """x (N, Q, width) by heads, (N, heads, Q, d), normalised, times gain, plus shift.

        Each query's mean is brought to 0 and its unbiased standard deviation to 1.
        """
        x = x.unflatten(-1, (self.heads, -1))
        deviation, mean = torch.std_mean(x, dim=-1, keepdim=True)
        return ((x - mean) / (deviation + 1e-5) * gain + shift).transpose(1, 2)

    def forward(self, x: Tensor, mixed: Tensor) -> Tensor:
        """x (N, Q, width) behind the layer; mixed: mean over all queries of what mix() sums."""
        query = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        seen = x + (query @ mixed).transpose(1, 2).flatten(2)
        return x + self.second(F.gelu(self.first(seen)))

    def cost(self, queries: int) -> int:
        """Multiply-adds for one window's queries."""
        width = self.query.in_features
        return queries * (5 * width * width + 2 * width * width // self.heads)


class Srno(nn.Module):
    """(N, features, h, w) -> (N, 3, H, W): what is added to the bilinear enlargement.

    The form that is trained, and that which is run. features: channels; width: of the queries;
    heads: of the attention (16 heads of 16 in the paper).
    """

    def __init__(self, features: int, width: int = 256, heads: int = 16) -> None:
        super().__init__()
        if width % heads or width // heads < 2:
            raise ValueError(
                f"a width of {width} cannot be shared by {heads} heads; give a multiple of the"
                " heads, two or more each"
            )
        self.lift = nn.Linear(4 * (features + 2) + 2, width)
        self.attention = module_list(Galerkin(width, heads) for _ in range(2))
        self.first, self.second = nn.Linear(width, 256), nn.Linear(256, 3)

    def forward(self, features: Tensor, rows: Axis, columns: Axis, stretch: float = 1.0) -> Tensor:
        """stretch: factor of the size of an output pixel that the network gets as input.

        Queries are worked on in blocks that stay in cache, each layer on all of them in turn.
        """
        count = rows.count * columns.count
        x = list(self._queries(features, rows, columns, stretch))
        for layer in self.attention:
            mixed = _total(layer.mix(block) for block in x) / count
            for index, block in enumerate(x):  # so that the old blocks are let go one by one
                x[index] = layer(block, mixed)
        pixels = torch.cat([self.second(F.gelu(self.first(block))) for block in x], dim=1)
        return pixels.movedim(-1, 1).unflatten(-1, (rows.count, columns.count))

    def _queries(
        self, features: Tensor, rows: Axis, columns: Axis, stretch: float
    ) -> Iterator[Tensor]:
        """Lifted queries (N, Q, width), a few output rows at a time."""
        below, down = (part.to(features.device) for part in corners(rows))
        beside, across = (part.to(features.device) for part in corners(columns))
        known = features.movedim(1, -1)  # (N, h, w, C)
        cell = features.new_tensor(
            [stretch * 2 / float(rows.scale), stretch * 2 / float(columns.scale)]
        )
        step = max(1, (QUERIES if features.device.type == "cpu" else 1 << 18) // columns.count)
        for start in range(0, rows.count, step):
            part = slice(start, start + step)
            yield self.lift(
                gather(known, (below[:, part], beside), (down[:, part], across), cell).flatten(1, 2)
            )

    def run(self, features: Tensor, rows: Axis, columns: Axis, stretch: float = 1.0) -> Tensor:
        """As forward(), which already works in blocks."""
        return self(features, rows, columns, stretch)

    def cost(self, pixels: int, queries: int) -> float:
        """Multiply-adds for a window of so many input and output pixels."""
        width = self.lift.out_features
        ends = self.lift.in_features * width + (width + 3) * 256
        return float(queries * ends + sum(layer.cost(queries) for layer in self.attention))

    def memory(self, scale: Fraction) -> float:
        """Bytes for each input pixel: the queries, and the result twice."""
        return 4 * (self.lift.out_features + 6) * float(scale) ** 2


def gather(
    known: Tensor, nearest: tuple[Tensor, Tensor], off: tuple[Tensor, Tensor], cell: Tensor
) -> Tensor:
    """What a query is made of (section 3.2): (N, H, W, 4 * (C + 2) + 2).

    Four offsets, four features weighed by area, the size of an output pixel. known: (N, h, w, C).
    nearest, off: from corners() of rows and columns.
    """
    height, width = off[0].shape[1], off[1].shape[1]
    pairs = [(a, b) for a in (0, 1) for b in (0, 1)]
    areas = [(off[0][a, :, None] * off[1][b]).abs() + 1e-9 for a, b in pairs]
    total = torch.stack(areas).sum(dim=0)
    parts = []
    for a, b in pairs:
        parts += [
            off[0][a, :, None, None].expand(height, width, 1),
            off[1][b, :, None].expand(height, width, 1),
        ]
    offsets = torch.cat([*parts, cell.expand(height, width, 2)], dim=-1).expand(
        len(known), -1, -1, -1
    )
    # The opposite corner's area is the weight: the nearer a feature, the larger.
    weighed = [
        known.index_select(1, nearest[0][a]).index_select(2, nearest[1][b])
        * (area / total)[..., None]
        for (a, b), area in zip(pairs, reversed(areas), strict=True)
    ]
    return torch.cat([offsets[..., :8], *weighed, offsets[..., 8:]], dim=-1)


def _total(parts: Iterable[Tensor]) -> Tensor:
    """Sum of tensors of one shape."""
    rest = iter(parts)
    total = next(rest)
    for part in rest:
        total = total + part
    return total
