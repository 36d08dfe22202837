"""Train a network: `tierscale train carn-x4 --hr DIR --seconds 3600`, or `python jobs/train.py …` where only torch, numpy, safetensors
and Pillow are installed; the same command on a CPU and a GPU.
"""

import argparse
import csv
import json
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

if __name__ == "__main__" and not __package__:
    # Run as a file, Python puts jobs/ on the path instead of the project.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import models
from models.train.photos import Photo, hold_out, image_files, photo, read_image, read_photos
from models.train.plain import LOSSES, Schedule, Trainer, done_share, read_state, save_state, train
from models.train.recipes import build, recipe, task, warm_start
from models.weights import Checkpoint, read_checkpoint, write_checkpoint

EXAMPLES = """
examples:
  tierscale train carn-x4 --hr scans/ --seconds 3600 --init carn-x4      fine-tune the zoo's weights on an archive of your own
  tierscale train fsrcnn-x4 --hr photos/ --steps 20000 --out runs/a      from scratch
  tierscale train fsrcnn-x4 --hr photos/ --steps 20000 --out runs/a --resume runs/a/fsrcnn-x4.pt
The result, runs/a/fsrcnn-x4.safetensors, is a tier: tierscale upscale … --tiers bicubic,file:runs/a/fsrcnn-x4.safetensors
"""


def arguments() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        prog="tierscale train",
        description="Train a network on a folder of photos, from scratch or from weights that there are.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("name", help="what to train, such as fsrcnn-x4, carn-x2 or pcsr-carn-x4")
    parser.add_argument("--hr", type=Path, required=True, metavar="DIR", help="folder of photos, 8 bit")
    parser.add_argument("--watch", type=Path, metavar="DIR", help="images whose PSNR is shown; otherwise every 23rd photo is held back")
    parser.add_argument("--stage", help="of an adaptive method's training, such as heaviest, lighter, choice; each starts from --init")
    parser.add_argument("--steps", type=int, help="end after so many steps")
    parser.add_argument("--seconds", type=float, help="end after so many seconds")
    parser.add_argument("--batch", type=int, help="crops in a step")
    parser.add_argument("--crop", type=int, help="input pixels a side of a crop")
    parser.add_argument("--rate", type=float, help="peak learning rate")
    parser.add_argument("--loss", choices=sorted(LOSSES), help="of plain networks")
    parser.add_argument("--arguments", type=json.loads, default={}, metavar="JSON", help="of the network, such as '{\"features\": 32}'")
    parser.add_argument("--seed", type=int, default=0, help="of the first weights and the crops")
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16: much faster where the processor has it")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument(
        "--init", action="append", default=[], metavar="[PART=]FILE", help="start from what fits of a zoo name or a file; may be repeated"
    )
    parser.add_argument("--resume", type=Path, metavar="CKPT", help="go on from the .pt file of an earlier run, exactly")
    parser.add_argument("--out", type=Path, default=Path(".work/train"), metavar="DIR", help="where checkpoint, log, plot and weights go")
    parser.add_argument("--every", type=float, default=60, metavar="SECONDS", help="between progress lines and checkpoints")
    return parser


def schedule_from(options: argparse.Namespace, standard: Schedule) -> Schedule:
    """The recipe's schedule with what the options change; ValueError without an end."""
    names = ("steps", "seconds", "batch", "crop", "rate", "loss", "seed", "bf16")
    schedule = replace(standard, **{name: getattr(options, name) for name in names if getattr(options, name) is not None})
    done_share(schedule, 0, 0.0)
    return schedule


def prepare(options: argparse.Namespace) -> Trainer:
    """The trainer that the options describe, resumed or warm-started when they say so."""
    blueprint, standard = recipe(options.name)
    blueprint = replace(blueprint, arguments={**blueprint.arguments, **options.arguments})
    torch.set_num_threads(options.threads)
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if options.device == "auto" else options.device
    schedule = schedule_from(options, standard)
    network = build(blueprint, options.seed)
    for init in options.init:
        part, _, source = init.rpartition("=")
        path = Path(source) if Path(source).is_file() else models.locate(source)
        fresh = warm_start(network, read_checkpoint(path).tensors, part or None)
        print(f"from {init}; not in it: {', '.join(fresh) or 'nothing'}", flush=True)
    trainer = Trainer(network, blueprint, schedule, torch.device(kind), task(blueprint, options.stage, schedule.loss))
    if options.resume:
        trainer.restore(read_state(options.resume, kind))
    return trainer


def read(options: argparse.Namespace, trainer: Trainer) -> tuple[list[Photo], list[Photo]]:
    """Photos to train on and to watch, in the device's memory."""
    scale = trainer.scale
    photos = read_photos(options.hr, scale, trainer.schedule.crop)
    if options.watch:
        watched = [photo(path.name, read_image(path), scale) for path in image_files(options.watch)]
    else:
        photos, watched = hold_out(photos)
    return [one.on(trainer.device) for one in photos], [one.on(trainer.device) for one in watched]


def store(options: argparse.Namespace, trainer: Trainer, images: int) -> None:
    """Write checkpoint, weights and the part of the card that training knows; each file whole or not at all."""
    target = options.out / options.name
    save_state(target.with_suffix(".pt"), trainer)
    write_checkpoint(target.with_suffix(".safetensors"), Checkpoint(trainer.blueprint, trainer.ema), half=True)
    device = torch.cuda.get_device_name() if trainer.device.type == "cuda" else f"cpu, {options.threads} threads"
    card = {
        "name": options.name,
        "data": options.hr.name,
        "images": images,
        "steps": trainer.step,
        "seconds": round(trainer.elapsed),
        "device": device,
        "seed": trainer.schedule.seed,
        "stage": options.stage,
        "init": [Path(init).name for init in options.init] or None,
        "schedule": asdict(trainer.schedule),
        "command": shlex.join(["tierscale", "train", *options.line]),
    }
    target.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")


def plot(log: Path) -> None:
    """Draw the log's loss and PSNR over the steps beside it, where matplotlib is installed."""
    try:
        import matplotlib
    except ImportError:
        print(f"no plot of {log}: install tierscale[train]", flush=True)
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    with log.open(newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    figure, left = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    right = left.twinx()
    steps = [row["step"] for row in rows]
    left.plot(steps, [row["loss"] for row in rows], color="tab:grey", linewidth=1)
    right.plot(steps, [row["psnr"] for row in rows], color="tab:blue", linewidth=2)
    left.set(xlabel="step", ylabel="loss (grey)", title=log.stem)
    right.set_ylabel("PSNR of what is watched, dB (blue)")
    figure.savefig(log.with_suffix(".png"), dpi=120)
    pyplot.close(figure)


class Stopping:
    """Remembers a SIGINT or SIGTERM; the step that is being done is finished first."""

    def __init__(self) -> None:
        self.number = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: Any) -> None:
        self.number = number

    def __call__(self) -> bool:
        return self.number != 0


def run(options: argparse.Namespace) -> int:
    """Train to the end of the schedule, with a progress line and a row of the log at each report; exit code."""
    trainer, stopping = prepare(options), Stopping()
    schedule = trainer.schedule
    photos, watched = read(options, trainer)
    options.out.mkdir(parents=True, exist_ok=True)
    print(f"{options.name}: {len(photos)} photos, {len(watched)} watched, {trainer.device}, {schedule}", flush=True)
    log = options.out / f"{options.name}.csv"
    with log.open("a" if options.resume else "w", newline="") as file:
        rows = csv.writer(file)
        if not options.resume:
            rows.writerow(["step", "seconds", "loss", "psnr"])

        def report(loss: float, quality: float) -> None:
            share = done_share(schedule, trainer.step, trainer.elapsed)
            left = trainer.elapsed * (1 - share) / max(share, 1e-9)
            rows.writerow([trainer.step, f"{trainer.elapsed:.1f}", f"{loss:.6f}", f"{quality:.4f}"])
            file.flush()
            speed = trainer.step / max(trainer.elapsed, 1e-9)
            print(f"step {trainer.step} loss {loss:.5f} psnr {quality:.3f} dB {speed:.2f} steps/s {left / 60:.1f} min left", flush=True)
            store(options, trainer, len(photos))

        train(trainer, photos, watched, options.every, report, stopping)
    plot(log)
    if stopping():
        print(f"stopped at step {trainer.step}; go on with --resume {options.out / options.name}.pt", file=sys.stderr)
        return 128 + stopping.number
    print(f"{options.out / options.name}.safetensors is ready: use it as a tier file:{options.out / options.name}.safetensors", flush=True)
    return 0


def main(line: Sequence[str] | None = None) -> int:
    """Exit code 0 when trained, 1 when saving failed, 2 when the arguments cannot work, 130 and 143 after SIGINT and SIGTERM."""
    options = arguments().parse_args(line)
    options.line = list(sys.argv[1:] if line is None else line)
    try:
        return run(options)
    except ValueError as error:
        print(f"train: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"train: cannot write to {options.out} ({error}); the last checkpoint there is whole, go on with --resume", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
