"""AnySR as an upscaler: an encoder of any width, and a head that makes pixels at any scale.

Fu, Zhong and others 2024, "AnySR: Realizing Image Super-Resolution as Any-Scale, Any-Resource",
arXiv 2407.04241. Of the encoder only the first hidden channels are computed, the fewer the smaller
the effort.
"""

from collections.abc import Mapping
from fractions import Fraction

import torch
from torch import Tensor

from tierscale.models.adaptive.anysr.gate import Gate
from tierscale.models.adaptive.anysr.network import TRAINED, WIDTHS, AnySr, width_by_scale
from tierscale.models.contract.checkpoints import Checkpoint, ModelSpec, fill
from tierscale.models.contract.efforts import Efforts, check_effort
from tierscale.models.contract.modules import channels_last
from tierscale.models.contract.upscaler import LARGE, Placement, Upscaled, hr_length
from tierscale.models.runtime.nearest import Axis, axes
from tierscale.models.runtime.plain import check_colours
from tierscale.models.runtime.resample import multiply_adds, resample


class AnySrUpscaler:
    """AnySR (section 3) as an upscaler of any scale.

    Windows (N, 3, h, w), 0..1, to Upscaled.pixels (N, 3, H, W), not clipped. Each window is an
    image of its own, since its means and attention are over all of it.

    The control is the width, the share of hidden channels; effort is the encoder's cost at that
    width as a share of its full cost, and full effort is full width. The head's cost does not
    shrink: SRNO's at scale 4 is eleven times that of a full EDSR encoder of 16 blocks. settings:
    "width". effort_by_scale() is the paper's choice. Upscaled.choice: the width of each window.
    """

    scales: frozenset[Fraction] | None = None
    reach: int | None = None
    control: str | None = "width"
    efforts: Efforts | None

    def __init__(self, network: AnySr, spec: ModelSpec) -> None:
        self.kind = network.kind
        network = network.eval().requires_grad_(False)
        self.parameters = sum(parameter.numel() for parameter in network.parameters())
        self.encoder = channels_last(network.encoder)
        self.head = network.head
        self.mean = torch.tensor(spec.mean).view(3, 1, 1)
        # A width costs the same on all images, so that counting tells what must be measured for
        # other methods.
        widths = tuple(tenths / 10 for tenths in range(round(10 * WIDTHS[self.kind][0]), 11))
        costs = [self.encoder.cost(LARGE**2, width) for width in widths]
        self.counted = Efforts(
            "width",
            widths,
            tuple(cost / costs[-1] for cost in costs),
            "",
            {"counted": "the encoder's multiply-adds"},
        )
        self.efforts = self.counted

    def to(self, device: str) -> "AnySrUpscaler":
        """Move the weights, in place."""
        self.mean = self.mean.to(device)
        for part in (self.encoder, self.head):
            part.to(device)
        return self

    has_bfloat16 = True

    def to_bfloat16(self) -> "AnySrUpscaler":
        """The encoder in bfloat16; the head, gates and the means that they rest on stay float32."""
        self.encoder.to(torch.bfloat16)
        for module in self.encoder.modules():
            if isinstance(module, Gate):
                module.to(torch.float32)
        return self

    def width(self, effort: float) -> float:
        """The width for an effort."""
        check_effort(effort)
        return 1.0 if effort == 1 or self.efforts is None else self.efforts.setting(effort)

    def effort_by_scale(self, scale: Fraction) -> float:
        """The effort of the width that the paper takes at a scale, see width_by_scale()."""
        return (self.efforts or self.counted).share(width_by_scale(self.kind, scale))

    def __call__(
        self,
        windows: Tensor,
        place: Placement,
        effort: float = 1.0,
        settings: Mapping[str, float] = {},
    ) -> Upscaled:
        check_colours(windows)
        width = settings["width"] if "width" in settings else self.width(effort)
        if not 0 < width <= 1:
            raise ValueError(
                f"a width of {width:g} is not a share above 0 and up to 1 of the hidden channels"
            )
        pixels = resample(windows, place, "bilinear")
        height, wide = windows.shape[2:]
        for index in range(len(windows)):
            rows, columns = axes(place, index, height, wide)
            pixels[index] += self._window(
                windows[index : index + 1], rows, columns, place.scale, width
            )[0]
        queries = pixels.shape[2] * pixels.shape[3]
        residual = multiply_adds(3, wide, pixels.shape[2], pixels.shape[3], "bilinear")
        encoder = self.encoder.cost(height * wide, width)
        macs = float(encoder + self.head.cost(height * wide, queries) + residual)
        return Upscaled(
            pixels,
            torch.full((len(windows),), macs, dtype=torch.float64),
            torch.full((len(windows),), width),
        )

    def _window(
        self, window: Tensor, rows: Axis, columns: Axis, scale: Fraction, width: float
    ) -> Tensor:
        """What is added to the enlargement of one window (1, 3, h, w)."""
        centred = (window - self.mean).contiguous(memory_format=torch.channels_last)
        run = self.encoder.run if window.device.type == "cpu" else self.encoder
        stretch = max(1.0, float(scale) / TRAINED)
        features = run(centred, scale, width).to(window.dtype)
        return self.head.run(features, rows, columns, stretch)

    def cost(self, scale: Fraction, effort: float = 1.0) -> float:
        """Multiply-adds for each input pixel of a large window."""
        side = hr_length(LARGE, scale)
        head = self.head.cost(LARGE**2, side**2) + multiply_adds(3, LARGE, side, side, "bilinear")
        return (self.encoder.cost(LARGE**2, self.width(effort)) + head) / LARGE**2

    def memory(self, scale: Fraction) -> float:
        """Bytes for each input pixel of a window.

        The encoder's maps, the head's queries, the enlargement.
        """
        maps = 4 * self.encoder.features * (4 if self.kind == "edsr" else 10)
        return maps + self.head.memory(scale) + 36 * float(scale) ** 2


def build(checkpoint: Checkpoint, origin: str) -> AnySrUpscaler:
    """The upscaler of a checkpoint; `origin` names it in errors."""
    spec = checkpoint.spec
    try:
        network = AnySr(**spec.arguments)
    except TypeError as error:
        raise ValueError(
            f"{origin} asks for an AnySR of {spec.arguments}, which cannot be built ({error})"
        ) from error
    fill(network, checkpoint.tensors, origin)
    return AnySrUpscaler(network, spec)
