"""AdaDSR as an upscaler: each place of the picture gets as many residual blocks as it needs.

Liu, Zhang, Wang, Yang, Zuo and Cao 2020, "Deep Adaptive Inference Networks for Single Image
Super-Resolution", arXiv 2004.03915.
"""

from collections.abc import Mapping
from fractions import Fraction

import torch
from torch import Tensor

from tierscale.models.adaptive.adadsr.network import Adadsr
from tierscale.models.adaptive.cell_grid import CellGrid
from tierscale.models.adaptive.gated import Gated, cost
from tierscale.models.adaptive.on_plain import OnPlain
from tierscale.models.backbones.rcan import Rcan
from tierscale.models.contract.checkpoints import Checkpoint, ModelSpec, fill
from tierscale.models.contract.modules import channels_last
from tierscale.models.contract.upscaler import Placement, Upscaled
from tierscale.models.runtime.plain import check_windows
from tierscale.models.runtime.stream import at_least_float32

# Depths to be measured, as shares of the number of blocks.
GRID = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.25, 1.5, 2.0, 4.0)


class AdadsrUpscaler(OnPlain):
    """AdaDSR (equation 4): a block is computed where the depth goes beyond it.

    Nowhere else but in the rest of the same sparse blocks is it computed. Windows (N, 3, h, w),
    0..1, to Upscaled.pixels (N, 3, s * h, s * w), not clipped.

    The control is the budget of depth, in blocks, an input of the predictor; the depths follow it
    but do not obey it, and a budget above the number of blocks deepens them further. At effort 1
    every block runs everywhere and the predictor rests. settings: "depth", the budget.
    Upscaled.choice: the depths (N, maps, h, w), float32, in blocks, not bounded by their number; at
    effort 1 their number everywhere.
    """

    title = "AdaDSR"
    control: str | None = "depth"
    # The harder half of data/train costs what Set14 and Urban100 do: 0.52 and 0.77 at depths of 4
    # and 8, and 0.51 and 0.79 on Set14.
    safety_margin = 1.0

    def __init__(self, method: Adadsr, spec: ModelSpec, origin: str = "this network") -> None:
        super().__init__(method.network, method, spec, origin)
        self.method = method
        channels_last(self.method.predictor)
        self.reach: int | None = None
        if self.plain.reach is not None:
            # A depth reaches as far as the entry, the predictor and its cell, and counts in all
            # blocks but the first one's convolutions.
            self.reach = max(
                self.plain.reach,
                self.plain.reach - 2 + len(method.predictor.layers) + (method.cell or 1) - 1,
            )
        self.calibration_grid = tuple(method.depth * share for share in GRID)

    def __call__(
        self,
        windows: Tensor,
        place: Placement,
        effort: float = 1.0,
        settings: Mapping[str, float] = {},
    ) -> Upscaled:
        check_windows(windows, place, self.method.scale)
        budget = self.budget(effort, settings)
        maps, (height, width) = len(self.method.groups), windows.shape[2:]
        if budget is None:
            full = self.plain(windows, place)
            depths = windows.new_full((len(windows), maps, height, width), self.method.depth)
            return Upscaled(full.pixels, full.macs, depths)
        centred = self.plain.centre(windows)
        # Each window for itself: its result does not depend on its batch, not even in the last bit.
        parts = [
            self._window(window, origin, budget)
            for window, origin in zip(centred.split(1), place.origins, strict=True)
        ]
        return Upscaled(
            self.plain.complete(torch.cat([pixels for pixels, _, _ in parts]), windows),
            torch.tensor([macs for _, _, macs in parts], dtype=torch.float64)
            + self.fixed_macs(height, width),
            torch.cat([depths for _, depths, _ in parts]),
        )

    def budget(self, effort: float, settings: Mapping[str, float]) -> float | None:
        """The predictor's budget in blocks; None: the predictor is not asked.

        ValueError: an unknown name, a budget below 0, or an effort that was not measured.
        """
        depth = self.setting(effort, settings)
        if depth is not None and not depth >= 0:
            raise ValueError(
                f"a depth of {depth:g} blocks is not a budget; give 0 or more, such as"
                f" {self.method.depth}"
            )
        return depth

    def _window(
        self, window: Tensor, origin: tuple[int, int], budget: float
    ) -> tuple[Tensor, Tensor, int]:
        """What the network makes of a window (1, 3, h, w), its depths, and its blocks' macs."""
        network = self.method.network
        entered, _ = network.enter(window)
        known = entered.to(at_least_float32(entered.dtype))
        depths = self.method.predictor(known, known.new_tensor(budget))
        if self.method.cell is not None:
            grid = CellGrid(origin, window.shape[2], window.shape[3], self.method.cell)
            depths = grid.spread(grid.means(depths)[:, 0])[None, None]
        body, macs = entered, 0
        for index, blocks in enumerate(self.method.groups):
            inner = Gated(body, origin)
            macs += inner.run(blocks, depths[:, index : index + 1])
            body = (
                body + list(network.groups)[index].join(inner.features)
                if isinstance(network, Rcan)
                else inner.features
            )
        return network.finish_by_rows(entered, body), depths, macs

    def fixed_macs(self, height: int, width: int, streamed: bool = True) -> int:
        """Multiply-adds of all but the blocks, for a window of `height` by `width`.

        streamed: on a CPU, where the network's end is composed.
        """
        blocks = sum(
            cost(block, 2 * height * width) for blocks in self.method.groups for block in blocks
        )
        predictor = height * width * self.method.predictor.cost
        return self.plain.count(height, width, streamed) - blocks + predictor

    def memory(self, scale: Fraction) -> float:
        """Bytes for each input pixel of a window.

        Beside those of the plain network, four maps of features and the cells' indices.
        """
        return self.plain.memory(scale) + 16 * self.method.network.features + 64


def build(checkpoint: Checkpoint, origin: str) -> AdadsrUpscaler:
    """The upscaler of a checkpoint; `origin` names it in errors."""
    spec = checkpoint.spec
    try:
        method = Adadsr(scale=spec.scale, **spec.arguments)
    except TypeError as error:
        raise ValueError(
            f"{origin} asks for an AdaDSR of {spec.arguments}, which cannot be built ({error})"
        ) from error
    fill(method, checkpoint.tensors, origin)
    return AdadsrUpscaler(method, spec, origin)
