"""What the network of any scale is worth at each: `python -m benchmarks.scales`, part of `make
curves`; writes docs/scales.csv.

PSNR in dB on Set14 (without its grey image) and Urban100 001-020, by the protocol of the cards
(shave is the scale, rounded up), with bicubic and the plain networks that were made for a scale
beside it. Cost is multiply-adds for each input pixel. Scales from 1.1 to 4 were trained.
"""

import csv
from fractions import Fraction

from benchmarks.curves import DOCS, SETS, SHARED
from tierscale.models import registry as models
from tierscale.models.train.measure import quality

SCALES = (Fraction(11, 10), *(Fraction(halves, 2) for halves in (3, 4, 5, 6, 7, 8, 12, 16, 32)))
PLAIN = ("fsrcnn", "carn", "edsr")
EVERY = ("bicubic", "anysr-edsr")


def main() -> None:
    """Measure and write the table."""
    with (DOCS / "scales.csv").open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["scale", "network", "cost", *SETS])
        for scale in SCALES:
            for network in (*EVERY, *(f"{kind}-x{scale}" for kind in PLAIN)):
                if network not in models.names():
                    continue
                upscaler = models.load(network)
                found = [
                    quality(upscaler, SHARED / "data" / "eval" / where, scale)["papers"].psnr
                    for where in SETS
                ]
                rows.writerow(
                    [
                        scale,
                        network,
                        round(upscaler.cost(scale)),
                        *(f"{psnr:.2f}" for psnr in found),
                    ]
                )
                file.flush()


if __name__ == "__main__":
    main()
