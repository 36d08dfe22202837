"""Which network suits which kind of image: PSNR over all pixels of a set, at x4. Part of `make
curves`; writes docs/kinds.csv.

Sets are those of `make bench-routing`: photos of buildings, mixed photos, and crops of a map, a
painting and a microscope's slide. Cost is the planned one, multiply-adds for each input pixel.
"""

import csv
from fractions import Fraction

import numpy as np

from benchmarks.curves import DOCS
from benchmarks.scenes import SCALE, SETS, scenes
from tierscale.pipeline.run.tiers import load_tiers

# Those of clean pictures.
KINDS = tuple(name for name, own in SETS.items() if own.kind == "clean")
NETWORKS = (
    "bicubic",
    "fsrcnn-x4",
    "edsr-x4",
    "edsr16-x4",
    "carn-x4",
    "ape-edsr-x4@0.5",
    "ape-edsr-x4@0.6",
    "ape-edsr-x4",
    "adaedsr-x4@0.5",
    "adaedsr-x4",
    "anysr-edsr@0.75",
    "anysr-edsr",
    "classsr-carn-x4@0.5",
    "pcsr-carn-x4@0.75",
    "pcsr-fsrcnn-x4",
)


def quality(kind: str, network: str) -> float:
    """PSNR in dB of the pooled error on a set."""
    errors = np.concatenate([one.errors[:, 0] for one in scenes(kind, (network,))])
    return float(-10 * np.log10(errors.mean()))


def main() -> None:
    """Measure and write the table."""
    with (DOCS / "kinds.csv").open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["network", "cost", *KINDS])
        for network in NETWORKS:
            (tier,) = load_tiers((network,), Fraction(SCALE))
            rows.writerow(
                [network, round(tier.cost), *(f"{quality(kind, network):.2f}" for kind in KINDS)]
            )
            file.flush()


if __name__ == "__main__":
    main()
