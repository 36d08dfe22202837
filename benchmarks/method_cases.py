"""Cases of benchmarks/methods.py: a method against a network, or against its own full effort."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from tests.reference_file import read_reference
from tierscale.models.adaptive.adadsr import upscaler as adadsr
from tierscale.models.adaptive.adadsr.network import Adadsr
from tierscale.models.adaptive.anysr import upscaler as anysr
from tierscale.models.adaptive.anysr.network import AnySr
from tierscale.models.adaptive.ape import upscaler as ape
from tierscale.models.adaptive.classsr import upscaler as classsr
from tierscale.models.adaptive.classsr.network import OURS, ClassSr
from tierscale.models.adaptive.gated import spread
from tierscale.models.adaptive.pcsr import upscaler as pcsr
from tierscale.models.backbones import carn, fsrcnn
from tierscale.models.contract.checkpoints import Checkpoint, ModelSpec
from tierscale.models.contract.upscaler import Placement, Upscaler
from tierscale.models.convert.upstream import UPSTREAM
from tierscale.models.runtime.plain import PlainUpscaler, build

SHARED = Path(os.environ.get("TIERSCALE_SHARED", "../shared"))

Run = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Case:
    """A method against a network.

    most, aim: of the figure. share: executed cost of the method over that of the network, where the
    bar is on time over cost; else None.
    """

    name: str
    method: Run
    network: Run
    most: float
    aim: float
    share: float | None = None


def whole(lr: Tensor, scale: int = 4) -> Placement:
    """The placement of windows that are whole images."""
    return Placement(Fraction(scale), (lr.shape[2], lr.shape[3]), ((0, 0),) * len(lr))


def upscale(upscaler: Upscaler, lr: Tensor, **settings: float) -> Run:
    """A method or a network as the pipeline runs it."""
    return partial(upscaler, lr, whole(lr), settings=settings)


def eager(upscaler: PlainUpscaler, lr: Tensor) -> Run:
    """A plain network as torch runs its module, one layer after another."""
    network, mean = upscaler.network, upscaler.mean
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return lambda: network(lr - mean) + mean


def of_reference(name: str) -> Checkpoint:
    """The checkpoint in a file of the reference data."""
    reference = read_reference(SHARED / "reference" / f"{name}.safetensors")
    named = str(reference.config.get("name"))
    kind = named if named in UPSTREAM else reference.method.lower()
    return UPSTREAM[kind](reference.weights, reference.config, reference.mean)


def pcsr_cases(lr: Tensor) -> list[Case]:
    """PCSR with its upstream weights against the upstream dense networks.

    These run as modules and as our tiers.
    """
    cases = []
    for kind, network, dense, most, aim in (
        (
            "carn",
            carn.Carn,
            of_reference("carn_nf64_x4"),
            (0.95, 0.80),
            (0.75, 0.65),
        ),
        (
            "fsrcnn",
            fsrcnn.Fsrcnn,
            of_reference("fsrcnn_d56_x4"),
            (5.0, 5.0),
            (2.5, 2.5),
        ),
    ):
        method = pcsr.build(of_reference(f"pcsr_{kind}_x4"), kind)
        plain, streamed = build(network, dense, kind), build(network, dense, kind)
        for index, (label, k) in enumerate((("k=0", 0.0), ("all light", 50.0))):
            for how, against in (("module", eager(plain, lr)), ("streamed", upscale(streamed, lr))):
                name = f"PCSR-{kind.upper()} {label} / dense, {how}"
                cases.append(Case(name, upscale(method, lr, k=k), against, most[index], aim[index]))
    return cases


def anysr_cases(lr: Tensor) -> list[Case]:
    """The encoder of AnySR at half of its hidden channels against all of them.

    EDSR with the paper's 16 blocks of 64 features.
    """
    torch.manual_seed(0)
    upscaler = anysr.AnySrUpscaler(AnySr(), ModelSpec("anysr", 0))
    encoder, scale = upscaler.encoder, Fraction(4)
    centred, pixels = (
        (lr - upscaler.mean).contiguous(memory_format=torch.channels_last),
        lr.shape[2] * lr.shape[3],
    )
    share = encoder.cost(pixels, 0.5) / encoder.cost(pixels, 1.0)
    half, full = (partial(encoder.run, centred, scale, width) for width in (0.5, 1.0))
    return [Case("AnySR-EDSR encoder, width 0.5 / full, over cost", half, full, 1.15, 1.0, share)]


def classsr_cases(lr: Tensor) -> list[Case]:
    """ClassSR-CARN with a third of the tiles in each branch against all in the heaviest.

    Our widths, and the paper's.
    """
    cases = []
    paper = [{"features": features, "groups": 4} for features in (36, 52, 64)]
    for label, branches in (("", list(OURS)), (", the paper's widths", paper)):
        torch.manual_seed(0)
        thirds, heavy = (
            classsr.ClassSrUpscaler(
                ClassSr(4, "carn", branches), ModelSpec("classsr", 4, residual="bilinear")
            )
            for _ in range(2)
        )
        decide = thirds.decide
        # The classifier is asked, and its answer put aside.
        thirds.decide = lambda tiles, bias, decide=decide: (
            decide(tiles, bias) * 0 + torch.arange(len(tiles)) % 3
        )  # type: ignore[method-assign, misc]
        share = float(thirds(lr, whole(lr)).macs / heavy(lr, whole(lr)).macs)
        cases.append(
            Case(
                f"ClassSR-CARN equal thirds / all heavy, over cost{label}",
                upscale(thirds, lr),
                upscale(heavy, lr),
                1.1,
                1.0,
                share,
            )
        )
    return cases


@dataclass(frozen=True, slots=True)
class Half:
    """Half of the work of a method on a picture: the setting from which a result is more than that.

    enough: whether a map of what was chosen is more. ends: settings, from less to more work.
    """

    upscaler: Upscaler
    lr: Tensor
    place: Placement
    ends: tuple[float, float]
    enough: Callable[[Tensor], bool]

    def settings(self) -> dict[str, float]:
        """The control's setting, by halving the ends."""
        control = self.upscaler.control or ""
        low, high = self.ends
        for _ in range(14):
            middle = (low + high) / 2
            choice = self.upscaler(self.lr, self.place, settings={control: middle}).choice
            more = choice is not None and self.enough(choice)
            low, high = (low, middle) if more else (middle, high)
        return {control: high}

    def case(self, name: str, most: float, aim: float) -> Case:
        """The case of half of the work against all of it."""
        some = partial(self.upscaler, self.lr, self.place, settings=self.settings())
        full = partial(self.upscaler, self.lr, self.place)
        share = float(some().macs.sum() / full().macs.sum())
        return Case(name, some, full, most, aim, share)


def ape_cases(lr: Tensor) -> list[Case]:
    """APE-EDSR with the recorded weights where the average place passes half of the blocks.

    8 blocks of 32 features at scale 2; in cells of 16 pixels, as our own weights leave, and in
    patches, as upstream ones do.
    """
    cases, recorded = [], of_reference("ape_edsr_b8f32_x2")
    arguments = {**recorded.spec.arguments, "cell": 16}
    celled = replace(recorded, spec=replace(recorded.spec, arguments=arguments))
    for what, checkpoint in (("cells", celled), ("patches", recorded)):
        upscaler = ape.build(checkpoint, "APE")
        last = upscaler.method.exits - 1

        def enough(choice: Tensor, last: int = last) -> bool:
            return bool(torch.where(choice < 0, last, choice).float().mean() >= last / 2)

        half = Half(upscaler, lr, whole(lr, 2), (-1.0, 1.01), enough)
        cases.append(half.case(f"APE-EDSR, {what} leaving halfway / full, over cost", 1.1, 1.0))
    return cases


def adadsr_cases(lr: Tensor) -> list[Case]:
    """AdaDSR-EDSR where half of the blocks' work is needed.

    The recorded predictor's own depths at scale 2 (8 blocks of 24 features), and depths in
    proportion to the photo's gradients in place of a predictor's at scales 2 and 4 (8 blocks of 32
    features).
    """
    recorded = adadsr.build(of_reference("adaedsr_b8f24_x2"), "AdaDSR")
    cases = [half_depth(recorded, lr, "its own depths, x2")]
    rough = torch.nn.functional.avg_pool2d(
        lr.mean(dim=1, keepdim=True).diff(dim=2).diff(dim=3).abs(), 9, 1
    )
    gradients = torch.nn.functional.pad(rough / rough.mean(), (4, 5, 4, 5), mode="replicate")
    for scale in (2, 4):
        torch.manual_seed(0)
        method = Adadsr(scale, blocks=8, features=32)
        predict = method.predictor.forward
        # The predictor is asked, and its answer put aside.
        method.predictor.forward = lambda x, budget, predict=predict: (
            predict(x, budget) * 0 + gradients * budget
        )  # type: ignore[method-assign, misc]
        upscaler = adadsr.AdadsrUpscaler(method, ModelSpec("adadsr", scale, residual="bilinear"))
        cases.append(half_depth(upscaler, lr, f"depths like gradients, x{scale}"))
    return cases


def half_depth(upscaler: adadsr.AdadsrUpscaler, lr: Tensor, depths: str) -> Case:
    """The case of a budget at which half of the blocks' work is needed.

    Second convolutions where the depth goes beyond the block, first ones within a pixel of there.
    """
    method = upscaler.method

    def enough(choice: Tensor) -> bool:
        where = torch.cat([choice, spread(choice)])
        needed = sum(float((where > block).float().mean()) for block in range(method.depth))
        return needed >= method.depth / 2

    half = Half(upscaler, lr, whole(lr, method.scale), (0.0, 64.0), enough)
    return half.case(f"AdaDSR-EDSR, {depths}, half depth / full, over cost", 1.2, 1.05)


# A method adds its cases with one line here: a function of the photo.
METHODS: tuple[Callable[[Tensor], Sequence[Case]], ...] = (
    pcsr_cases,
    ape_cases,
    adadsr_cases,
    anysr_cases,
    classsr_cases,
)
