"""Networks with a row of like layers in their middle, which can be left behind any of them; and how a part of one runs down a window."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from models.stream import Delay, RowNetwork, Stream, bands


class Staged(RowNetwork):
    """A network that enters, passes layers of one width, and finishes.

    features: channels between the layers. body_scale: size of their maps, in that of the input.
    behind: pixels of those maps that finish() looks at on each side, at most.
    """

    features: int
    body_scale: int = 1
    behind: int = 3

    @property
    def layers(self) -> Sequence[nn.Module]:
        """The layers, each (N, features, h, w) to the same; with a stream() of their own where the network's reach is finite."""
        raise NotImplementedError(f"{type(self).__name__} does not tell its layers; write its layers()")

    def enter(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What finish() needs beside the features, and the features that the first layer takes; these may be one tensor."""
        raise NotImplementedError(f"{type(self).__name__} cannot be entered alone; write its enter()")

    def finish(self, kept: Tensor, body: Tensor) -> Tensor:
        """The enlarged image, from what enter() kept and the features behind any of the layers."""
        raise NotImplementedError(f"{type(self).__name__} cannot be finished alone; write its finish()")

    def finishing(self) -> Stream:
        """finish() fed by rows of what was kept and of the features, side by side as channels."""
        raise NotImplementedError(f"{type(self).__name__} cannot be finished by rows; write its finishing()")

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge x (N, 3, h, w); the form that is trained."""
        kept, body = self.enter(x)
        for layer in self.layers:
            body = layer(body)
        return self.finish(kept, body)


class Rejoin:
    """The end of a network with one long skip: `join` takes the features, what entered is added, and `tail` enlarges.

    It is fed by rows of what entered and of the features, side by side as channels; `entered`: channels of the former.
    """

    def __init__(self, entered: int, join: Stream, tail: Stream | None = None) -> None:
        self.entered, self.join, self.tail, self.delay = entered, join, tail, Delay()

    def push(self, rows: Tensor, last: bool) -> Tensor:
        made = self.join.push(rows[:, self.entered :], last)
        made.add_(self.delay.match(rows[:, : self.entered], made.shape[2]))
        return made if self.tail is None else self.tail.push(made, last)


def feed(stream: Stream, maps: Sequence[Tensor], reach: int) -> Iterator[Tensor]:
    """The rows that a stream makes of maps (1, C, h, w), which it is fed side by side, from the top.

    Rows that were given may be written into the maps: the stream has read what lies there.
    """
    height, width = maps[0].shape[2:]
    for start, stop in bands(height, width, reach):
        rows = [one[:, :, start:stop] for one in maps]
        yield stream.push(rows[0] if len(rows) == 1 else torch.cat(rows, dim=1), stop == height)
