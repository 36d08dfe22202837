"""APE as an upscaler: patches or cells leave a network when little is expected of what follows.

Wang, Zheng, Chen, Wu, Yao and Li 2022, "Adaptive Patch Exiting for Scalable Single Image
Super-Resolution", arXiv 2203.11589.
"""

import copy
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cache, partial
from typing import Self

import torch
from torch import Tensor, nn

from tierscale.models.adaptive.ape.network import Ape
from tierscale.models.adaptive.ape.sparse_exits import leave
from tierscale.models.adaptive.cell_grid import CellGrid
from tierscale.models.adaptive.gated import cost
from tierscale.models.adaptive.on_plain import OnPlain
from tierscale.models.contract.checkpoints import Checkpoint, ModelSpec, fill
from tierscale.models.contract.modules import device_of
from tierscale.models.contract.upscaler import Placement, Upscaled
from tierscale.models.runtime.counting import by_size, for_counting
from tierscale.models.runtime.patches import SIDE, STEP, Patches
from tierscale.models.runtime.plain import check_windows
from tierscale.models.runtime.stages import feed
from tierscale.models.runtime.stream import BAND, Chain

# Patches that each thread of a CPU takes at a time: few, so that their maps stay in cache.
TOGETHER = 8


class ApeUpscaler(OnPlain):
    """APE (section 3.2): a place leaves where the regressor says at least the exit threshold.

    No layer behind is computed for it. Windows (N, 3, h, w), 0..1, to Upscaled.pixels (N, 3, s * h,
    s * w), not clipped.

    What leaves are cells, where the network has them, or patches of runtime.patches, as in the
    paper; both are counted from the corner of the whole image, so that windows agree on what they
    share. A window that left as a whole would show where the next one left elsewhere.

    The control is the exit threshold, -1 and more: the higher, the later they leave. At effort 1
    the whole network runs and the regressor rests. settings: "threshold". Upscaled.choice: the exit
    at each input pixel, counted from 0, (N, h, w), -1: it never left; NONE where no whole patch
    lies in the window. Such pixels are nearer to its edge than the reach and only there as context.
    """

    NONE = -2
    title = "APE"
    control: str | None = "threshold"
    # Other photos raise low shares and lower high ones: at thresholds of 0.8 and 0.99, 0.46 and
    # 0.71 on data/train, 0.53 and 0.64 on Set14.
    safety_margin = 0.02
    # tanh crowds what matters towards 1.
    calibration_grid = (
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

    def __init__(self, method: Ape, spec: ModelSpec, origin: str = "this network") -> None:
        super().__init__(method.network, method, spec, origin)
        self.method, self.full = method, self.plain
        self.network = method.network
        # What a cell sees of its neighbours hangs on where they left, and so on theirs.
        endless = method.cell is not None or self.plain.reach is None
        self.reach: int | None = None if endless else max(self.plain.reach or 0, SIDE - 1)
        self.saved = cache(self._saved)

    def to(self, device: str) -> Self:
        """Move the weights, in place."""
        self.full.to(device)
        return super().to(device)

    def to_bfloat16(self) -> Self:
        """The whole network in bfloat16 where it runs everywhere, at effort 1.

        Where cells leave it stays float32: the features decide, and those of bfloat16 let single
        cells leave elsewhere, which were then up to 8 of 255 off.
        """
        self.full = copy.deepcopy(self.plain).to_bfloat16()
        return self

    def __call__(
        self,
        windows: Tensor,
        place: Placement,
        effort: float = 1.0,
        settings: Mapping[str, float] = {},
    ) -> Upscaled:
        check_windows(windows, place, self.method.scale)
        threshold, cell = self.setting(effort, settings), self.method.cell
        if threshold is None:
            full = self.full(windows, place)
            return Upscaled(
                full.pixels, full.macs, torch.full((len(windows), *windows.shape[2:]), -1)
            )
        parts = []
        for index in range(len(place.origins)):
            window, own = windows[index : index + 1], place.of_window(index)
            parts.append(
                self._by_patches(window, own, threshold)
                if cell is None
                else self._by_cells(window, own, cell, threshold)
            )
        return Upscaled(
            torch.cat([pixels for pixels, _, _ in parts]),
            torch.tensor([macs for _, _, macs in parts], dtype=torch.float64),
            torch.stack([exits for _, exits, _ in parts]),
        )

    def _by_cells(
        self, window: Tensor, place: Placement, cell: int, threshold: float
    ) -> tuple[Tensor, Tensor, float]:
        """A window (1, 3, h, w) whose cells leave one by one.

        Its pixels, each input pixel's exit (h, w), and the multiply-adds.
        """
        method, (height, width) = self.method, window.shape[2:]
        entered, body = self.network.enter(self.plain.centre(window))
        grid = CellGrid(place.origins[0], height, width, cell)

        def whole(blocks: Sequence[nn.Module], features: Tensor) -> Tensor:
            result = torch.empty_like(features) if features is entered else features
            return self._advance(blocks, features, result)

        body, exits, macs, questions = leave(
            [method.interval(index) for index in range(method.exits + 1)],  # type: ignore[misc]
            body,
            grid,
            lambda means: method.tell(means) >= threshold,
            whole,
        )
        streamed = window.device.type == "cpu"
        blocks = sum(
            cost(block, 2 * height * width)  # type: ignore[misc, arg-type]
            for block in method.layers
        )
        fixed = self.plain.count(height, width, streamed) - blocks
        pixels = self.plain.complete(self._finish(entered, body), window)
        return pixels, grid.spread(exits), float(fixed + macs + questions * self.network.features)

    def _advance(self, layers: Sequence[nn.Module], body: Tensor, result: Tensor) -> Tensor:
        """Features (1, C, h, w) behind some layers; written into `result` if they go by rows."""
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
        # No layer of our networks reaches further than 2 pixels.
        for rows in feed(stream, body, 2 * len(layers)):
            result[:, :, row : row + rows.shape[2]] = rows
            row += rows.shape[2]
        return result

    def _finish(self, entered: Tensor, body: Tensor) -> Tensor:
        """The network's end; on a CPU by rows, where it is composed."""
        return (
            self.network.finish_by_rows(entered, body)
            if body.device.type == "cpu"
            else self.network.finish(entered, body)
        )

    def _by_patches(
        self, window: Tensor, place: Placement, threshold: float
    ) -> tuple[Tensor, Tensor, float]:
        """The same of a network whose patches leave one by one."""
        patches = Patches(place, window.shape[2], window.shape[3], SIDE, STEP)
        result, macs = patches.begin(window, place)
        if not patches.count:
            return result, torch.full(patches.size, self.NONE), macs
        tiles, streamed, left = patches.tiles(window), window.device.type == "cpu", []
        together = TOGETHER * torch.get_num_threads() if streamed else len(tiles)
        for some in torch.arange(len(tiles)).split(together):
            enlarged, exits = self.patches(tiles[some], threshold)
            for index, pixels in zip(some.tolist(), enlarged, strict=True):
                patches.add(result, index, pixels)
            left.append(exits)
        exits = torch.cat(left)
        macs += sum(self.macs(*patches.sides, index, streamed) for index in exits.tolist())
        return result, patches.spread(exits, self.NONE), macs

    def patches(self, patches: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
        """Enlarge patches (N, 3, h, w), 0..1, each of which leaves as a whole.

        (N, 3, s * h, s * w), and their exits (N,), -1: never. The batch shrinks as they leave.
        """
        entered, body = self.network.enter(self.plain.centre(patches))
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
        return self.plain.complete(self._finish(entered, finished), patches), left

    def _saved(self, height: int, width: int) -> list[int]:
        """Multiply-adds of the layers behind each exit, for a window of `height` by `width`."""
        network = for_counting(self.network)
        zeros = partial(torch.zeros, device=device_of(network))

        def counted(layer: nn.Module) -> int:
            pixel, window = by_size(lambda side: layer(zeros(1, network.features, side, side)))
            return pixel * height * width * network.body_scale**2 + window

        costs = [counted(layer) for layer in network.layers]
        return [sum(costs[(index + 1) * self.method.every :]) for index in range(self.method.exits)]

    def macs(self, height: int, width: int, left: int, streamed: bool = True) -> int:
        """Multiply-adds for a patch of `height` by `width`, the regressor's included.

        left: the exit that it left by; -1: it never left. streamed: on a CPU, where the network's
        end is composed.
        """
        questions = self.method.exits if left == -1 else left + 1
        skipped = 0 if left == -1 else self.saved(height, width)[left]
        return (
            self.plain.count(height, width, streamed) - skipped + questions * self.network.features
        )

    def memory(self, scale: Fraction) -> float:
        """Bytes for each input pixel of a window.

        Beside those of the plain network, what entered, the features and a copy; with cells, both
        of their buffers too.
        """
        maps = 3 if self.method.cell is None else 5
        return (
            self.plain.memory(scale) + 4 * maps * self.network.features * self.network.body_scale**2
        )


def build(checkpoint: Checkpoint, origin: str) -> ApeUpscaler:
    """The upscaler of a checkpoint; `origin` names it in errors."""
    spec = checkpoint.spec
    try:
        method = Ape(scale=spec.scale, **spec.arguments)
    except TypeError as error:
        raise ValueError(
            f"{origin} asks for an APE of {spec.arguments}, which cannot be built ({error})"
        ) from error
    fill(method, checkpoint.tensors, origin)
    return ApeUpscaler(method, spec, origin)
