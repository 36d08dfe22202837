"""ClassSR as an upscaler: a classifier sends each small tile through one of several branches.

Kong, Zhao, Qiao and Dong 2021, "ClassSR: A General Framework to Accelerate Super-Resolution
Networks by Data Characteristic", arXiv 2103.04039.

The tiles are the paper's, 32 input pixels with step 28, counted from the corner of the whole image.
So a place belongs to the same tiles, the same decision and the same pixels in whichever window it
comes: the reach is finite, and tiled equals whole. One decision for each window would be cheaper by
the overlaps, but its area would hang on how the image is cut, windows of several hundred pixels are
hardly ever all easy, and neighbouring windows would disagree along a visible line.
"""

import math
from collections.abc import Mapping
from fractions import Fraction

import torch
from torch import Tensor

from tierscale.models.adaptive.classsr.network import CLASSIFIER, ClassSr
from tierscale.models.contract.checkpoints import Checkpoint, ModelSpec, fill
from tierscale.models.contract.efforts import SAFETY_MARGIN, Efforts, check_effort, measured_setting
from tierscale.models.contract.modules import channels_last
from tierscale.models.contract.upscaler import Placement, Upscaled
from tierscale.models.runtime.patches import SIDE, STEP, Patches
from tierscale.models.runtime.plain import PlainUpscaler, check_windows

# Multiply-adds that a branch should do in one go on a CPU: few tiles, so that their maps stay in
# cache, but enough to be worth a call.
ENOUGH = 9e8
# Biases worth measuring, as powers of two: how far apart a classifier's logits lie, only measuring
# tells.
POWERS = (-6, -3, 0, 3, 6)


class ClassSrUpscaler:
    """ClassSR (section 3.1): a decision and one branch for each tile of 32 input pixels.

    Windows (N, 3, h, w), 0..1, to Upscaled.pixels (N, 3, s * h, s * w), not clipped.

    The control is "bias": added to a class's logit once for each lighter one; 0 decides as the
    paper, a large one sends all through the heaviest. Upscaled.choice is the class at each input
    pixel, (N, h, w), uint8; NONE where no whole tile lies in the window. Such pixels are nearer to
    the window's edge than the reach and only there as context; they are filled by a bilinear
    enlargement.
    """

    NONE = 255
    scales: frozenset[Fraction] | None
    reach: int | None = SIDE - 1
    control: str | None = "bias"
    calibration_grid = (
        *(-(2.0**power) for power in POWERS[::-1]),
        0.0,
        *(2.0**power for power in POWERS),
    )
    safety_margin = SAFETY_MARGIN
    efforts: Efforts | None = None

    def __init__(self, network: ClassSr, spec: ModelSpec, origin: str = "this network") -> None:
        self.scale, self.origin = spec.scale, origin
        self.scales = frozenset({Fraction(spec.scale)})
        self.parameters = sum(parameter.numel() for parameter in network.parameters())
        classifier = network.classifier.eval().requires_grad_(False)
        self.classifier = channels_last(classifier)
        self.branches = [PlainUpscaler(branch, spec) for branch in network.branches]

    def to(self, device: str) -> "ClassSrUpscaler":
        """Move the weights, in place."""
        self.classifier = self.classifier.to(device)
        self.branches = [branch.to(device) for branch in self.branches]
        return self

    @property
    def has_bfloat16(self) -> bool:
        """As its branches."""
        return all(branch.has_bfloat16 for branch in self.branches)

    def to_bfloat16(self) -> "ClassSrUpscaler":
        """The branches' weights and maps; the classifier stays float32."""
        self.branches = [branch.to_bfloat16() for branch in self.branches]
        return self

    def __call__(
        self,
        windows: Tensor,
        place: Placement,
        effort: float = 1.0,
        settings: Mapping[str, float] = {},
    ) -> Upscaled:
        check_windows(windows, place, self.scale)
        bias = settings["bias"] if "bias" in settings else self._bias(effort)
        parts = [
            self._window(windows[i : i + 1], place.of_window(i), bias) for i in range(len(windows))
        ]
        pixels, macs, choice = zip(*parts, strict=True)
        return Upscaled(
            torch.cat(pixels), torch.tensor(macs, dtype=torch.float64), torch.stack(choice)
        )

    def _bias(self, effort: float) -> float:
        """The setting for an effort: at full effort every tile goes through the heaviest branch."""
        return math.inf if effort == 1 else measured_setting(self.efforts, effort, self.origin)

    def cost(self, scale: Fraction, effort: float = 1.0) -> float:
        """Multiply-adds for each input pixel of a large window, with overlaps and classifier."""
        check_effort(effort)
        full = self.branches[-1].cost(scale) + self.classifier.cost(SIDE, SIDE) / SIDE**2
        share = 1.0
        if effort < 1 and self.efforts is not None:
            share = self.efforts.cost_fraction(effort)
        return share * full * (SIDE / STEP) ** 2

    def memory(self, scale: Fraction) -> float:
        """Bytes for each input pixel of a window.

        The window, its tiles, the classifier's maps of them, the result twice.
        """
        return 12 * (2 * float(scale) ** 2 + 3) + 4 * 3 * CLASSIFIER / 16

    def decide(self, tiles: Tensor, bias: float = 0.0) -> Tensor:
        """Class of each tile (N, 3, t, t): (N,), int64."""
        logits = self.classifier(tiles)
        heavy = len(self.branches) - 1
        if math.isinf(bias):
            return torch.full((len(tiles),), heavy if bias > 0 else 0, device=tiles.device)
        return (logits + bias * torch.arange(heavy + 1, device=tiles.device)).argmax(dim=1)

    def enlarge(self, tiles: Tensor, branch: int) -> Tensor:
        """Tiles (N, 3, t, t) through one branch, all at once: (N, 3, T, T)."""
        plain = self.branches[branch]
        made = plain.network.stream().push(plain.centre(tiles), last=True)
        return plain.complete(made.to(tiles.dtype), tiles)

    def _window(
        self, window: Tensor, place: Placement, bias: float
    ) -> tuple[Tensor, float, Tensor]:
        """One window (1, 3, h, w): its pixels, multiply-adds and classes.

        Each branch works on its own tiles and no others.
        """
        patches = Patches(place, window.shape[2], window.shape[3], SIDE, STEP)
        result, macs = patches.begin(window, place)
        if not patches.count:
            return result, macs, torch.full(patches.size, self.NONE, dtype=torch.uint8)
        tiles = patches.tiles(window)
        classes = self.decide(tiles, bias).cpu()
        macs += patches.count * self.classifier.cost(*patches.sides)
        for branch, plain in enumerate(self.branches):
            own = (classes == branch).nonzero()[:, 0]
            if not len(own):
                continue
            cost = plain.count(*patches.sides)
            macs += cost * len(own)
            # Each thread takes tiles of its own.
            together = max(1, int(ENOUGH / cost)) * torch.get_num_threads()
            for some in own.split(together if window.device.type == "cpu" else 256):
                enlarged = self.enlarge(tiles[some], branch)
                for index, pixels in zip(some.tolist(), enlarged, strict=True):
                    patches.add(result, index, pixels)
        return result, macs, patches.spread(classes.to(torch.uint8), self.NONE)


def build(checkpoint: Checkpoint, origin: str) -> ClassSrUpscaler:
    """The upscaler of a checkpoint; `origin` names it in errors."""
    spec = checkpoint.spec
    try:
        network = ClassSr(spec.scale, **spec.arguments)
    except TypeError as error:
        raise ValueError(
            f"{origin} asks for a ClassSR of {spec.arguments}, which cannot be built ({error})"
        ) from error
    fill(network, checkpoint.tensors, origin)
    return ClassSrUpscaler(network, spec, origin)
