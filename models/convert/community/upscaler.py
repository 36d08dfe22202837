"""A network of spandrel under the contract of all upscalers."""

import copy
import threading
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from tierscale.models.contract.efforts import Efforts
from tierscale.models.contract.upscaler import Placement, Upscaled
from tierscale.models.convert.community import measuring
from tierscale.models.runtime.plain import check_windows

# Side of the window that costs are quoted for: large enough for all size rules but those of
# networks for faces.
SIDE = 128
# Over the maps that were counted: what convolutions need for themselves.
WORKSPACE = 1.3


class CommunityUpscaler:
    """A network of spandrel under the contract; windows (N, 3, h, w), 0..1.

    Results are clipped to 0..1, as spandrel does. A network of one channel enlarges red, green and
    blue one by one, and a grey window once; one of four gets an opaque alpha, and what it makes of
    that is left out. Windows that break the network's size rules (a least side, a multiple, a
    square) are filled up by reflection at the right and at the bottom, and the surplus is cut off.
    Nothing tells how far the network looks, so that the reach is the whole window.

    multiple: windows must begin at multiples of so many input pixels. architecture: spandrel's name
    of it. notes: what its users should know, in sentences.
    """

    scales: frozenset[Fraction] | None
    reach: int | None = None
    control: str | None = None
    efforts: Efforts | None = None
    has_bfloat16 = False

    def __init__(self, descriptor: Any) -> None:
        self.descriptor = descriptor
        self.architecture = str(descriptor.architecture.name)
        self.descriptor.model.eval().requires_grad_(False)
        self.scale, self.channels = int(descriptor.scale), int(descriptor.input_channels)
        self.scales = frozenset({Fraction(self.scale)})
        self.parameters = sum(parameter.numel() for parameter in descriptor.model.parameters())
        self.multiple = measuring.multiple_of(descriptor)
        self.notes = _notes(descriptor)
        self._counted: dict[tuple[int, int], int] = {}
        self._bytes: int | None = None
        least = self._filled(1, 1)
        self._own = threading.local() if measuring.changes_itself(descriptor, least) else None

    def to(self, device: str) -> "CommunityUpscaler":
        """Move the weights, in place."""
        self.descriptor.to(torch.device(device))
        if self._own is not None:
            self._own = threading.local()
        return self

    def to_bfloat16(self) -> "CommunityUpscaler":
        """It stays float32: what bfloat16 costs is known of no such network."""
        return self

    def __call__(
        self,
        windows: Tensor,
        place: Placement,
        effort: float = 1.0,
        settings: Mapping[str, float] = {},
    ) -> Upscaled:
        check_windows(windows, place, self.scale)
        once = self.count(windows.shape[2], windows.shape[3])
        made = [self._window(window[None]) for window in windows]
        runs = torch.tensor([count for _, count in made], dtype=torch.float64)
        return Upscaled(torch.cat([pixels for pixels, _ in made]), runs * (once / self._runs))

    @property
    def _runs(self) -> int:
        """Runs of the network for a window of three different channels."""
        return 3 if self.channels == 1 else 1

    def _network(self) -> Any:
        """The descriptor, with a network of this thread's own where its calls change it."""
        if self._own is None:
            return self.descriptor
        if not hasattr(self._own, "descriptor"):
            self._own.descriptor = copy.copy(self.descriptor)
            self._own.descriptor._model = copy.deepcopy(self.descriptor.model)
        return self._own.descriptor

    def _window(self, window: Tensor) -> tuple[Tensor, int]:
        """One window (1, 3, h, w) enlarged, and how often the network ran for it.

        It gets a copy: some networks write to what they are given.
        """
        network = self._network()
        if self.channels == 1:
            planes = window.split(1, dim=1)
            if torch.equal(planes[0], planes[1]) and torch.equal(planes[0], planes[2]):
                return network(planes[0].clone()).expand(-1, 3, -1, -1), 1
            return torch.cat([network(plane.clone()) for plane in planes], dim=1), 3
        if self.channels == 4:
            window = torch.cat([window, torch.ones_like(window[:, :1])], dim=1)
        return network(window.clone(memory_format=torch.contiguous_format))[:, :3], 1

    def _filled(self, height: int, width: int) -> tuple[int, int]:
        """Height and width as the size rules ask."""
        wide, tall = self.descriptor.size_requirements.get_padding(width, height)
        return height + tall, width + wide

    def count(self, height: int, width: int) -> int:
        """Multiply-adds for one window of `height` by `width`, filled up as the size rules ask."""
        size = self._filled(height, width)
        if size not in self._counted:
            self._counted[size] = self._runs * measuring.count(self.descriptor, size)
        return self._counted[size]

    def cost(self, scale: Fraction, effort: float = 1.0) -> float:
        """Multiply-adds for each input pixel of a window of 128 pixels a side."""
        return self.count(SIDE, SIDE) / SIDE**2

    def memory(self, scale: Fraction) -> float:
        """Bytes for each input pixel of a window: the most that its maps take at a time."""
        if self._bytes is None:
            self._bytes = measuring.peak_bytes(self.descriptor, self._filled(SIDE, SIDE))
        return WORKSPACE * self._bytes / SIDE**2 + 24 * self.scale**2


def _notes(descriptor: Any) -> tuple[str, ...]:
    """What spandrel says of a network that users should know."""
    if descriptor.tiling.name == "DISCOURAGED":
        return (
            f"its authors advise against cutting pictures for {descriptor.architecture.name}, which"
            " looks at all of a picture; look for borders of shards in the result",
        )
    return ()
