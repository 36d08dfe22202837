"""PCSR (Jeong, Kim, Jo and Kim 2024, "Accelerating Image Super-Resolution Networks with Pixel-Level
Classification", arXiv 2407.21448).

An encoder gives features at input resolution. For each output pixel, a small classifier looks at
the nearest feature and at the pixel's place in it, and one of several samplers, from light to
heavy, makes the pixel. Samplers and classifier are multi-layer perceptrons. What they make is added
to a bilinear enlargement.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tierscale.models.adaptive.pcsr.pixelwise import (
    Decide,
    Sheet,
    by_probability,
    by_threshold,
    difficulty,
    refine,
)
from tierscale.models.backbones import carn, fsrcnn, srresnet
from tierscale.models.contract.checkpoints import Blueprint, Checkpoint, adopt, fill
from tierscale.models.contract.efforts import Efforts, check_effort
from tierscale.models.contract.upscaler import LARGE, Placement, Upscaled, hr_length
from tierscale.models.runtime import resample
from tierscale.models.runtime.counting import blank, executed, published_operations
from tierscale.models.runtime.mlp import Mlp
from tierscale.models.runtime.nearest import Axis, axes
from tierscale.models.runtime.stream import BAND, bands

Encoder = carn.Carn | fsrcnn.Fsrcnn | srresnet.Srresnet
ENCODERS: dict[str, type[Encoder]] = {
    "carn": carn.Carn,
    "fsrcnn": fsrcnn.Fsrcnn,
    "srresnet": srresnet.Srresnet,
}


class Pcsr(nn.Module):
    """The network (section 3) in a form that can be trained.

    encoder: of ENCODERS; encoder_arguments: of its constructor. samplers: widths of the hidden
    layers of each sampler, two or more samplers from light to heavy; classifier: those of the
    classifier.
    """

    def __init__(
        self,
        encoder: str = "carn",
        encoder_arguments: Mapping[str, Any] = {},
        samplers: Sequence[Sequence[int]] = ((20, 20, 20), (74, 74, 74, 74)),
        classifier: Sequence[int] = (10, 10),
    ) -> None:
        super().__init__()
        if encoder not in ENCODERS:
            raise ValueError(f"PCSR has no encoder {encoder!r}; known are {', '.join(ENCODERS)}")
        if len(samplers) < 2:
            raise ValueError(
                f"PCSR chooses among two or more samplers, not {len(samplers)}; give their hidden"
                " layers from light to heavy"
            )
        self.encoder: Encoder = ENCODERS[encoder](features_only=True, **encoder_arguments)
        features = self.encoder.features
        self.samplers: Sequence[Mlp] = nn.ModuleList(
            Mlp(features, hidden, 3) for hidden in samplers
        )  # type: ignore[assignment]
        self.classifier = Mlp(features, classifier, len(samplers))

    def forward(self, x: Tensor, rows: Axis, columns: Axis) -> tuple[Tensor, list[Tensor]]:
        """x (N, 3, h, w), values around the mean, to logits (N, samplers, H, W) and what each
        sampler makes of every pixel (N, 3, H, W).

        A chosen sampler's pixels are added to the bilinear enlargement of the input. Encoder,
        classifier and samplers can be called alone.
        """
        features = self.encoder(x)
        return self.classifier(features, rows, columns), [
            sampler(features, rows, columns) for sampler in self.samplers
        ]


class PcsrUpscaler:
    """PCSR (arXiv 2407.21448, section 3) as an upscaler of any scale: pixels are made by the
    sampler that is chosen for each, and by no other. Windows (N, 3, h, w), 0..1, to Upscaled.pixels
    (N, 3, H, W), not clipped.

    The knob is the paper's k: each probability is divided by its sampler's cost to the power k,
    then the largest wins; a larger k makes more pixels light. At effort 1 the heaviest sampler
    makes all pixels and the classifier rests. given: "k"; or "threshold", a probability above which
    a pixel is heavy (with more than two samplers "threshold", "threshold2" and so on, rising),
    frozen from the whole image's probabilities by pipeline/inference/statistics.py; "refine": 1 or 0.
    Upscaled.choice: the sampler of each pixel, uint8.
    """

    scales: frozenset[Fraction] | None = None
    knob: str | None = "k"
    efforts: Efforts | None = None
    # Settings of the knob to be measured, from the least computation to the most.
    ladder = (
        50.0,
        *(k / 8 for k in (32, 24, 20, 16, 12, 10, 8, 7, 6, 5, 4, 3, 2, 1)),
        *(k / 32 for k in (3, 2, 1, 0, -1, -2, -3)),
        *(-k / 8 for k in (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24, 32, 48, 64)),
    )

    def __init__(self, network: Pcsr, blueprint: Blueprint, origin: str = "this network") -> None:
        self.blueprint, self.origin = blueprint, origin
        self.refined = bool(blueprint.arguments.get("refine", True))
        self.parameters = sum(parameter.numel() for parameter in network.parameters())
        self.encoder_operations = published_operations(network.encoder, blank(1, 3, 8, 8)) / 64
        network = network.eval().requires_grad_(False)
        if any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
            assert isinstance(network.encoder, carn.Carn)
            network.encoder = network.encoder.fold().requires_grad_(False)
        self.encoder = network.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.classifier, self.samplers = network.classifier, network.samplers
        # Refinement looks one output pixel further, and that may lie in the next input pixel.
        assert network.encoder.reach is not None
        self.reach: int | None = network.encoder.reach + 1
        self.mean = torch.tensor(blueprint.mean).view(3, 1, 1)
        self.encoder_cost = (
            executed(lambda: copy.deepcopy(self.encoder).to("meta")(blank(1, 3, 8, 8))) // 64
        )

    def to(self, device: str) -> "PcsrUpscaler":
        """Move the weights, in place."""
        self.mean = self.mean.to(device)
        for part in (self.encoder, self.classifier, self.samplers):
            part.to(device)  # type: ignore[union-attr]
        return self

    def __call__(
        self,
        windows: Tensor,
        place: Placement,
        effort: float = 1.0,
        settings: Mapping[str, float] = {},
    ) -> Upscaled:
        if windows.ndim != 4 or windows.shape[1] != 3:
            raise ValueError(
                f"windows of shape {tuple(windows.shape)} are not (N, 3, h, w); feed a grey as"
                " three equal channels"
            )
        decide, refined = (
            self.decision(place.scale, effort, settings),
            bool(settings.get("refine", self.refined)),
        )
        pixels = resample.resample(windows, place, "bilinear")
        chosen = torch.full(
            (len(windows), *pixels.shape[2:]),
            len(self.samplers) - 1,
            dtype=torch.uint8,
            device=windows.device,
        )
        # Each window for itself: its result does not depend on its batch, not even in the last bit.
        macs = [0.0] * len(windows)
        for i, sheet in enumerate(self._sheets(pixels, chosen, windows, place)):
            for row, features in self._features(windows[i : i + 1]):
                points = sheet.points(row, len(features) // windows.shape[3])
                if decide is not None:
                    macs[i] += sheet.decide(features, points, row, self.classifier, decide)
                macs[i] += sheet.make(features, points, row, self.samplers)
            if refined and decide is not None:
                refine(sheet.pixels, sheet.chosen)
        return Upscaled(
            pixels, torch.tensor(macs, dtype=torch.float64) + self._fixed(windows, pixels), chosen
        )

    @property
    def thresholds(self) -> tuple[str, ...]:
        """Names under which thresholds of difficulty are given, rising."""
        return ("threshold", *(f"threshold{index}" for index in range(2, len(self.samplers))))

    def looking(self, scale: Fraction) -> float:
        """Multiply-adds of difficulties() for each input pixel of a large window."""
        return (
            self.encoder_cost
            + self.classifier.cost(LARGE**2, hr_length(LARGE, scale) ** 2) / LARGE**2
        )

    def difficulties(self, windows: Tensor, place: Placement) -> tuple[Tensor, Tensor]:
        """What the automatic decision looks at, 0..1, (N, H, W), and the multiply-adds that it
        took, (N,).
        """
        height, width = windows.shape[2:]
        found = windows.new_empty(len(windows), *place.hr_shape(height, width))
        macs = torch.full(
            (len(windows),), float(self.encoder_cost * height * width), dtype=torch.float64
        )
        for i, sheet in enumerate(self._sheets(found[:, None], found, windows, place)):
            for row, features in self._features(windows[i : i + 1]):
                points = sheet.points(row, len(features) // width)
                macs[i] += sheet.decide(features, points, row, self.classifier, difficulty)
        return found, macs

    def _sheets(
        self, pixels: Tensor, chosen: Tensor, windows: Tensor, place: Placement
    ) -> Iterator[Sheet]:
        """The output pixels of one window after another."""
        for index in range(len(windows)):
            yield Sheet(
                pixels[index],
                chosen[index],
                *axes(place, index, windows.shape[2], windows.shape[3]),
            )

    def _fixed(self, windows: Tensor, pixels: Tensor) -> float:
        """Multiply-adds of encoder and bilinear enlargement for one window."""
        (height, width), (hr_height, hr_width) = windows.shape[2:], pixels.shape[2:]
        return self.encoder_cost * height * width + resample.multiply_adds(
            3, height, width, hr_height, hr_width, "bilinear"
        )

    def decision(
        self, scale: Fraction, effort: float = 1.0, settings: Mapping[str, float] = {}
    ) -> Decide | None:
        """How pixels get their samplers; None: all get the heaviest. ValueError: an unknown name in
        `given`, or an effort not measured.
        """
        unknown = settings.keys() - {"k", "refine", *self.thresholds}
        if unknown:
            raise ValueError(
                f"PCSR is given {', '.join(sorted(unknown))}, but knows only k, refine,"
                f" {', '.join(self.thresholds)}"
            )
        if "threshold" in settings:
            return partial(
                by_threshold,
                torch.tensor([settings[name] for name in self.thresholds], dtype=torch.float64),
            )
        check_effort(effort)
        if "k" not in settings and effort == 1:
            return None
        if "k" not in settings and self.efforts is None:
            raise ValueError(
                f"what {self.origin} costs at an effort of {effort:g} was not measured; run"
                " tierscale models calibrate NAME"
            )
        k = settings["k"] if "k" in settings else self.efforts.setting(effort)  # type: ignore[union-attr]
        return partial(by_probability, k * self.cost_list(scale).double().log())

    def cost_list(self, scale: Fraction) -> Tensor:
        """Cost of each sampler as the paper counts it, on 16 by 16 input pixels: encoder and all
        layers of one sampler at every output pixel, as shares of 1; float32 (samplers,).
        """
        side = hr_length(16, scale)
        each = [
            self.encoder_operations * 256
            + 2 * sum(layer.weight.numel() for layer in s.layers) * side**2
            for s in self.samplers
        ]
        return torch.tensor([cost / sum(each) for cost in each])

    def published_cost(self, chosen: Tensor, height: int, width: int) -> float:
        """Operations (2 for each multiply-add) that the published counter tells for a window of
        `height` by `width` whose output pixels are `chosen` (H, W): it charges first layers at each
        output pixel, as the published code executes them, where we do at each input pixel, and no
        bilinear enlargement.
        """
        at = [
            sum(layer.weight.numel() for layer in mlp.layers)
            for mlp in (*self.samplers, self.classifier)
        ]
        counts = torch.bincount(
            chosen.flatten().long().cpu(), minlength=len(self.samplers)
        ).tolist()
        each = sum(weights * count for weights, count in zip(at[:-1], counts, strict=True))
        return self.encoder_operations * height * width + 2 * (each + at[-1] * chosen.numel())

    def cost(self, scale: Fraction, effort: float = 1.0) -> float:
        """Multiply-adds for each input pixel of a large window; below full effort the mean over the
        images it was measured on.
        """
        side = hr_length(LARGE, scale)
        residual = resample.multiply_adds(3, LARGE, LARGE, side, side, "bilinear")
        full = self.encoder_cost + (self.samplers[-1].cost(LARGE**2, side**2) + residual) / LARGE**2
        return full if effort == 1 or self.efforts is None else full * self.efforts.share(effort)

    def memory(self, scale: Fraction) -> float:
        """Bytes for each input pixel of a window: three times the window, the result twice, and the
        choice.
        """
        return 36 + 25 * float(scale) ** 2

    def _features(self, window: Tensor) -> Iterator[tuple[int, Tensor]]:
        """First row and features (n * w, C) of some rows of a window (1, 3, h, w) after another; of
        all at once on a GPU.
        """
        height, width = window.shape[2:]
        centred = (window - self.mean).contiguous(memory_format=torch.channels_last)
        streamed = window.device.type == "cpu"
        layers, row = self.encoder.stream(), 0
        assert self.encoder.reach is not None
        band = BAND * torch.get_num_threads()  # each thread takes its part of what a layer makes
        for start, stop in (
            bands(height, width, self.encoder.reach, band) if streamed else [(0, height)]
        ):
            made = (
                layers.push(centred[:, :, start:stop], stop == height)
                if streamed
                else self.encoder(centred)
            )
            yield row, made.permute(0, 2, 3, 1).flatten(0, 2)
            row += made.shape[2]


def build(checkpoint: Checkpoint, origin: str) -> PcsrUpscaler:
    """The upscaler of a checkpoint; `origin` names it in errors."""
    blueprint = checkpoint.blueprint
    try:
        network = Pcsr(
            **{name: value for name, value in blueprint.arguments.items() if name != "refine"}
        )
    except TypeError as error:
        raise ValueError(
            f"{origin} asks for a PCSR of {blueprint.arguments}, which cannot be built ({error})"
        ) from error
    fill(network, checkpoint.tensors, origin)
    return PcsrUpscaler(network, blueprint, origin)


# Published constructor argument -> ours, for each encoder.
ARGUMENTS = {
    "carn": {"nf": "features", "group": "groups"},
    "fsrcnn": {"d": "features", "s": "narrow", "m": "mapping"},
    "srresnet": {"nf": "features", "nb": "blocks"},
}
OWN_NAMES: dict[str, Callable[[str], str | None]] = {
    "carn": carn.own_name,
    "fsrcnn": fsrcnn.own_name,
    "srresnet": srresnet.own_name,
}


def published(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], mean: tuple[float, float, float]
) -> Checkpoint:
    """Weights under the names of the published code, with its constructor arguments, as our
    checkpoint. The published networks have a light and a heavy sampler and were trained at scale 4.
    ValueError: naming key and shapes, or the argument, that do not fit.
    """
    try:
        settings = config["encoder_spec"].get("args", {})
        kind = config["encoder_spec"]["name"]
        hidden = [
            config[f"{part}_spec"]["args"]["imnet_spec"]["args"]["hidden_list"]
            for part in ("light_sampler", "heavy_sampler", "classifier")
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"the published PCSR's configuration lacks {error}; give encoder_spec, the samplers'"
            " and the classifier's"
        ) from error
    if kind not in ENCODERS:
        raise ValueError(f"PCSR has no encoder {kind!r}; known are {', '.join(ENCODERS)}")
    encoder = {
        ours: settings[theirs] for theirs, ours in ARGUMENTS[kind].items() if theirs in settings
    }
    if kind == "carn":
        encoder["norm"] = True
    arguments = {
        "encoder": kind,
        "encoder_arguments": encoder,
        "samplers": hidden[:2],
        "classifier": hidden[2],
    }

    def own_name(theirs: str) -> str | None:
        stage, rest = theirs.split(".", 1)
        if stage == "encoder":
            name = OWN_NAMES[kind](rest)
            return None if name is None else f"encoder.{name}"
        index, part = rest.removeprefix("imnet.layers.").split(
            "."
        )  # each linear layer but the last is followed by a ReLU
        return {"light_sampler": "samplers.0", "heavy_sampler": "samplers.1"}.get(
            stage, stage
        ) + f".layers.{int(index) // 2}.{part}"

    return Checkpoint(
        Blueprint("pcsr", 4, arguments, mean),
        adopt(Pcsr(**arguments), tensors, own_name, "the published PCSR"),
    )
