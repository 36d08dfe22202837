"""Networks of the library spandrel as tiers: every single-file network that it knows.

spandrel is optional (`pip install "tierscale[community]"`) and imported when the first such network
is loaded.
"""

import copy
import importlib.util
import sys
from collections.abc import Callable, Mapping
from fractions import Fraction
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from tierscale.models.contract.checkpoints import FORMAT, WeightsFile
from tierscale.models.contract.efforts import Efforts
from tierscale.models.contract.upscaler import Placement, Upscaled
from tierscale.models.convert.files import parse_upstream
from tierscale.models.runtime.counting import executed
from tierscale.models.runtime.plain import check_windows

# Side of the window that costs are quoted for: large enough for all size rules but those of
# networks for faces.
SIDE = 128


def is_foreign(file: WeightsFile) -> bool:
    """Whether a file holds weights that are none of ours.

    Such are .pth, .pt and .ckpt files, and .safetensors files that do not say what to build.
    """
    if file.path.suffix in (".pth", ".pt", ".ckpt"):
        return True
    about = file.metadata()
    return about is not None and about.get("format") != FORMAT


def load(file: WeightsFile) -> "CommunityUpscaler":
    """The network of a file.

    ValueError: spandrel is missing, does not know it, or it does not enlarge pictures.
    """
    path = file.path
    reason = (
        f"{path} has format None, not {FORMAT!r}"
        if path.suffix == ".safetensors"
        else f"{path} is not a .safetensors file of tierscale"
    )
    try:
        spandrel = import_spandrel()
    except ImportError as error:
        raise ValueError(
            f"{reason}; for networks of other programs, install spandrel: pip install"
            ' "tierscale[community]"'
        ) from error
    weights = parse_upstream(file)
    if not isinstance(weights, Mapping):
        raise ValueError(f"{path} holds a {type(weights).__name__} and no tensors by name")
    try:
        descriptor = spandrel.ModelLoader().load_from_state_dict(
            spandrel.canonicalize_state_dict(dict(weights))
        )
    except (spandrel.UnsupportedModelError, KeyError, RuntimeError, AssertionError) as error:
        message = str(error).strip().splitlines()
        raise ValueError(
            f"{reason}, and spandrel builds no network from it"
            f" ({message[0] if message else type(error).__name__})"
        ) from error
    channels = (descriptor.input_channels, descriptor.output_channels)
    if not isinstance(descriptor, spandrel.ImageModelDescriptor) or channels not in (
        (1, 1),
        (3, 3),
        (4, 4),
    ):
        raise ValueError(
            f"{path} is a {descriptor.architecture.name} from {channels[0]} to {channels[1]}"
            " channels; a tier makes a picture of 1, 3 or 4 channels from one alike"
        )
    return CommunityUpscaler(descriptor)


def import_spandrel() -> Any:
    """The module spandrel; ImportError where it is not installed.

    It imports torchvision for two networks, one that fills holes and one for faces. A torchvision
    that was built for another torch than the one that is here breaks on import, so where it is
    missing or broken, empty names stand in for it meanwhile.
    """
    if importlib.util.find_spec("spandrel") is None:
        raise ImportError("spandrel is not installed")
    names: tuple[str, ...] = (
        "torchvision",
        "torchvision.transforms",
        "torchvision.transforms.functional",
    )
    try:
        import torchvision.transforms.functional  # noqa: F401 - only whether it can be

        names = ()
    except (ImportError, RuntimeError):
        sys.modules.update({name: ModuleType(name) for name in names})
        sys.modules[names[-1]].__dict__.update(
            dict.fromkeys(("InterpolationMode", "rotate", "normalize"))
        )
    try:
        import spandrel
    finally:
        for name in names:
            del sys.modules[name]
    return spandrel


class CommunityUpscaler:
    """A network of spandrel under the contract; windows (N, 3, h, w), 0..1.

    Results are clipped to 0..1, as spandrel does. A network of one channel enlarges red, green and
    blue one by one; one of four gets an opaque alpha, and what it makes of that is left out.
    Windows that break the network's size rules (a least side, a multiple, a square) are filled up
    by reflection at the right and at the bottom, and the surplus is cut off. Nothing tells how far
    the network looks, so that the reach is the whole window.
    """

    scales: frozenset[Fraction] | None
    reach: int | None = None
    control: str | None = None
    efforts: Efforts | None = None
    has_bfloat16 = False

    def __init__(self, descriptor: Any) -> None:
        self.descriptor = descriptor
        self.descriptor.model.eval().requires_grad_(False)
        self.scale, self.channels = int(descriptor.scale), int(descriptor.input_channels)
        self.scales = frozenset({Fraction(self.scale)})
        self.parameters = sum(parameter.numel() for parameter in descriptor.model.parameters())
        self._counted: dict[tuple[int, int], int] = {}

    def to(self, device: str) -> "CommunityUpscaler":
        """Move the weights, in place."""
        self.descriptor.to(torch.device(device))
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
        pixels = torch.cat([self._window(window[None]) for window in windows])
        macs = float(self.count(windows.shape[2], windows.shape[3]))
        return Upscaled(pixels, torch.full((len(windows),), macs, dtype=torch.float64))

    def _window(self, window: Tensor) -> Tensor:
        """One window (1, 3, h, w) enlarged."""
        if self.channels == 1:
            return torch.cat(
                [self.descriptor(plane.contiguous()) for plane in window.split(1, dim=1)], dim=1
            )
        if self.channels == 4:
            window = torch.cat([window, torch.ones_like(window[:, :1])], dim=1)
        return self.descriptor(window.contiguous())[:, :3]

    def count(self, height: int, width: int) -> int:
        """Multiply-adds for one window of `height` by `width`, filled up as the size rules ask."""
        wide, tall = self.descriptor.size_requirements.get_padding(width, height)
        size = (height + tall, width + wide)
        if size not in self._counted:
            self._counted[size] = self._dry(size, lambda model, run: executed(run)) * (
                3 if self.channels == 1 else 1
            )
        return self._counted[size]

    def cost(self, scale: Fraction, effort: float = 1.0) -> float:
        """Multiply-adds for each input pixel of a window of 128 pixels a side."""
        return self.count(SIDE, SIDE) / SIDE**2

    def memory(self, scale: Fraction) -> float:
        """Bytes for each input pixel of a window: an estimate.

        Four times the largest map that the network makes, and the result twice.
        """

        def largest(model: nn.Module, run: Callable[[], object]) -> int:
            sizes = [0]
            for module in model.modules():
                module.register_forward_hook(
                    lambda module, inputs, output: sizes.append(
                        output.numel() if isinstance(output, Tensor) else 0
                    )
                )
            run()
            return max(sizes)

        wide, tall = self.descriptor.size_requirements.get_padding(SIDE, SIDE)
        return 16 * self._dry((SIDE + tall, SIDE + wide), largest) / SIDE**2 + 24 * self.scale**2

    def _dry(
        self, size: tuple[int, int], measure: Callable[[nn.Module, Callable[[], object]], int]
    ) -> int:
        """What `measure` finds of a copy of the network and a run of it.

        On shapes without values, or on zeros where the network looks at values.
        """
        shape = (1, self.channels, *size)
        try:
            hollow = copy.deepcopy(self.descriptor.model).to("meta")
            return measure(hollow, lambda: hollow(torch.zeros(shape, device="meta")))
        except (RuntimeError, NotImplementedError, TypeError):
            full = copy.deepcopy(self.descriptor.model)
            return measure(full, lambda: full(torch.zeros(shape, device=self.descriptor.device)))
