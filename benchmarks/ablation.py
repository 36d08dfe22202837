"""What helps a short training: `make ablation`.

FSRCNN x4 with one thing changed at a time, the same seed, PSNR on Set5 in the end. The standard is
2,000 steps of 16 crops of 32 input pixels on one thread. Writes docs/ablation.csv, a row for each
variant as it ends; rows that are there are kept.
"""

import csv
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.curves import SHARED
from tierscale.models.contract.checkpoints import ModelSpec
from tierscale.models.train.data.photos import Photo, image_files, photo, read_image, read_photos
from tierscale.models.train.recipes import build, recipe
from tierscale.models.train.schedule import Schedule, done_share
from tierscale.models.train.tasks import LOSSES, Task
from tierscale.models.train.trainer import Trainer, TrainingPlan

STEPS = 2000
TABLE = Path("docs/ablation.csv")

Variant = Callable[[Schedule, ModelSpec], tuple[Schedule, ModelSpec]]


def changed(**fields: object) -> Variant:
    """A variant that changes the schedule."""
    return lambda schedule, spec: (replace(schedule, **fields), spec)  # type: ignore[arg-type]


VARIANTS: dict[str, Variant] = {
    "standard": changed(),
    "rate 5e-4": changed(rate=5e-4),
    "rate 1e-3": changed(rate=1e-3),
    "rate 4e-3": changed(rate=4e-3),
    "64 crops of 16": changed(batch=64, crop=16),
    "4 crops of 64": changed(batch=4, crop=64),
    "8 crops of 32": changed(batch=8),
    "Charbonnier in place of L1": changed(loss="charbonnier"),
    "no running mean of the weights": changed(ema=0.0),
    "running mean over 100 steps": changed(ema=0.99),
    "gradients not clipped": changed(clip=1e9),
    "no warm-up": changed(warmup=1),
    "bfloat16": changed(bf16=True),
    "no residual: the network makes the whole picture": lambda schedule, spec: (
        schedule,
        replace(spec, residual=None),
    ),
    "bicubic residual": lambda schedule, spec: (
        schedule,
        replace(spec, residual="bicubic"),
    ),
}
# Batch from three quarters of the steps on.
LATE = {"48 crops in the last quarter": 48}


def run(
    variant: Variant, late: int | None, photos: list[Photo], watched: list[Photo]
) -> tuple[float, float]:
    """Train; PSNR on Set5, dB, and seconds of processor time."""
    spec, standard = recipe("fsrcnn-x4")
    schedule, spec = variant(replace(standard, steps=STEPS), spec)
    plan = TrainingPlan(spec, schedule, Task(LOSSES[schedule.loss]))
    trainer = Trainer(build(spec, 0), plan, torch.device("cpu"))
    began = time.process_time()
    while done_share(trainer.schedule, trainer.step, 0.0) < 1:
        if late and trainer.step == STEPS * 3 // 4:
            trainer.schedule = replace(schedule, batch=late)
        trainer.advance(photos, time.monotonic())
    return trainer.watch(watched, largest=4096), time.process_time() - began


def main() -> None:
    """Train the variants that the table lacks."""
    torch.set_num_threads(1)
    photos = read_photos(SHARED / "data" / "train", 4, 64)
    watched = [
        photo(path.name, read_image(path), 4)
        for path in image_files(SHARED / "data" / "eval" / "Set5")
    ]
    known = (
        {row["variant"] for row in csv.DictReader(TABLE.open(newline=""))}
        if TABLE.exists()
        else set()
    )
    for name, (variant, late) in {
        **{n: (v, None) for n, v in VARIANTS.items()},
        **{n: (changed(), b) for n, b in LATE.items()},
    }.items():
        if name in known:
            continue
        decibels, seconds = run(variant, late, photos, watched)
        fresh = not TABLE.exists()
        with TABLE.open("a", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if fresh:
                writer.writerow(["variant", "psnr", "seconds"])
            writer.writerow([name, f"{decibels:.3f}", f"{seconds:.0f}"])
        print(f"{name:50} {decibels:.3f} dB {seconds:5.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
