"""Whether the family of networks that is chosen for an image is the right one: `make
bench-families`; writes docs/families.csv.

Photos are shrunk by 4 and damaged in ways that the photo family was trained on, and in others: a
soft scan, a halftone, a picture that was enlarged before and compressed. The light networks of both
families enlarge each; what `--family auto` chooses is compared with both and with bicubic.
"""

import argparse
import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.scenes import SCALE, photos
from tierscale.models import registry
from tierscale.models.contract.metrics import psnr
from tierscale.models.contract.upscaler import Placement, Upscaler
from tierscale.models.kind import judge, load_kind_network
from tierscale.models.runtime.resample import resample
from tierscale.models.train.data.degradations import degrade, rounded, seeded
from tierscale.models.train.data.mixture import Damage
from tierscale.models.train.data.shrink import shrink
from tierscale.models.train.kinds import halftone, soft, upscaled
from tierscale.pipeline.inference.kind import places
from tierscale.pipeline.run.family import choose

DOCS = Path("docs")
CLEAN, PHOTO = "edsr-x4", "edsr-x4-photo"
TRAINED = (
    "jpeg30",
    "jpeg50",
    "jpeg75",
    "jpeg90",
    "grain2",
    "grain4",
    "grain8",
    "blur1",
    "grain8+jpeg60",
    "blur1+jpeg60",
)
# Bars, in dB: what auto may lose to the clean family on clean images, to the photo family on
# damaged ones (means of a kind), and to bicubic on any image.
LOSS_CLEAN, LOSS_DAMAGED, LOSS_BICUBIC = 0.03, 0.05, 0.02

Way = Callable[[Tensor, np.random.Generator], Tensor]


def untrained(damage: Callable[[Tensor, np.random.Generator], Damage]) -> Way:
    """A way to damage (3, h, w), 0..1, from one of models/train/kinds.py."""

    def apply(picture: Tensor, rng: np.random.Generator) -> Tensor:
        levels = rounded(picture * 255)
        return damage(levels, rng).apply(levels) / 255

    return apply


def named(kind: str) -> Way:
    """A way to damage by its name, as for `evaluate --degrade`."""
    return lambda picture, rng: degrade(picture, kind, rng)


WAYS: dict[str, Way] = {
    kind: named(kind) for kind in ("clean", *TRAINED, "blur2.5", "blur2.5+jpeg75")
} | {
    "soft": untrained(soft),
    "halftone": untrained(halftone),
    "enlarged before": untrained(upscaled),
}


@dataclass(frozen=True, slots=True)
class Row:
    """PSNR in dB of one image under one kind, and the family that was chosen."""

    image: str
    kind: str
    bicubic: float
    clean: float
    photo: float
    family: str
    seen: str

    @property
    def auto(self) -> float:
        """PSNR of what was chosen."""
        return {"clean": self.clean, "photo": self.photo, "none": self.bicubic}[self.family]


def row(image: str, hr: Tensor, kind: str, networks: Sequence[Upscaler]) -> Row:
    """Measures one image under one kind."""
    lr = WAYS[kind](shrink(hr, SCALE), seeded(image))
    place = Placement.whole((lr.shape[-2], lr.shape[-1]), Fraction(SCALE))
    results = [resample(lr[None], place, "bicubic")]
    with torch.inference_mode():
        results += [network(lr[None], place).pixels for network in networks]
    network = load_kind_network(Fraction(SCALE))
    if network is None:
        raise SystemExit("no network judges kinds at x4; fit one: models/train/kinds.py")
    tiles = [lr[:, at.y.start : at.y.stop, at.x.start : at.x.stop] for at in places(*lr.shape[1:])]
    judgement = judge(network, torch.stack(tiles), None)
    figures = [round(psnr(result[0].clamp(0, 1), hr, SCALE), 3) for result in results]
    return Row(image, kind, *figures, choose(judgement, True), str(judgement.kind))


def images() -> Iterator[tuple[str, Tensor]]:
    """The test sets, grey images as three channels."""
    for folder, count in (("Set14", None), ("Urban100", 20)):
        for name, hr in photos(folder, count):
            yield f"{folder} {name}", hr.expand(3, -1, -1)


def told(rows: Sequence[Row]) -> Iterator[str]:
    """Means by kind, and images on which a bar is missed."""
    for kind in dict.fromkeys(row.kind for row in rows):
        own = [row for row in rows if row.kind == kind]
        bicubic, clean, photo, auto = (
            float(np.mean([getattr(row, name) for row in own]))
            for name in ("bicubic", "clean", "photo", "auto")
        )
        worst = min(own, key=lambda row: row.auto - row.bicubic)
        best = clean if kind == "clean" else photo
        bar = LOSS_CLEAN if kind == "clean" else LOSS_DAMAGED
        shares = ", ".join(
            f"{sum(row.family == family for row in own)} {family}"
            for family in ("clean", "photo", "none")
        )
        yield (
            f"{kind:16} bicubic {bicubic:.2f} clean {clean - bicubic:+.2f} photo"
            f" {photo - bicubic:+.2f} auto {auto - bicubic:+.2f}"
            f" {'ok' if best - auto <= bar else 'MISSED'} | {shares} | worst {worst.image}"
            f" {worst.auto - worst.bicubic:+.2f}"
        )
    for row in rows:
        if row.auto < row.bicubic - LOSS_BICUBIC:
            yield f"MISSED below bicubic: {row.image}, {row.kind}: {row.auto - row.bicubic:+.2f}"


def main(line: Sequence[str] | None = None) -> None:
    """Measure; write docs/families.csv unless only a part was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.families")
    parser.add_argument("--kinds", help="names with semicolons; all unless given")
    options = parser.parse_args(line)
    torch.set_num_threads(1)
    networks = [registry.load(name) for name in (CLEAN, PHOTO)]
    kinds = options.kinds.split(";") if options.kinds else list(WAYS)
    rows = [row(image, hr, kind, networks) for image, hr in images() for kind in kinds]
    print(*told(rows), sep="\n")
    if options.kinds is None:
        with (DOCS / "families.csv").open("w", newline="") as file:
            table = csv.DictWriter(file, [*asdict(rows[0]), "auto"], lineterminator="\n")
            table.writeheader()
            table.writerows({**asdict(one), "auto": one.auto} for one in rows)


if __name__ == "__main__":
    main()
