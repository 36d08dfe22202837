"""Saved work as saved time: `make bench-methods`. One process, two threads, one photograph, rounds
in which every case takes its turn.

Each case runs a method and what it is compared with. Its figure is the ratio of their median
seconds, divided by the ratio of their executed cost where the bar is set on that.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.results import record
from tests.reference_file import read_reference
from tierscale.models.adaptive.adadsr import upscaler as adadsr
from tierscale.models.adaptive.anysr import upscaler as anysr
from tierscale.models.adaptive.ape import upscaler as ape
from tierscale.models.adaptive.classsr import upscaler as classsr
from tierscale.models.adaptive.classsr.network import OURS
from tierscale.models.adaptive.gated import spread
from tierscale.models.adaptive.pcsr import upscaler as pcsr
from tierscale.models.backbones import carn, fsrcnn
from tierscale.models.contract.checkpoints import Checkpoint, ModelSpec
from tierscale.models.contract.upscaler import Placement, Upscaled, Upscaler
from tierscale.models.runtime.plain import PlainUpscaler, build
from tierscale.models.train.photos import centre_crop, read_image
from tierscale.models.train.shrink import shrink

SHARED = Path(os.environ.get("TIERSCALE_SHARED", "../shared"))
THREADS = 2
ROUNDS = 15

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


def photo() -> Tensor:
    """Urban100 img_002 made four times smaller: (1, 3, 192, 256), 0..1."""
    return shrink(
        centre_crop(read_image(next((SHARED / "data" / "eval" / "Urban100").glob("img_002*"))), 4)
        / 255,
        4,
    )[None]


def whole(lr: Tensor, scale: int = 4) -> Placement:
    """The placement of windows that are whole images."""
    return Placement(Fraction(scale), (lr.shape[2], lr.shape[3]), ((0, 0),) * len(lr))


def upscale(upscaler: Upscaler, lr: Tensor, **given: float) -> Run:
    """A method or a network as the pipeline runs it."""
    return partial(upscaler, lr, whole(lr), settings=given)


def eager(upscaler: PlainUpscaler, lr: Tensor) -> Run:
    """A plain network as torch runs its module, one layer after another."""
    network, mean = upscaler.network, upscaler.mean
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return lambda: network(lr - mean) + mean


def of_reference(name: str, published: Callable[..., Checkpoint]) -> Checkpoint:
    """The checkpoint in a file of the reference data."""
    reference = read_reference(SHARED / "reference" / f"{name}.safetensors")
    return published(reference.weights, reference.config, reference.mean)


def pcsr_cases(lr: Tensor) -> list[Case]:
    """PCSR with its published weights against the published dense networks, run as modules and run
    as our tiers.
    """
    cases = []
    for kind, network, dense, most, aim in (
        (
            "carn",
            carn.Carn,
            of_reference("carn_nf64_x4", carn.published),
            (0.95, 0.80),
            (0.75, 0.65),
        ),
        (
            "fsrcnn",
            fsrcnn.Fsrcnn,
            of_reference("fsrcnn_d56_x4", fsrcnn.published),
            (5.0, 5.0),
            (2.5, 2.5),
        ),
    ):
        method = pcsr.build(of_reference(f"pcsr_{kind}_x4", pcsr.published), kind)
        plain, streamed = build(network, dense, kind), build(network, dense, kind)
        for index, (label, k) in enumerate((("k=0", 0.0), ("all light", 50.0))):
            for how, against in (("module", eager(plain, lr)), ("streamed", upscale(streamed, lr))):
                name = f"PCSR-{kind.upper()} {label} / dense, {how}"
                cases.append(Case(name, upscale(method, lr, k=k), against, most[index], aim[index]))
    return cases


def anysr_cases(lr: Tensor) -> list[Case]:
    """The encoder of AnySR, EDSR with the published 16 blocks of 64 features, at half of its hidden
    channels against all of them.
    """
    torch.manual_seed(0)
    upscaler = anysr.AnySrUpscaler(anysr.AnySr(), ModelSpec("anysr", 0))
    encoder, scale = upscaler.encoder, Fraction(4)
    centred, pixels = (
        (lr - upscaler.mean).contiguous(memory_format=torch.channels_last),
        lr.shape[2] * lr.shape[3],
    )
    share = encoder.cost(pixels, 0.5) / encoder.cost(pixels, 1.0)
    half, full = (partial(encoder.run, centred, scale, width) for width in (0.5, 1.0))
    return [Case("AnySR-EDSR encoder, width 0.5 / full, over cost", half, full, 1.15, 1.0, share)]


def classsr_cases(lr: Tensor) -> list[Case]:
    """ClassSR-CARN with a third of the tiles in each branch against all in the heaviest: our
    widths, and the paper's.
    """
    cases = []
    paper = [{"features": features, "groups": 4} for features in (36, 52, 64)]
    for label, branches in (("", list(OURS)), (", the paper's widths", paper)):
        torch.manual_seed(0)
        thirds, heavy = (
            classsr.ClassSrUpscaler(
                classsr.ClassSr(4, "carn", branches), ModelSpec("classsr", 4, residual="bilinear")
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


def setting(
    upscaler: Upscaler,
    lr: Tensor,
    place: Placement,
    ends: tuple[float, float],
    aim: Callable[[Upscaled], bool],
) -> float:
    """Where, from the first to the second of two ends, a control's setting begins to make a result of
    which `aim` is true.
    """
    low, high = ends
    for _ in range(14):
        middle = (low + high) / 2
        low, high = (
            (low, middle)
            if aim(upscaler(lr, place, settings={upscaler.control or "": middle}))
            else (middle, high)
        )
    return high


def ape_cases(lr: Tensor) -> list[Case]:
    """APE-EDSR with the recorded weights, 8 blocks of 32 features at scale 2, where the average
    place passes half of the blocks: in cells of 16 pixels, as our own weights leave, and in
    patches, as published ones do.
    """
    cases, recorded = [], of_reference("ape_edsr_b8f32_x2", ape.published)
    arguments = {**recorded.spec.arguments, "cell": 16}
    celled = replace(recorded, spec=replace(recorded.spec, arguments=arguments))
    for what, checkpoint in (("cells", celled), ("patches", recorded)):
        upscaler = ape.build(checkpoint, "APE")
        place, last = whole(lr, 2), upscaler.method.exits - 1

        def half(made: Upscaled, last: int = last) -> bool:
            assert made.choice is not None
            return bool(torch.where(made.choice < 0, last, made.choice).float().mean() >= last / 2)

        given = {"threshold": setting(upscaler, lr, place, (-1.0, 1.01), half)}
        leaving, full = partial(upscaler, lr, place, settings=given), partial(upscaler, lr, place)
        share = float(leaving().macs.sum() / full().macs.sum())
        cases.append(
            Case(
                f"APE-EDSR, {what} leaving halfway / full, over cost",
                leaving,
                full,
                1.1,
                1.0,
                share,
            )
        )
    return cases


def adadsr_cases(lr: Tensor) -> list[Case]:
    """AdaDSR-EDSR where half of the blocks' work is needed: the recorded predictor's own depths at
    scale 2 (8 blocks of 24 features), and depths in proportion to the photo's gradients in place of
    a predictor's at scales 2 and 4 (8 blocks of 32 features).
    """
    recorded = adadsr.build(of_reference("adaedsr_b8f24_x2", adadsr.published), "AdaDSR")
    cases = [half_depth(recorded, lr, "its own depths, x2")]
    rough = torch.nn.functional.avg_pool2d(
        lr.mean(dim=1, keepdim=True).diff(dim=2).diff(dim=3).abs(), 9, 1
    )
    gradients = torch.nn.functional.pad(rough / rough.mean(), (4, 5, 4, 5), mode="replicate")
    for scale in (2, 4):
        torch.manual_seed(0)
        method = adadsr.Adadsr(scale, blocks=8, features=32)
        predict = method.predictor.forward
        # The predictor is asked, and its answer put aside.
        method.predictor.forward = lambda x, budget, predict=predict: (
            predict(x, budget) * 0 + gradients * budget
        )  # type: ignore[method-assign, misc]
        upscaler = adadsr.AdadsrUpscaler(method, ModelSpec("adadsr", scale, residual="bilinear"))
        cases.append(half_depth(upscaler, lr, f"depths like gradients, x{scale}"))
    return cases


def half_depth(upscaler: adadsr.AdadsrUpscaler, lr: Tensor, depths: str) -> Case:
    """The case of a budget at which half of the blocks' work is needed: second convolutions where
    the depth goes beyond the block, first ones within a pixel of there.
    """
    place, blocks = whole(lr, upscaler.method.scale), range(upscaler.method.depth)

    def half(made: Upscaled) -> bool:
        assert made.choice is not None
        where = torch.cat([made.choice, spread(made.choice)])
        return (
            sum(float((where > block).float().mean()) for block in blocks)
            >= upscaler.method.depth / 2
        )

    given = {"depth": setting(upscaler, lr, place, (0.0, 64.0), half)}
    some, full = partial(upscaler, lr, place, settings=given), partial(upscaler, lr, place)
    share = float(some().macs / full().macs)
    return Case(
        f"AdaDSR-EDSR, {depths}, half depth / full, over cost", some, full, 1.2, 1.05, share
    )


# A method adds its cases with one line here: a function of the photo.
METHODS: tuple[Callable[[Tensor], Sequence[Case]], ...] = (
    pcsr_cases,
    ape_cases,
    adadsr_cases,
    anysr_cases,
    classsr_cases,
)


def clock(run: Run) -> tuple[float, float]:
    """Seconds of wall and of processor that a run takes."""
    wall, processor = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - processor


def measure(cases: Sequence[Case], rounds: int) -> dict[str, dict[str, Any]]:
    """Figures of each case, from rounds in which all take their turn; the first round is not
    counted.
    """
    pairs = [
        [(clock(case.method), clock(case.network)) for case in cases] for _ in range(rounds + 1)
    ][1:]
    figures = {}
    for index, case in enumerate(cases):
        seconds = np.array(
            [one[index] for one in pairs]
        )  # (rounds, method or network, wall or processor)
        medians, least = np.median(seconds, axis=0), seconds.min(axis=0)
        share = 1.0 if case.share is None else case.share
        figures[case.name] = {
            "milliseconds": [round(1000 * float(s), 1) for s in medians[:, 0]],
            "ratio": round(float(medians[0, 0] / medians[1, 0]) / share, 3),
            "ratio of the least": round(float(least[0, 0] / least[1, 0]) / share, 3),
            "ratio of processor time": round(float(medians[0, 1] / medians[1, 1]) / share, 3),
            **({} if case.share is None else {"cost share": round(case.share, 4)}),
            "at most": case.most,
            "aim": case.aim,
        }
    return figures


def main(wanted: Sequence[str]) -> None:
    """Measure the cases whose names hold one of the words given, and print them; all of them
    without words, and record them.
    """
    torch.set_num_threads(THREADS)
    lr = photo()
    with torch.inference_mode():
        cases = [case for method in METHODS for case in method(lr)]
        chosen = [case for case in cases if not wanted or any(word in case.name for word in wanted)]
        figures = measure(chosen, ROUNDS)
    for name, found in figures.items():
        print(
            f"{name:44} {found['ratio']:6.2f}  (at most {found['at most']}, aim {found['aim']}) "
            f" {found}"
        )
    if not wanted:
        record("methods", "make bench-methods", {"threads": THREADS, "cases": figures})


if __name__ == "__main__":
    main(sys.argv[1:])
