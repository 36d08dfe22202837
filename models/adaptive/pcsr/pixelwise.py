"""Pixel-level classification (PCSR, arXiv 2407.21448).

Choosing a sampler for each pixel, making it, smoothing where two samplers meet. Logits are
(samplers, n), samplers from light to heavy; choices are uint8 indices of samplers.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tierscale.models.runtime.mlp import Mlp
from tierscale.models.runtime.nearest import Axis

# Floats of a layer that a perceptron makes at a time with one thread: 1.2 MiB, about what a core's
# own cache holds, or 4096 output pixels of 74 channels. A quarter and twice as many take the same
# time within 5 %, eight times as many 10 % more.
BLOCK = 4096 * 74

# From logits (samplers, n) to something about each pixel, (n,).
Decide = Callable[[Tensor], Tensor]


def difficulty(logits: Tensor) -> Tensor:
    """What the paper's adaptive decision making (ADM) looks at: (n,), 0..1.

    The probability of the floor((M + 1) / 2) heaviest of M samplers: of two that of the heavy one,
    of three that of all but the lightest.
    """
    return logits.softmax(0)[len(logits) // 2 :].sum(0)


def by_difficulty(cutoffs: Tensor, logits: Tensor) -> Tensor:
    """Sampler of each pixel: how many of the rising cutoffs its difficulty exceeds, (n,)."""
    return torch.bucketize(difficulty(logits), cutoffs.to(logits)).to(torch.uint8)


def by_probability(handicaps: Tensor, logits: Tensor) -> Tensor:
    """Sampler of each pixel: that of the largest log probability less its handicap, (n,).

    handicaps: (samplers,). Of equals the lighter wins.
    """
    scores = logits - handicaps.to(logits)[:, None]
    best, chosen = scores[0], torch.zeros_like(scores[0], dtype=torch.uint8)
    for index in range(1, len(scores)):
        chosen.masked_fill_(scores[index] > best, index)
        best = torch.maximum(best, scores[index])
    return chosen


def refine(pixels: Tensor, chosen: Tensor, samplers: int) -> None:
    """Smooth where light samplers meet heavy ones, in place.

    Of M samplers the floor(M / 2) lightest are light, the others heavy, as in difficulty(). Each
    light pixel that touches a heavy one becomes the mean of its 3x3 neighbourhood. pixels: (C, H,
    W); chosen: (H, W), index of the sampler of each. The outermost rows and columns stay as they
    are.
    """
    height, width = chosen.shape
    step, above = max(1, BLOCK * torch.get_num_threads() // (3 * width)), pixels[:, :1].clone()
    for start in range(1, height - 1, step):
        stop = min(start + step, height - 1)
        source = torch.cat(
            [above, pixels[:, start : stop + 1]], dim=1
        )  # rows start - 1 .. stop, not refined yet
        above = source[:, -2:-1]
        heavy = chosen[start - 1 : stop + 1] >= samplers // 2
        near = heavy[:-2] | heavy[1:-1] | heavy[2:]
        touched = (near[:, :-2] | near[:, 1:-1] | near[:, 2:]) & ~heavy[1:-1, 1:-1]
        sums = source[:, :-2] + source[:, 1:-1] + source[:, 2:]
        means = (sums[:, :, :-2] + sums[:, :, 1:-1] + sums[:, :, 2:]).div_(9)
        pixels[:, start:stop, 1:-1] = torch.where(touched, means, source[:, 1:-1, 1:-1])


class PixelBuffer:
    """The output pixels of one window, made from some of its features after another.

    pixels: (3, H, W), to which samplers add. chosen: (H, W), what was decided for each pixel. rows,
    columns: of the window.
    """

    def __init__(self, pixels: Tensor, chosen: Tensor, rows: Axis, columns: Axis) -> None:
        self.pixels, self.chosen, self.rows, self.columns = pixels, chosen, rows, columns
        device = chosen.device
        self.source, self.beside = rows.source().to(device), columns.source().to(device)
        self.phase, self.shift = (
            rows.phase().to(device) * columns.scale.numerator,
            columns.phase().to(device),
        )

    def block(self, mlp: Mlp) -> int:
        """Output pixels that a perceptron takes at a time; all of them on a GPU."""
        return (
            BLOCK * torch.get_num_threads() // mlp.width
            if self.chosen.device.type == "cpu"
            else self.chosen.numel()
        )

    def covered(self, row: int, count: int) -> slice:
        """Output rows whose nearest input rows are `row` .. `row + count - 1` of the window."""
        first, stop = torch.searchsorted(
            self.source, torch.tensor([row, row + count], device=self.source.device)
        ).tolist()
        return slice(first, stop)

    def points(self, row: int, count: int) -> Tensor:
        """The two rows of Mlp.table() that each output pixel takes: (n, 2).

        The table is made of `count` input rows from `row` on.
        """
        covered, width = self.covered(row, count), self.columns.length
        feature = (self.source[covered, None] - row) * width + self.beside
        constant = self.phase[covered, None] + (self.shift + count * width)
        return torch.stack([feature, constant], dim=2).flatten(0, 1)

    def decide(
        self, features: Tensor, points: Tensor, row: int, classifier: Mlp, decide: Decide
    ) -> float:
        """Set `chosen` of the pixels of features (P, C); multiply-adds."""
        chosen = self.chosen[self.covered(row, len(features) // self.columns.length)].flatten()
        table = classifier.table(features, self.rows, self.columns)
        size = self.block(classifier)
        for some, part in zip(points.split(size), chosen.split(size), strict=True):
            part.copy_(decide(classifier.at(table, some)))
        return classifier.cost(len(features), len(points))

    def make(self, features: Tensor, points: Tensor, row: int, samplers: Sequence[Mlp]) -> float:
        """Add to the pixels of features (P, C) what their samplers make; multiply-adds.

        No other sampler runs.
        """
        covered, macs = self.covered(row, len(features) // self.columns.length), 0.0
        pixels, chosen = self.pixels[:, covered].flatten(1), self.chosen[covered].flatten()
        for index, sampler in enumerate(samplers):
            places = (chosen == index).nonzero().flatten()
            if not len(places):
                continue
            table = sampler.table(features, self.rows, self.columns)
            for some in places.split(self.block(sampler)):
                pixels.index_add_(1, some, sampler.at(table, points.index_select(0, some)))
            macs += sampler.cost(len(features), len(places))
        return macs
