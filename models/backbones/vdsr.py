"""VDSR: the image is enlarged by bicubic first, and many 3x3 convolutions add what that lacks.

Kim, Lee and Lee 2016, "Accurate Image Super-Resolution Using Very Deep Convolutional Networks",
section 3.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tierscale.models.backbones.initial import he
from tierscale.models.contract.modules import module_list
from tierscale.models.runtime.stages import Rejoin, Staged
from tierscale.models.runtime.stream import BAND, Chain, Convolve, Finely, Skip, Stream, check_scale


def cubic(distance: Tensor) -> Tensor:
    """Keys' cubic convolution kernel with a = -0.75, which torch's interpolate uses; support 2."""
    d = distance.abs()
    near = 1.25 * d**3 - 2.25 * d**2 + 1
    far = -0.75 * d**3 + 3.75 * d**2 - 6 * d + 3
    return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))


def phases(scale: int) -> Tensor:
    """Weight (scale * scale, 1, 5, 5) of a convolution that enlarges one channel by cubic().

    A pixel shuffle by `scale` follows it. The centre of output pixel r of an input pixel lies (2r +
    1 - scale) / 2scale input pixels from that pixel's own centre, wherever in the image it is: no
    coordinate that grows with the distance from the origin comes in.
    """
    centres = (2 * torch.arange(scale, dtype=torch.float64) + 1 - scale) / (2 * scale)
    spread = cubic(centres[:, None] - torch.arange(-2, 3))  # (s, 5)
    return torch.einsum("ai,bj->abij", spread, spread).reshape(scale * scale, 1, 5, 5).float()


class Layer(nn.Module):
    """A 3x3 convolution and a ReLU; reaches 1 output pixel."""

    def __init__(self, inputs: int, features: int) -> None:
        super().__init__()
        self.convolve = nn.Conv2d(inputs, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolve(x).relu_()

    def stream(self) -> Stream:
        """The same layer, fed by rows."""
        return Chain(Convolve.of(self.convolve), torch.relu_)


class Vdsr(Staged):
    """(N, 3, h, w) -> (N, 3, scale * h, scale * w), values around the mean.

    The bicubic enlargement is part of it.
    layers: 3x3 convolutions, the first and the last among them; features: channels between.
    """

    adds_detail = False

    def __init__(self, scale: int = 4, layers: int = 20, features: int = 64) -> None:
        super().__init__()
        check_scale("VDSR", scale)
        if layers < 2:
            raise ValueError(f"VDSR of {layers} layers has no first and last one; give 2 or more")
        self.scale = self.body_scale = scale
        self.features = features
        # The centre of the first output pixel that the layers see above output pixel 0 is -(2 *
        # layers + scale - 1) / 2scale in input pixels; bicubic reads the input pixel below that and
        # one more.
        self.reach = (2 * layers + 3 * scale - 2) // (2 * scale) + 1
        self.phases: Tensor
        self.register_buffer("phases", phases(scale), persistent=False)
        self.first = Layer(3, features)
        self.middle = module_list(Layer(features, features) for _ in range(layers - 2))
        self.last = nn.Conv2d(features, 3, 3, padding=1)
        he(self, {0.02: [self.last]})

    def enlarge(self, x: Tensor) -> Tensor:
        """Bicubic, a = -0.75, border repeated: (N, 3, h, w) -> (N, 3, scale * h, scale * w)."""
        return spread(F.pad(x, (2, 2, 2, 2), mode="replicate"), self.phases, self.scale)

    @property
    def layers(self) -> Sequence[nn.Module]:
        return list(self.middle)

    def enter(self, x: Tensor) -> tuple[Tensor, Tensor]:
        enlarged = self.enlarge(x)
        return enlarged, self.first(enlarged)

    def finish(self, entered: Tensor, body: Tensor) -> Tensor:
        return entered + self.last(body)

    def finishing(self, entered: Tensor) -> Stream:
        return Rejoin(entered, Convolve.of(self.last))

    def stream(self) -> Stream:
        """The same network, fed by rows."""
        layers = Chain(
            self.first.stream(), *(layer.stream() for layer in self.middle), Convolve.of(self.last)
        )
        return Chain(
            Enlarge(self.phases, self.scale), Finely(Skip(layers), BAND, len(list(self.middle)) + 2)
        )


class Enlarge:
    """Vdsr.enlarge() fed by rows; its output lags two input pixels behind."""

    def __init__(self, weight: Tensor, scale: int) -> None:
        self.weight, self.scale = weight, scale
        self.held: Tensor | None = None

    def push(self, rows: Tensor, last: bool) -> Tensor:
        above = rows[:, :, :1].expand(-1, -1, 2, -1) if self.held is None else self.held
        rows = torch.cat(
            [above, rows, rows[:, :, -1:].expand(-1, -1, 2, -1)] if last else [above, rows], dim=2
        )
        self.held = rows[:, :, -4:]
        return spread(F.pad(rows, (2, 2, 0, 0), mode="replicate"), self.weight, self.scale)


def spread(padded: Tensor, weight: Tensor, scale: int) -> Tensor:
    """Enlarge each channel of maps (N, C, h + 4, w + 4) to (N, C, scale * h, scale * w).

    Two pixels on each side are context.
    """
    count, channels, height, width = padded.shape
    enlarged = F.pixel_shuffle(
        F.conv2d(padded.reshape(count * channels, 1, height, width), weight), scale
    )
    return enlarged.view(count, channels, scale * (height - 4), scale * (width - 4)).contiguous(
        memory_format=torch.channels_last
    )
