"""One training run, from its options to the files that it leaves."""

from collections.abc import Callable
from dataclasses import replace

from tierscale.models.contract.checkpoints import write_whole
from tierscale.models.train.data.degradations import degrade, seeded
from tierscale.models.train.data.mixture import MARGIN, WATCHED
from tierscale.models.train.data.photos import Photo, hold_out, read_photos, read_watched, same
from tierscale.models.train.recipes import STAGES, Stages
from tierscale.models.train.results import check_out, plot, store
from tierscale.models.train.schedule import done_share
from tierscale.models.train.setup import Say, TrainOptions, prepare
from tierscale.models.train.trainer import Reports, Trainer, train

LOG = "step,seconds,loss,psnr"


def run(
    options: TrainOptions, stop: Callable[[], bool], say: Say, warn: Say, stages: Stages = STAGES
) -> bool:
    """Train to the end of the schedule, or until stop(); whether it came to the end.

    At each report there is a progress line and a row of the log, and all files are written.
    ValueError: the options cannot work. FloatingPointError: training diverged. OSError: a file
    cannot be written.
    """
    trainer = prepare(options, say, stages)
    check_out(options)
    schedule = trainer.schedule
    photos, watched = read(options, trainer, warn)
    say(
        f"{options.name}: {len(photos)} photos, {len(watched)} watched, {trainer.device},"
        f" {schedule}"
    )
    log = options.file(".csv")
    rows = (log.read_text().splitlines() if options.resume and log.is_file() else []) or [LOG]

    def report(loss: float, quality: float) -> None:
        rows.append(f"{trainer.step},{trainer.elapsed:.1f},{loss:.6f},{quality:.4f}")
        write_whole(log, "\n".join([*rows, ""]).encode())
        say(progress_line(trainer, loss, quality))
        store(options, trainer, len(photos))

    if done_share(schedule, trainer.step, trainer.elapsed) >= 1:
        # Nothing is left to do, so that nothing will be reported; but --out may be another folder
        # than that of the run before.
        store(options, trainer, len(photos))
    reports = Reports(options.every, report, None if options.watch else 64)
    train(trainer, photos, watched, reports, stop)
    if len(rows) > 1:
        plot(log, say)
    return not stop()


def progress_line(trainer: Trainer, loss: float, quality: float) -> str:
    """How far a run is, how well it does, and how long it still takes."""
    share = done_share(trainer.schedule, trainer.step, trainer.elapsed)
    left = trainer.elapsed * (1 - share) / max(share, 1e-9)
    speed = trainer.step / max(trainer.elapsed, 1e-9)
    return (
        f"step {trainer.step} loss {loss:.5f} psnr {quality:.3f} dB {speed:.2f} steps/s"
        f" {left / 60:.1f} min left"
    )


def read(options: TrainOptions, trainer: Trainer, warn: Say) -> tuple[list[Photo], list[Photo]]:
    """Photos to train on and to watch, in the device's memory; warns when they are the same."""
    scale, crop = trainer.scale, trainer.schedule.crop
    photo = trainer.schedule.family == "photo"
    photos = read_photos(options.hr, scale, crop + (2 * MARGIN if photo else 0))
    if options.watch:
        watched = read_watched(options.watch, scale)
    else:
        photos, watched = hold_out(photos, crop)
    if both := same(photos, watched):
        warn(
            f"{len(both)} of {len(watched)} watched images are trained on too, such as {both[0]};"
            " the PSNR of such says nothing about other images"
        )
    if photo:
        watched = [
            replace(one, lr=degrade(one.lr, WATCHED[index % len(WATCHED)], seeded(one.name)))
            for index, one in enumerate(watched)
        ]
    return [one.on(trainer.device) for one in photos], [one.on(trainer.device) for one in watched]
