"""Plain networks of one integer scale under the contract.

Mean subtraction, residual, reach and counted cost.
"""

from collections.abc import Mapping
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

from tierscale.models.contract.checkpoints import Checkpoint, ModelSpec, fill
from tierscale.models.contract.efforts import Efforts, check_effort
from tierscale.models.contract.modules import channels_last, device_of, dtype_of
from tierscale.models.contract.upscaler import LARGE, Placement, Upscaled
from tierscale.models.runtime import resample
from tierscale.models.runtime.counting import by_size, for_counting
from tierscale.models.runtime.linear_tail import settle
from tierscale.models.runtime.stages import Staged
from tierscale.models.runtime.stream import RowNetwork, bands, run


def residual_weight(kernel: str, scale: int) -> Tensor:
    """Weight (scale * scale, 1, k, k) of a convolution that enlarges one channel as resample does.

    A pixel shuffle by `scale` follows it.
    """
    starts, weights = resample.taps(0, scale, Fraction(scale), kernel)
    margin = resample.reach(kernel)
    spread = torch.zeros(scale, 2 * margin + 1, dtype=torch.float64)
    spread.scatter_(1, starts[:, None] + torch.arange(2 * margin) + margin, weights)
    return (
        torch.einsum("ai,bj->abij", spread, spread)
        .reshape(scale * scale, 1, 2 * margin + 1, 2 * margin + 1)
        .float()
    )


def add_residual(result: Tensor, windows: Tensor, weight: Tensor, scale: int) -> None:
    """Add the enlargement of windows (N, C, h, w) to result (N, C, H, W), in place.

    weight: of residual_weight(). In bands that stay in cache; the border is repeated.
    """
    count, channels, height, width = windows.shape
    margin = weight.shape[-1] // 2
    padded = F.pad(windows, (margin,) * 4, mode="replicate").reshape(
        count * channels, 1, height + 2 * margin, -1
    )
    for start, stop in bands(height, width, 0):
        phases = F.conv2d(padded[:, :, start : stop + 2 * margin], weight)
        enlarged = F.pixel_shuffle(phases, scale).view(count, channels, -1, width * scale)
        result[:, :, start * scale : stop * scale] += enlarged


def check_windows(windows: Tensor, place: Placement, scale: int) -> None:
    """ValueError unless windows are (N, 3, h, w) and are to be enlarged by `scale`."""
    if Fraction(place.scale) != scale:
        raise ValueError(
            f"this network enlarges by {scale}, not by {place.scale}; load one that was trained for"
            f" {place.scale}"
        )
    check_colours(windows)


def check_colours(windows: Tensor) -> None:
    """ValueError unless windows are (N, 3, h, w)."""
    if windows.ndim != 4 or windows.shape[1] != 3:
        raise ValueError(
            f"windows of shape {tuple(windows.shape)} are not (N, 3, h, w); feed a grey as three"
            " equal channels"
        )


class PlainUpscaler:
    """SR = network(LR - mean) + residual, or + mean where there is none.

    Windows (N, 3, h, w), values 0..1; overshoots are left for the caller to clip.
    """

    scales: frozenset[Fraction] | None
    reach: int | None
    control: str | None = None
    efforts: Efforts | None = None

    def __init__(self, network: RowNetwork, spec: ModelSpec) -> None:
        self.scale = spec.scale
        self.scales = frozenset({Fraction(spec.scale)})
        self.spec = spec
        settle(network)
        self.network = channels_last(network.eval().requires_grad_(False))
        self.reach = network.reach
        if network.reach is not None and spec.residual is not None:
            self.reach = max(network.reach, resample.reach(spec.residual))
        self.mean = torch.tensor(spec.mean).view(3, 1, 1)
        self.weight = None if spec.residual is None else residual_weight(spec.residual, spec.scale)
        self.parameters = sum(parameter.numel() for parameter in network.parameters())
        self._counted: dict[bool, tuple[int, int]] = {}

    def to(self, device: str) -> "PlainUpscaler":
        """Move the weights, in place."""
        self.network, self.mean = self.network.to(device), self.mean.to(device)
        self.weight = None if self.weight is None else self.weight.to(device)
        return self

    @property
    def has_bfloat16(self) -> bool:
        """Not where the network makes the whole picture.

        Its pixels would be rounded, and not only what is added to an enlargement: a quarter of a
        level of 255 is the step of bfloat16 there.
        """
        return self.weight is not None and self.network.adds_detail

    def to_bfloat16(self) -> "PlainUpscaler":
        """Hold weights and maps in bfloat16, in place; mean and residual stay float32."""
        if self.has_bfloat16:
            self.network = self.network.to(torch.bfloat16)
        return self

    def centre(self, windows: Tensor) -> Tensor:
        """What the network takes of windows (N, 3, h, w): values around the mean, float32."""
        return (windows - self.mean).contiguous(memory_format=torch.channels_last)

    def __call__(
        self,
        windows: Tensor,
        place: Placement,
        effort: float = 1.0,
        settings: Mapping[str, float] = {},
    ) -> Upscaled:
        check_windows(windows, place, self.scale)
        check_effort(effort)
        pixels = self._enlarge(windows, streamed=windows.device.type == "cpu")
        macs = self.count(windows.shape[2], windows.shape[3], windows.device.type == "cpu")
        return Upscaled(pixels, torch.full((len(windows),), float(macs), dtype=torch.float64))

    def cost(self, scale: Fraction, effort: float = 1.0) -> float:
        """Multiply-adds for each input pixel of a large window on a CPU.

        Only a global pooling makes them depend on the size.
        """
        return self.count(LARGE, LARGE) / LARGE**2

    def memory(self, scale: Fraction) -> float:
        """Bytes for each input pixel of a window.

        The window three times, the result, and all layers' maps where it cannot be streamed.
        """
        maps = (
            28 * self.network.features
            if isinstance(self.network, Staged) and self.network.reach is None
            else 0
        )
        return 12 * (float(scale) ** 2 + 3) + maps

    def _enlarge(self, windows: Tensor, streamed: bool) -> Tensor:
        """Pixels of windows (N, 3, h, w).

        Streamed, nothing is computed twice; a GPU takes a batch at once.
        """
        if streamed:
            # What looks at the whole window is fed with all of its rows at once.
            reach = windows.shape[2] if self.network.reach is None else self.network.reach
            result = run(self.network.stream, windows - self.mean, self.scale, reach)
        else:
            centred = self.centre(windows).to(dtype_of(self.network))
            result = self.network(centred).to(windows.dtype)
        return self.complete(result, windows)

    def complete(self, result: Tensor, windows: Tensor) -> Tensor:
        """Add the mean, or the windows enlarged by the residual's kernel, to `result`; in place.

        result: what the network made of the windows.
        """
        if self.weight is None:
            return result.add_(self.mean)
        add_residual(result, windows, self.weight, self.scale)
        return result

    def count(self, height: int, width: int, streamed: bool = True) -> int:
        """Multiply-adds for one window of `height` by `width`, on a CPU (streamed) or a GPU."""
        if streamed not in self._counted:
            network = for_counting(self.network)
            device = device_of(network)
            counted = PlainUpscaler(network, self.spec).to(str(device))
            self._counted[streamed] = by_size(
                lambda side: counted._enlarge(
                    torch.zeros(1, 3, side, side, device=device), streamed
                )
            )
        pixel, window = self._counted[streamed]
        return pixel * height * width + window


def build(network: type[RowNetwork], checkpoint: Checkpoint, origin: str) -> PlainUpscaler:
    """The upscaler of a checkpoint; `origin` names it in errors."""
    spec = checkpoint.spec
    try:
        built = network(scale=spec.scale, **spec.arguments)
    except TypeError as error:
        raise ValueError(
            f"{origin} asks for a {spec.network} of {spec.arguments}, which cannot be"
            f" built ({error})"
        ) from error
    fill(built, checkpoint.tensors, origin)
    return PlainUpscaler(built, spec)
