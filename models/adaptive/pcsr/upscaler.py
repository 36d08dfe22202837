"""PCSR as an upscaler: each output pixel is made by a light or a heavy sampler, and by no other.

Jeong, Kim, Jo and Kim 2024, "Accelerating Image Super-Resolution Networks with Pixel-Level
Classification", arXiv 2407.21448.

An encoder gives features at input resolution. For each output pixel, a small classifier looks at
the nearest feature and at the pixel's place in it, and one of several samplers, from light to
heavy, makes the pixel. Samplers and classifier are multi-layer perceptrons. What they make is added
to a bilinear enlargement.
"""

from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import partial

import torch
from torch import Tensor, nn

from tierscale.models.adaptive.pcsr.network import Pcsr
from tierscale.models.adaptive.pcsr.operations import upstream_operations
from tierscale.models.adaptive.pcsr.pixelwise import (
    Decide,
    PixelBuffer,
    by_difficulty,
    by_probability,
    difficulty,
    refine,
)
from tierscale.models.backbones.carn import Carn
from tierscale.models.contract.checkpoints import Checkpoint, ModelSpec, fill
from tierscale.models.contract.efforts import (
    SAFETY_MARGIN,
    Efforts,
    check_effort,
    check_settings,
    measured_setting,
)
from tierscale.models.contract.modules import channels_last
from tierscale.models.contract.upscaler import LARGE, Placement, Upscaled, hr_length
from tierscale.models.runtime import resample
from tierscale.models.runtime.counting import executed
from tierscale.models.runtime.nearest import axes
from tierscale.models.runtime.plain import check_colours
from tierscale.models.runtime.stream import BAND, bands


class PcsrUpscaler:
    """PCSR (section 3) as an upscaler of any scale.

    Windows (N, 3, h, w), 0..1, to Upscaled.pixels (N, 3, H, W), not clipped. Upscaled.choice: the
    sampler of each pixel, uint8.

    The control is the paper's k: each probability is divided by its sampler's cost to the power k,
    then the largest wins; a larger k makes more pixels light. At effort 1 the heaviest sampler
    makes all pixels and the classifier rests.

    settings: "k"; or "threshold", a difficulty above which a pixel is heavy (with more than two
    samplers "threshold", "threshold2" and so on, rising), frozen from the difficulties of the whole
    image; "refine": 1 or 0.
    """

    scales: frozenset[Fraction] | None = None
    control: str | None = "k"
    efforts: Efforts | None = None
    has_bfloat16 = False
    safety_margin = SAFETY_MARGIN
    calibration_grid = (
        50.0,
        *(k / 8 for k in (32, 24, 20, 16, 12, 10, 8, 7, 6, 5, 4, 3, 2, 1)),
        *(k / 32 for k in (3, 2, 1, 0, -1, -2, -3)),
        *(-k / 8 for k in (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24, 32, 48, 64)),
    )

    def __init__(self, network: Pcsr, spec: ModelSpec, origin: str = "this network") -> None:
        self.spec, self.origin = spec, origin
        self.refined = bool(spec.arguments.get("refine", True))
        self.parameters = sum(parameter.numel() for parameter in network.parameters())
        self.encoder_operations = upstream_operations(network.encoder, torch.zeros(1, 3, 8, 8)) / 64
        network = network.eval().requires_grad_(False)
        encoder = network.encoder
        if isinstance(encoder, Carn) and any(
            isinstance(module, nn.BatchNorm2d) for module in encoder.modules()
        ):
            encoder = encoder.fold().requires_grad_(False)
        self.encoder = channels_last(encoder)
        self.classifier, self.samplers = network.classifier, network.samplers
        # Refinement looks one output pixel further, and that may lie in the next input pixel.
        self.reach: int | None = encoder.reach + 1
        self.mean = torch.tensor(spec.mean).view(3, 1, 1)
        self.encoder_cost = executed(lambda: self.encoder(torch.zeros(1, 3, 8, 8))) // 64

    def to(self, device: str) -> "PcsrUpscaler":
        """Move the weights, in place."""
        self.mean = self.mean.to(device)
        for part in (self.encoder, self.classifier, *self.samplers):
            part.to(device)
        return self

    def to_bfloat16(self) -> "PcsrUpscaler":
        """It stays float32, because each pixel's sampler is decided by the encoder's features.

        With those of bfloat16, 7 pixels in 10,000 got another sampler, and were up to 39 of 255
        off; a second encoder for the decisions alone would take more than bfloat16 saves.
        """
        return self

    def __call__(
        self,
        windows: Tensor,
        place: Placement,
        effort: float = 1.0,
        settings: Mapping[str, float] = {},
    ) -> Upscaled:
        check_colours(windows)
        decide = self.decision(place.scale, effort, settings)
        refined = bool(settings.get("refine", self.refined))
        pixels = resample.resample(windows, place, "bilinear")
        chosen = torch.full(
            (len(windows), *pixels.shape[2:]),
            len(self.samplers) - 1,
            dtype=torch.uint8,
            device=windows.device,
        )
        # Each window for itself: its result does not depend on its batch, not even in the last bit.
        macs = [0.0] * len(windows)
        for i, buffer in enumerate(self._buffers(pixels, chosen, windows, place)):
            for row, features in self._features(windows[i : i + 1]):
                points = buffer.points(row, len(features) // windows.shape[3])
                if decide is not None:
                    macs[i] += buffer.decide(features, points, row, self.classifier, decide)
                macs[i] += buffer.make(features, points, row, self.samplers)
            if refined and decide is not None:
                refine(buffer.pixels, buffer.chosen, len(self.samplers))
        return Upscaled(
            pixels, torch.tensor(macs, dtype=torch.float64) + self._fixed(windows, pixels), chosen
        )

    @property
    def difficulty_cutoffs(self) -> tuple[str, ...]:
        """Names of the settings that hold cutoffs of difficulty, rising."""
        return ("threshold", *(f"threshold{index}" for index in range(2, len(self.samplers))))

    def difficulty_cost(self, scale: Fraction) -> float:
        """Multiply-adds of difficulties() for each input pixel of a large window."""
        return (
            self.encoder_cost
            + self.classifier.cost(LARGE**2, hr_length(LARGE, scale) ** 2) / LARGE**2
        )

    def difficulties(self, windows: Tensor, place: Placement) -> tuple[Tensor, Tensor]:
        """What the automatic decision looks at, 0..1, (N, H, W), and its multiply-adds, (N,)."""
        height, width = windows.shape[2:]
        result = windows.new_empty(len(windows), *place.hr_shape(height, width))
        macs = torch.full(
            (len(windows),), float(self.encoder_cost * height * width), dtype=torch.float64
        )
        for i, buffer in enumerate(self._buffers(result[:, None], result, windows, place)):
            for row, features in self._features(windows[i : i + 1]):
                points = buffer.points(row, len(features) // width)
                macs[i] += buffer.decide(features, points, row, self.classifier, difficulty)
        return result, macs

    def _buffers(
        self, pixels: Tensor, chosen: Tensor, windows: Tensor, place: Placement
    ) -> Iterator[PixelBuffer]:
        """The output pixels of one window after another."""
        for index in range(len(windows)):
            yield PixelBuffer(
                pixels[index],
                chosen[index],
                *axes(place, index, windows.shape[2], windows.shape[3]),
            )

    def _fixed(self, windows: Tensor, pixels: Tensor) -> float:
        """Multiply-adds of encoder and bilinear enlargement for one window."""
        (height, width), (hr_height, hr_width) = windows.shape[2:], pixels.shape[2:]
        return self.encoder_cost * height * width + resample.multiply_adds(
            3, width, hr_height, hr_width, "bilinear"
        )

    def decision(
        self, scale: Fraction, effort: float = 1.0, settings: Mapping[str, float] = {}
    ) -> Decide | None:
        """How pixels get their samplers; None: all get the heaviest.

        ValueError: an unknown name in `settings`, or an effort that was not measured.
        """
        check_settings("PCSR", settings, ("k", "refine", *self.difficulty_cutoffs))
        if "threshold" in settings:
            cutoffs = [settings[name] for name in self.difficulty_cutoffs]
            return partial(by_difficulty, torch.tensor(cutoffs, dtype=torch.float64))
        check_effort(effort)
        if "k" not in settings and effort == 1:
            return None
        k = (
            settings["k"]
            if "k" in settings
            else measured_setting(self.efforts, effort, self.origin)
        )
        return partial(by_probability, k * self.cost_list(scale).double().log())

    def cost_list(self, scale: Fraction) -> Tensor:
        """Cost of each sampler as the paper counts it, as shares of 1; float32 (samplers,).

        On 16 by 16 input pixels: encoder, and all layers of one sampler at every output pixel.
        """
        side = hr_length(16, scale)
        each = [
            self.encoder_operations * 256
            + 2 * sum(layer.weight.numel() for layer in sampler.layers) * side**2
            for sampler in self.samplers
        ]
        return torch.tensor([cost / sum(each) for cost in each])

    def cost(self, scale: Fraction, effort: float = 1.0) -> float:
        """Multiply-adds for each input pixel of a large window.

        Below full effort the mean over the images that the efforts were measured on.
        """
        side = hr_length(LARGE, scale)
        residual = resample.multiply_adds(3, LARGE, side, side, "bilinear")
        full = self.encoder_cost + (self.samplers[-1].cost(LARGE**2, side**2) + residual) / LARGE**2
        if effort == 1 or self.efforts is None:
            return full
        return full * self.efforts.cost_fraction(effort)

    def memory(self, scale: Fraction) -> float:
        """Bytes for each input pixel of a window.

        Three times the window, the result twice, and the choice.
        """
        return 36 + 25 * float(scale) ** 2

    def _features(self, window: Tensor) -> Iterator[tuple[int, Tensor]]:
        """First row and features (n * w, C) of some rows of a window (1, 3, h, w) after another.

        Of all rows at once on a GPU.
        """
        height, width = window.shape[2:]
        centred = (window - self.mean).contiguous(memory_format=torch.channels_last)
        if window.device.type != "cpu":
            yield 0, self.encoder(centred).permute(0, 2, 3, 1).flatten(0, 2)
            return
        layers, row = self.encoder.stream(), 0
        band = BAND * torch.get_num_threads()  # each thread takes its part of what a layer makes
        for start, stop in bands(height, width, self.encoder.reach, band):
            features = layers.push(centred[:, :, start:stop], stop == height)
            yield row, features.permute(0, 2, 3, 1).flatten(0, 2)
            row += features.shape[2]


def build(checkpoint: Checkpoint, origin: str) -> PcsrUpscaler:
    """The upscaler of a checkpoint; `origin` names it in errors."""
    spec = checkpoint.spec
    try:
        # Of the upscaler, not of the network.
        network = Pcsr(**{name: v for name, v in spec.arguments.items() if name != "refine"})
    except TypeError as error:
        raise ValueError(
            f"{origin} asks for a PCSR of {spec.arguments}, which cannot be built ({error})"
        ) from error
    fill(network, checkpoint.tensors, origin)
    return PcsrUpscaler(network, spec, origin)
