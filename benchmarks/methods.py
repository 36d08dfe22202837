"""Saved work as saved time: `make bench-methods`.

One process, two threads, one photograph, rounds in which every case takes its turn. Each case runs
a method and what it is compared with. Its figure is the ratio of their median seconds, divided by
the ratio of their executed cost where the bar is set on that.
"""

import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.method_cases import METHODS, SHARED, Case, Run
from benchmarks.results import record
from tierscale.models.train.data.photos import centre_crop, read_image
from tierscale.models.train.data.shrink import shrink

THREADS = 2
ROUNDS = 15


def photo() -> Tensor:
    """Urban100 img_002 made four times smaller: (1, 3, 192, 256), 0..1."""
    return shrink(
        centre_crop(read_image(next((SHARED / "data" / "eval" / "Urban100").glob("img_002*"))), 4)
        / 255,
        4,
    )[None]


def clock(run: Run) -> tuple[float, float]:
    """Seconds of wall and of processor that a run takes."""
    wall, processor = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - processor


def measure(cases: Sequence[Case], rounds: int) -> dict[str, dict[str, Any]]:
    """Figures of each case, from rounds in which all take their turn.

    The first round is not counted.
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
    """Measure the cases whose names hold one of the words, and print them.

    Without words all of them, which are recorded.
    """
    torch.set_num_threads(THREADS)
    lr = photo()
    with torch.inference_mode():
        cases = [case for method in METHODS for case in method(lr)]
        chosen = [case for case in cases if not wanted or any(word in case.name for word in wanted)]
        figures = measure(chosen, ROUNDS)
    for name, figure in figures.items():
        print(
            f"{name:44} {figure['ratio']:6.2f}  (at most {figure['at most']}, aim {figure['aim']}) "
            f" {figure}"
        )
    if not wanted:
        record("methods", "make bench-methods", {"threads": THREADS, "cases": figures})


if __name__ == "__main__":
    main(sys.argv[1:])
