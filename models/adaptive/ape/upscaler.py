"""APE (Wang, Zheng, Chen, Wu, Yao and Li 2022, "Adaptive Patch Exiting for Scalable Single Image
Super-Resolution", arXiv 2203.11589): a network that each patch or cell of an image leaves as soon
as a regressor expects little of the layers to come.
"""

import copy
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from tierscale.models.adaptive.ape.network import Ape
from tierscale.models.adaptive.ape.sparse_exits import Lattice, leave
from tierscale.models.adaptive.gated import cost
from tierscale.models.backbones import edsr, rcan, vdsr
from tierscale.models.contract.checkpoints import Blueprint, Checkpoint, fill, told
from tierscale.models.contract.efforts import Efforts, check_effort
from tierscale.models.contract.upscaler import LARGE, Placement, Upscaled
from tierscale.models.runtime.counting import blank, executed
from tierscale.models.runtime.patches import SIDE, STEP, Cut
from tierscale.models.runtime.plain import PlainUpscaler, check_windows
from tierscale.models.runtime.stages import feed
from tierscale.models.runtime.stream import BAND, Chain

# Patches that each thread of a CPU takes at a time: few, so that their maps stay in cache.
TOGETHER = 8


class ApeUpscaler:
    """APE (section 3.2) as an upscaler: a place leaves where the regressor says at least the
    threshold, and no layer behind is computed for it. Windows (N, 3, h, w), 0..1, to
    Upscaled.pixels (N, 3, s * h, s * w), not clipped.

    What leaves are cells, where the network has them, or patches of models.cut, as in the paper;
    both are counted from the corner of the whole image, so that windows agree on what they share. A
    window that left as a whole would show where the next one left elsewhere.

    The knob is that threshold, -1 and more: the higher, the later they leave. At effort 1 the whole
    network runs and the regressor rests. given: "threshold". Upscaled.choice: the exit at each
    input pixel, counted from 0, (N, h, w), -1: it never left; NONE where no whole patch lies in the
    window. Such pixels are nearer to its edge than the reach and only there as context.
    """

    NONE = -2
    knob: str | None = "threshold"
    # Other photos raise low shares and lower high ones: at thresholds of 0.8 and 0.99, 0.46 and
    # 0.71 on data/train, 0.53 and 0.64 on Set14.
    caution = 0.02
    efforts: Efforts | None = None
    # Settings of the knob to be measured, from the least computation to the most; tanh crowds what
    # matters towards 1.
    ladder = (
        -1.0,
        *(round(step / 20, 2) for step in range(-10, 18)),
        0.9,
        0.93,
        0.95,
        0.97,
        0.98,
        0.99,
        0.995,
        0.999,
        1.01,
    )

    def __init__(self, method: Ape, blueprint: Blueprint, origin: str = "this network") -> None:
        self.plain = PlainUpscaler(method.network, blueprint)
        self.method, self.origin, self.blueprint = (
            method.eval().requires_grad_(False),
            origin,
            blueprint,
        )
        self.network = method.network
        self.scales: frozenset[Fraction] | None = self.plain.scales
        # What a cell sees of its neighbours hangs on where they left, and so on theirs.
        endless = method.cell is not None or self.plain.reach is None
        self.reach: int | None = None if endless else max(self.plain.reach or 0, SIDE - 1)
        self.parameters = sum(parameter.numel() for parameter in method.parameters())
        self.saved = cache(self._saved)

    def to(self, device: str) -> "ApeUpscaler":
        """Move the weights, in place."""
        self.plain.to(device)
        self.method.to(device)
        return self

    def __call__(
        self,
        windows: Tensor,
        place: Placement,
        effort: float = 1.0,
        settings: Mapping[str, float] = {},
    ) -> Upscaled:
        check_windows(windows, place, self.method.scale)
        threshold = self.threshold(effort, settings)
        if threshold is None:
            made = self.plain(windows, place)
            return Upscaled(
                made.pixels, made.macs, torch.full((len(windows), *windows.shape[2:]), -1)
            )
        one = self._by_patches if self.method.cell is None else self._by_cells
        found = [
            one(
                windows[index : index + 1], Placement(place.scale, place.size, (origin,)), threshold
            )
            for index, origin in enumerate(place.origins)
        ]
        pixels, exits, macs = (list(column) for column in zip(*found, strict=True))
        return Upscaled(
            torch.cat(pixels), torch.tensor(macs, dtype=torch.float64), torch.stack(exits)
        )

    def threshold(self, effort: float, settings: Mapping[str, float]) -> float | None:
        """What the regressor must say for a patch or cell to leave; None: nothing asks it.
        ValueError: an unknown name, or not measured.
        """
        if settings.keys() - {"threshold"}:
            raise ValueError(
                f"APE is settings {', '.join(sorted(settings.keys() - {'threshold'}))}, but knows only"
                " threshold"
            )
        check_effort(effort)
        if "threshold" in settings:
            return float(settings["threshold"])
        if effort == 1:
            return None
        if self.efforts is None:
            raise ValueError(
                f"what {self.origin} costs at an effort of {effort:g} was not measured; run"
                " tierscale models calibrate NAME"
            )
        return self.efforts.setting(effort)

    def _by_cells(
        self, window: Tensor, place: Placement, threshold: float
    ) -> tuple[Tensor, Tensor, float]:
        """The pixels of a window (1, 3, h, w) whose cells leave one by one, each pixel's exit (h,
        w), and the multiply-adds.
        """
        method, (height, width) = self.method, window.shape[2:]
        assert method.cell is not None
        kept, body = self.network.enter(
            (window - self.plain.mean).contiguous(memory_format=torch.channels_last)
        )
        lattice = Lattice(place.origins[0], height, width, method.cell)

        def whole(blocks: Sequence[nn.Module], features: Tensor) -> Tensor:
            return self._advance(
                blocks, features, torch.empty_like(features) if features is kept else features
            )

        body, exits, macs, asked = leave(
            [method.interval(index) for index in range(method.exits + 1)],  # type: ignore[misc]
            body,
            lattice,
            lambda means: method.tell(means) >= threshold,
            whole,
        )
        streamed = window.device.type == "cpu"
        blocks = sum(cost(block, 2 * height * width) for block in method.layers)  # type: ignore[misc, arg-type]
        always = self.plain.count(height, width, streamed) - blocks
        made = self.plain.complete(self._finish(kept, body), window)
        return made, lattice.spread(exits), float(always + macs + asked * self.network.features)

    def _advance(self, layers: Sequence[nn.Module], body: Tensor, found: Tensor) -> Tensor:
        """The features (1, C, h, w) behind some layers, written into `found` where they go by
        rows.
        """
        # A map no larger than a band is in cache as it is.
        if (
            self.network.reach is None
            or body.shape[2] * body.shape[3] <= BAND
            or body.device.type != "cpu"
        ):
            for layer in layers:
                body = layer(body)
            return body
        row, stream = 0, Chain(*(layer.stream() for layer in layers))  # type: ignore[operator]
        for rows in feed(
            stream, body, 2 * len(layers)
        ):  # no layer of our networks reaches further than 2 pixels
            found[:, :, row : row + rows.shape[2]] = rows
            row += rows.shape[2]
        return found

    def _finish(self, kept: Tensor, body: Tensor) -> Tensor:
        """The network's end; on a CPU by rows, where it is composed."""
        return (
            self.network.finish_by_rows(kept, body)
            if body.device.type == "cpu"
            else self.network.finish(kept, body)
        )

    def _by_patches(
        self, window: Tensor, place: Placement, threshold: float
    ) -> tuple[Tensor, Tensor, float]:
        """The same of a network whose patches leave one by one."""
        cut = Cut(place, window.shape[2], window.shape[3], SIDE, STEP)
        result, macs = cut.begin(window, place)
        if not cut.count:
            return result, torch.full(cut.size, self.NONE), macs
        tiles, streamed, left = cut.tiles(window), window.device.type == "cpu", []
        together = TOGETHER * torch.get_num_threads() if streamed else len(tiles)
        for some in torch.arange(len(tiles)).split(together):
            pixels, exits = self.patches(tiles[some], threshold)
            for index, made in zip(some.tolist(), pixels, strict=True):
                cut.add(result, index, made)
            left.append(exits)
        exits = torch.cat(left)
        macs += sum(self.macs(*cut.sides, index, streamed) for index in exits.tolist())
        return result, cut.spread(exits, self.NONE), macs

    def patches(self, patches: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
        """Patches (N, 3, h, w), 0..1, each of which leaves as a whole: (N, 3, s * h, s * w), and
        their exits (N,), -1: never.

        The batch shrinks as they leave.
        """
        kept, body = self.network.enter(
            (patches - self.plain.mean).contiguous(memory_format=torch.channels_last)
        )
        finished, left = body.clone(), torch.full((len(patches),), -1)
        staying = torch.arange(len(patches), device=patches.device)
        for index in range(self.method.exits + 1):
            for layer in self.method.interval(index) if len(staying) else []:
                body = layer(body)
            if index == self.method.exits or not len(staying):
                break
            leaves = self.method.tell(body.mean(dim=(2, 3))) >= threshold
            finished[staying[leaves]] = body[leaves]
            left[staying[leaves].cpu()] = index
            staying, body = staying[~leaves], body[~leaves]
        finished[staying] = body
        return self.plain.complete(self._finish(kept, finished), patches), left

    def _saved(self, height: int, width: int) -> list[int]:
        """Multiply-adds of the layers behind each exit, for a window of `height` by `width`."""
        scale = self.network.body_scale
        features = blank(1, self.network.features, height * scale, width * scale)
        costs = [
            executed(partial(layer, features))
            for layer in copy.deepcopy(self.network).to("meta").layers
        ]
        return [sum(costs[(index + 1) * self.method.every :]) for index in range(self.method.exits)]

    def macs(self, height: int, width: int, left: int, streamed: bool = True) -> int:
        """Multiply-adds for a patch of `height` by `width` that left by exit `left`, the
        regressor's included; -1: it never left.

        streamed: on a CPU, where the network's end is composed.
        """
        asked = self.method.exits if left == -1 else left + 1
        skipped = 0 if left == -1 else self.saved(height, width)[left]
        return self.plain.count(height, width, streamed) - skipped + asked * self.network.features

    def published_cost(self, height: int, width: int, left: int) -> int:
        """What the published tables count for a window that left by exit `left`: multiply-adds, one
        operation each, of the convolutions.

        The tables exist for patches of 48x48 only and leave the regressor out; the network's end is
        charged convolution by convolution. At scale 4 this gives EDSR's figures; RCAN's and VDSR's
        are 0.3 to 0.7 % higher in the tables.
        """
        asked = self.method.exits if left == -1 else left + 1
        residual = (
            0 if self.plain.weight is None else 3 * self.plain.weight.numel() * height * width
        )
        return (
            self.macs(height, width, left, streamed=False)
            - asked * self.network.features
            - residual
        )

    def cost(self, scale: Fraction, effort: float = 1.0) -> float:
        """Multiply-adds for each input pixel of a large window; below full effort the mean over the
        images it was measured on.
        """
        full = self.plain.count(LARGE, LARGE) / LARGE**2
        return full if effort == 1 or self.efforts is None else full * self.efforts.share(effort)

    def memory(self, scale: Fraction) -> float:
        """Bytes for each input pixel of a window: beside those of the plain network, what entered,
        the features and a copy; with cells, both sheets of theirs too.
        """
        maps = 3 if self.method.cell is None else 5
        return (
            self.plain.memory(scale) + 4 * maps * self.network.features * self.network.body_scale**2
        )


def build(checkpoint: Checkpoint, origin: str) -> ApeUpscaler:
    """The upscaler of a checkpoint; `origin` names it in errors."""
    blueprint = checkpoint.blueprint
    try:
        method = Ape(scale=blueprint.scale, **blueprint.arguments)
    except TypeError as error:
        raise ValueError(
            f"{origin} asks for an APE of {blueprint.arguments}, which cannot be built ({error})"
        ) from error
    fill(method, checkpoint.tensors, origin)
    return ApeUpscaler(method, blueprint, origin)


# Part of a published configuration's model -> backbone, and what reads its weights.
PUBLISHED = {"edsr": edsr.published, "rcan": rcan.published, "vdsr": vdsr.published}


def published(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], mean: tuple[float, float, float]
) -> Checkpoint:
    """Weights under the names of the published code, with its constructor arguments, as our
    checkpoint.

    config: model (such as "edsr_ape"), exit_interval, and those of the backbone. ValueError naming
    what does not fit.
    """
    settings = told(config)
    backbone = str(settings.get("model", "edsr")).partition("_")[0].lower()
    if backbone not in PUBLISHED or "exit_interval" not in settings:
        raise ValueError(
            "the configuration of a published APE needs exit_interval and a model on"
            f" {', '.join(PUBLISHED)}, not {settings.get('exit_interval')} and {settings.get('model')!r}"
        )
    inner = PUBLISHED[backbone](
        {name: tensor for name, tensor in tensors.items() if not name.startswith("regressor.")},
        config,
        mean,
    )
    plan = inner.blueprint
    arguments = {"backbone": backbone, "every": settings["exit_interval"], **plan.arguments}
    weights = {f"network.{name}": tensor for name, tensor in inner.tensors.items()}
    # Pooling and flattening, which have no weights, come before the linear layer.
    weights |= {
        name.replace("regressor.2.", "regressor."): tensor
        for name, tensor in tensors.items()
        if name.startswith("regressor.")
    }
    fill(Ape(plan.scale, **arguments), weights, "the published APE")
    return Checkpoint(Blueprint("ape", plan.scale, arguments, plan.mean), weights)
