"""Train a plain network: `python jobs/train.py carn-x4 --hr DIR --seconds 3600`; the same command on CPU and CUDA."""

import argparse
import csv
import json
import os
import shlex
import sys
from dataclasses import asdict, replace
from pathlib import Path

import torch

if __name__ == "__main__" and not __package__:
    # Run as a file, Python puts jobs/ on the path instead of the project.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from models.train.photos import Photo, hold_out, read_photos
from models.train.plain import Schedule, Trainer, done_share, save_state, train
from models.train.recipes import build, recipe, warm_start
from models.weights import Checkpoint, read_checkpoint, write_checkpoint


def arguments() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(prog="train", description="Train a plain network on a folder of photos.", allow_abbrev=False)
    parser.add_argument("name", help="what to train, such as fsrcnn-x4 or carn-x2")
    parser.add_argument("--hr", type=Path, required=True, metavar="DIR", help="folder of photos")
    parser.add_argument("--steps", type=int, help="end after so many steps")
    parser.add_argument("--seconds", type=float, help="end after so many seconds")
    parser.add_argument("--batch", type=int, help="crops in a step")
    parser.add_argument("--crop", type=int, help="input pixels a side of a crop")
    parser.add_argument("--rate", type=float, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0, help="of the first weights and the crops")
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16: about twice as fast where the processor has it")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--init", type=Path, metavar="FILE", help="start from the weights that fit in this checkpoint")
    parser.add_argument("--resume", type=Path, metavar="CKPT", help="go on from the .pt file of an earlier run, exactly")
    parser.add_argument("--out", type=Path, default=Path(".work/train"), metavar="DIR", help="where checkpoint, log and weights go")
    parser.add_argument("--every", type=float, default=60, metavar="SECONDS", help="between progress lines and checkpoints")
    return parser


def schedule_from(options: argparse.Namespace, standard: Schedule) -> Schedule:
    """The recipe's schedule with what the options change; ValueError without an end."""
    names = ("steps", "seconds", "batch", "crop", "rate", "seed", "bf16")
    schedule = replace(standard, **{name: getattr(options, name) for name in names if getattr(options, name) is not None})
    done_share(schedule, 0, 0.0)
    return schedule


def prepare(options: argparse.Namespace) -> Trainer:
    """The trainer that the options describe, resumed or warm-started when they say so."""
    blueprint, standard = recipe(options.name)
    torch.set_num_threads(options.threads)
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if options.device == "auto" else options.device
    network = build(blueprint, options.seed)
    if options.init:
        fresh = warm_start(network, read_checkpoint(options.init).tensors)
        print(f"from {options.init}; fresh: {', '.join(fresh) or 'nothing'}", flush=True)
    trainer = Trainer(network, blueprint, schedule_from(options, standard), torch.device(kind))
    if options.resume:
        trainer.restore(torch.load(options.resume, map_location=kind, weights_only=True))
    return trainer


def store(options: argparse.Namespace, trainer: Trainer, photos: list[Photo]) -> None:
    """Write checkpoint, weights and the part of the card that training knows."""
    target = options.out / options.name
    save_state(target.with_suffix(".pt"), trainer)
    write_checkpoint(target.with_suffix(".safetensors"), Checkpoint(trainer.blueprint, trainer.ema), half=True)
    device = torch.cuda.get_device_name() if trainer.device.type == "cuda" else f"cpu, {options.threads} threads"
    card = {
        "name": options.name,
        "data": options.hr.name,
        "images": len(photos),
        "steps": trainer.step,
        "seconds": round(trainer.elapsed),
        "device": device,
        "seed": trainer.schedule.seed,
        "init": options.init.name if options.init else None,
        "schedule": asdict(trainer.schedule),
        "command": shlex.join(["python", "jobs/train.py", *sys.argv[1:]]),
    }
    target.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")


def run(options: argparse.Namespace) -> None:
    """Train to the end of the schedule, with a progress line and a row of the log at each report."""
    trainer = prepare(options)
    schedule = trainer.schedule
    photos, watched = hold_out(read_photos(options.hr, trainer.blueprint.scale, schedule.crop))
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
            store(options, trainer, photos)

        train(trainer, photos, watched, options.every, report)


def main() -> int:
    """Exit code 0 when trained, 2 when the arguments cannot work."""
    options = arguments().parse_args()
    try:
        run(options)
    except ValueError as error:
        print(f"train: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
