"""Networks with a row of like layers in their middle, which can be left behind any of them.

And how a part of one runs down a window.
"""

from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from tierscale.models.runtime.stream import BAND, RowNetwork, Stream, at_least_float32, bands


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
        """The layers, each (N, features, h, w) to the same.

        They have a stream() of their own where the network's reach is finite.
        """
        raise NotImplementedError(
            f"{type(self).__name__} does not tell its layers; write its layers()"
        )

    def enter(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What finish() needs beside the features, and the features that the first layer takes.

        These may be one tensor.
        """
        raise NotImplementedError(
            f"{type(self).__name__} cannot be entered alone; write its enter()"
        )

    def finish(self, entered: Tensor, body: Tensor) -> Tensor:
        """The enlarged image, from what enter() gave and the features behind any of the layers."""
        raise NotImplementedError(
            f"{type(self).__name__} cannot be finished alone; write its finish()"
        )

    def finishing(self, entered: Tensor) -> Stream:
        """finish() fed by rows of the features."""
        raise NotImplementedError(
            f"{type(self).__name__} cannot be finished by rows; write its finishing()"
        )

    def finish_by_rows(self, entered: Tensor, body: Tensor) -> Tensor:
        """finish() through finishing(): (N, 3, H, W), float32 also of features in bfloat16."""
        factor, row = self.scale // self.body_scale, 0
        shape = (len(body), 3, factor * body.shape[2], factor * body.shape[3])
        result = body.new_empty(shape, dtype=at_least_float32(body.dtype))
        for rows in feed(self.finishing(entered), body, self.behind):
            result[:, :, row : row + rows.shape[2]] = rows
            row += rows.shape[2]
        return result

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge x (N, 3, h, w); the form that is trained."""
        entered, body = self.enter(x)
        for layer in self.layers:
            body = layer(body)
        return self.finish(entered, body)


class Rejoin:
    """The end of a network with one long skip, fed by rows of the features.

    `join` takes them, what entered is added, `tail` enlarges.
    """

    def __init__(self, entered: Tensor, join: Stream, tail: Stream | None = None) -> None:
        self.entered, self.join, self.tail, self.row = entered, join, tail, 0

    def push(self, rows: Tensor, last: bool) -> Tensor:
        joined = self.join.push(rows, last)
        joined.add_(self.entered[:, :, self.row : self.row + joined.shape[2]])
        self.row += joined.shape[2]
        return joined if self.tail is None else self.tail.push(joined, last)


def feed(stream: Stream, features: Tensor, reach: int, pixels: int = BAND) -> Iterator[Tensor]:
    """The rows that a stream makes of features (N, C, h, w), about `pixels` at a time.

    From the top. Rows that were yielded may be written into the features: the stream has read what
    lies there.
    """
    height, width = features.shape[2:]
    for start, stop in bands(height, width, reach, pixels):
        yield stream.push(features[:, :, start:stop], stop == height)
