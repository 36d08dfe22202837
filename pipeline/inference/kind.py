"""Which tiles of an image are looked at to tell what kind of picture it is, and what is seen."""

from collections.abc import Sequence

import numpy as np
import torch

from tierscale.models.kind import SIDE, Judgement, KindNetwork, judge
from tierscale.pipeline.geometry.grid import Rect, Span
from tierscale.pipeline.inference.normalise import Read, rgb_batch, straight_unit
from tierscale.pipeline.plan.plan import Draft
from tierscale.pipeline.plan.value_range import ValueRange

# Tiles that are looked at, at most, whatever the size of the image: on 8 by 8 places.
SIDES = 8
# An image that is smaller on a side is too small to be judged.
SMALLEST = 16


def places(height: int, width: int) -> list[Rect]:
    """Where to look: tiles of SIDE pixels, evenly spread over an image, none twice."""

    def starts(length: int) -> list[Span]:
        side = min(SIDE, length)
        count = min(SIDES, -(-length // SIDE))
        last = length - side
        return [
            Span(start, start + side)
            for start in sorted({round(index * last / max(1, count - 1)) for index in range(count)})
        ]

    return [Rect(y, x) for y in starts(height) for x in starts(width)]


def look(
    draft: Draft, read: Read, network: KindNetwork, some: Sequence[Rect], quality: int | None
) -> Judgement:
    """The kind of an image of 8 bits and what each family is expected to leave wrong on it.

    some: places of one size, see places(). quality: of a JPEG, by its tables, or None. A grey is
    looked at as three equal channels.
    """
    value_range = ValueRange(0, 255, 0, 255)
    tiles = [
        rgb_batch(
            straight_unit(
                read(at.y.start, at.y.stop, at.x.start, at.x.stop), value_range, draft.alpha
            ),
            draft.colour,
        )[0]
        for at in some
    ]
    return judge(network, torch.from_numpy(np.stack(tiles)), quality)
