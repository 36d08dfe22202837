"""Operations as the counters and tables of the papers' own code tell them.

They charge other work than what is executed here, each in its own way; with these figures the
papers' tables can be compared: `python -m benchmarks.reproduce.costs`. AnySR has no table of PSNR
against cost, and so no function here.
"""

from functools import partial

import torch
from torch import Tensor

from tierscale.models import registry
from tierscale.models.adaptive.adadsr.upscaler import AdadsrUpscaler
from tierscale.models.adaptive.ape.network import Ape
from tierscale.models.adaptive.ape.upscaler import ApeUpscaler
from tierscale.models.adaptive.classsr.upscaler import ClassSrUpscaler
from tierscale.models.adaptive.gated import cost
from tierscale.models.adaptive.pcsr.upscaler import PcsrUpscaler
from tierscale.models.backbones.fsrcnn import Fsrcnn
from tierscale.models.contract.checkpoints import ModelSpec
from tierscale.models.runtime.counting import executed
from tierscale.models.runtime.patches import SIDE
from tierscale.models.runtime.plain import PlainUpscaler


def pcsr(upscaler: PcsrUpscaler, chosen: Tensor, height: int, width: int) -> float:
    """Operations (2 for each multiply-add) of a window whose output pixels are `chosen` (H, W).

    First layers are charged at each output pixel, as the upstream code executes them, where we do
    at each input pixel (`height` by `width`), and no bilinear enlargement.
    """
    layers = [
        sum(layer.weight.numel() for layer in mlp.layers)
        for mlp in (*upscaler.samplers, upscaler.classifier)
    ]
    counts = torch.bincount(chosen.flatten().long().cpu(), minlength=len(upscaler.samplers))
    samplers = sum(
        weights * count for weights, count in zip(layers[:-1], counts.tolist(), strict=True)
    )
    return upscaler.encoder_operations * height * width + 2 * (
        samplers + layers[-1] * chosen.numel()
    )


def ape(upscaler: ApeUpscaler, height: int, width: int, left: int) -> int:
    """Multiply-adds, one operation each, of the convolutions of a window that left by exit `left`.

    left: -1: it never left. The upstream tables exist for patches of 48x48 only and leave the
    regressor out; the network's end is charged convolution by convolution. At scale 4 this gives
    EDSR's figures; RCAN's and VDSR's are 0.3 to 0.7 % higher in the tables.
    """
    questions = upscaler.method.exits if left == -1 else left + 1
    return (
        upscaler.macs(height, width, left, streamed=False)
        - questions * upscaler.network.features
        - residual(upscaler.plain, height, width)
    )


def adadsr(upscaler: AdadsrUpscaler, depths: Tensor) -> int:
    """Multiply-adds, one operation each, of a window of these depths (maps, h, w).

    Both convolutions of a block are charged where the depth goes beyond it, while the first is
    needed within a pixel of there: too little. The upstream counter has no residual kernel, and
    charges the network's end convolution by convolution. For RCAN it also charges an upsampler of
    256 channels whatever their number: we do not.
    """
    height, width = depths.shape[1:]
    blocks = sum(
        cost(block, 2 * int((depth > number).sum()))
        for depth, group in zip(depths, upscaler.method.groups, strict=True)
        for number, block in enumerate(group)
    )
    fixed = upscaler.fixed_macs(height, width, streamed=False)
    return fixed - residual(upscaler.plain, height, width) + blocks


def classsr(upscaler: ClassSrUpscaler, classes: Tensor) -> float:
    """Operations (2 for each multiply-add) of tiles of these classes.

    FSRCNN's transposed convolution is charged at each output pixel, scale * scale times what it
    executes (95 % of the figure at scale 4 and 56 channels), and the classifier is left out where
    the branches are CARN or SRResNet.
    """
    total = 0.0
    for index in classes.flatten().tolist():
        network = upscaler.branches[index].network
        branch = executed(partial(network, torch.zeros(1, 3, SIDE, SIDE)))
        if isinstance(network, Fsrcnn):
            enlarging = network.enlarge.weight.numel() * SIDE**2
            branch += enlarging * (upscaler.scale**2 - 1) + upscaler.classifier.cost(SIDE, SIDE)
        total += 2 * branch
    return total


def residual(plain: PlainUpscaler, height: int, width: int) -> int:
    """Multiply-adds of a plain network's residual kernel."""
    return 0 if plain.weight is None else 3 * plain.weight.numel() * height * width


def main() -> None:
    """Print the figures that the papers tell and that can be counted without their weights."""
    with torch.device("meta"):
        method = Ape(4, "edsr", 1, blocks=32, features=256)
    upscaler = ApeUpscaler(method, ModelSpec("ape", 4))
    for left, published in ((0, 31.54), (-1, 115.83)):
        figure = ape(upscaler, 48, 48, left) / 1e9
        print(
            f"APE-EDSR x4, 48x48, exit {left:2}: {figure:.2f} G, in the paper's table {published} G"
        )
    zoo = registry.load("pcsr-carn-x4")
    if isinstance(zoo, PcsrUpscaler):
        heavy = torch.ones(768, 1024, dtype=torch.uint8)
        for name, chosen, published in (("heavy", heavy, 56.7), ("light", heavy * 0, 27.1)):
            figure = pcsr(zoo, chosen, 192, 256) / 1e9
            print(f"PCSR-CARN x4, all {name}: {figure:.1f} G, in the paper's table {published} G")


if __name__ == "__main__":
    main()
