"""Saved work as saved time: `make bench-methods`. One process, two threads, one photograph, rounds in which every case takes its turn.

Each case runs a method and what it is compared with. Its figure is the ratio of their median seconds, divided by the ratio of their
executed cost where the bar is set on that.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.results import record
from models import carn, fsrcnn, pcsr
from models.plain import PlainUpscaler, build
from models.train.degrade import shrink
from models.train.photos import centre_crop, read_image
from models.upscaler import Placement, Upscaler
from models.weights import Checkpoint
from tests.reference_file import read_reference

SHARED = Path(os.environ.get("TIERSCALE_SHARED", "../shared"))
THREADS = 2
ROUNDS = 9

Run = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Case:
    """A method against a network.

    most, aim: of the figure. share: executed cost of the method over that of the network, where the bar is on time over cost; else 1.
    """

    name: str
    method: Run
    network: Run
    most: float
    aim: float
    share: float = 1.0


def photo() -> Tensor:
    """Urban100 img_002 made four times smaller: (1, 3, 192, 256), 0..1."""
    return shrink(centre_crop(read_image(next((SHARED / "data" / "eval" / "Urban100").glob("img_002*"))), 4) / 255, 4)[None]


def whole(lr: Tensor, scale: int = 4) -> Placement:
    """The placement of windows that are whole images."""
    return Placement(Fraction(scale), (lr.shape[2], lr.shape[3]), ((0, 0),) * len(lr))


def upscale(upscaler: Upscaler, lr: Tensor, **given: float) -> Run:
    """A method or a network as the pipeline runs it."""
    return partial(upscaler, lr, whole(lr), given=given)


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
    """PCSR with its published weights against the published dense networks, run as modules and run as our tiers."""
    cases = []
    for kind, network, dense, most, aim in (
        ("carn", carn.Carn, of_reference("carn_nf64_x4", carn.published), (0.95, 0.80), (0.75, 0.65)),
        ("fsrcnn", fsrcnn.Fsrcnn, of_reference("fsrcnn_d56_x4", fsrcnn.published), (5.0, 5.0), (2.5, 2.5)),
    ):
        method = pcsr.build(of_reference(f"pcsr_{kind}_x4", pcsr.published), kind)
        plain, streamed = build(network, dense, kind), build(network, dense, kind)
        for index, (label, k) in enumerate((("k=0", 0.0), ("all light", 50.0))):
            for how, against in (("module", eager(plain, lr)), ("streamed", upscale(streamed, lr))):
                name = f"PCSR-{kind.upper()} {label} / dense, {how}"
                cases.append(Case(name, upscale(method, lr, k=k), against, most[index], aim[index]))
    return cases


# A method adds its cases with one line here: a function of the photo.
METHODS: tuple[Callable[[Tensor], Sequence[Case]], ...] = (pcsr_cases,)


def clock(run: Run) -> tuple[float, float]:
    """Seconds of wall and of processor that a run takes."""
    wall, processor = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - processor


def measure(cases: Sequence[Case], rounds: int) -> dict[str, dict[str, Any]]:
    """Figures of each case, from rounds in which all take their turn; the first round is not counted."""
    pairs = [[(clock(case.method), clock(case.network)) for case in cases] for _ in range(rounds + 1)][1:]
    figures = {}
    for index, case in enumerate(cases):
        seconds = np.array([one[index] for one in pairs])  # (rounds, method or network, wall or processor)
        medians, least = np.median(seconds, axis=0), seconds.min(axis=0)
        figures[case.name] = {
            "milliseconds": [round(1000 * float(s), 1) for s in medians[:, 0]],
            "ratio": round(float(medians[0, 0] / medians[1, 0]) / case.share, 3),
            "ratio of the least": round(float(least[0, 0] / least[1, 0]) / case.share, 3),
            "ratio of processor time": round(float(medians[0, 1] / medians[1, 1]) / case.share, 3),
            "cost share": round(case.share, 4),
            "at most": case.most,
            "aim": case.aim,
        }
    return figures


def main(wanted: Sequence[str]) -> None:
    """Measure the cases whose names hold one of the words given, and print them; all of them without words, and record them."""
    torch.set_num_threads(THREADS)
    lr = photo()
    with torch.inference_mode():
        cases = [case for method in METHODS for case in method(lr)]
        chosen = [case for case in cases if not wanted or any(word in case.name for word in wanted)]
        figures = measure(chosen, ROUNDS)
    for name, found in figures.items():
        print(f"{name:44} {found['ratio']:6.2f}  (at most {found['at most']}, aim {found['aim']})  {found}")
    if not wanted:
        record("methods", "make bench-methods", {"threads": THREADS, "cases": figures})


if __name__ == "__main__":
    main(sys.argv[1:])
