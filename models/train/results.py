"""The files that a training run leaves: checkpoint, weights, card, and the plot of its log."""

import csv
import io
import json
import os
import shlex
from dataclasses import asdict
from pathlib import Path

import torch

from tierscale.models.contract.checkpoints import Checkpoint, write_checkpoint, write_whole
from tierscale.models.train.setup import Say, TrainOptions
from tierscale.models.train.trainer import Trainer, save_state


def check_out(options: TrainOptions) -> None:
    """Make the folder for the results and try it.

    ValueError: it cannot be written to, or holds another run's files.
    """
    if not (options.resume or options.overwrite) and any(
        os.path.exists(options.file(suffix)) for suffix in (".pt", ".safetensors")
    ):
        raise ValueError(
            f"{options.out} holds an earlier run of {options.name}; give --resume to go on, another"
            " --out, or --overwrite"
        )
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        trial = options.out / f".{options.name}.tried"
        write_whole(trial, b"tried")
        trial.unlink()
    except OSError as error:
        raise ValueError(
            f"cannot write to {options.out} ({error}); give a folder that can be written to with"
            " --out"
        ) from error


def store(options: TrainOptions, trainer: Trainer, images: int) -> None:
    """Write checkpoint, weights and the part of the card that training knows.

    Each file whole or not at all.
    """
    save_state(options.file(".pt"), trainer)
    checkpoint = Checkpoint(trainer.spec, trainer.ema)
    write_checkpoint(options.file(".safetensors"), checkpoint, half=True)
    device = (
        torch.cuda.get_device_name()
        if trainer.device.type == "cuda"
        else f"cpu, {options.threads} threads"
    )
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
        "command": shlex.join(options.command),
    }
    write_whole(options.file(".json"), (json.dumps(card, indent=2) + "\n").encode())


def plot(log: Path, say: Say) -> None:
    """Draw the log's loss and PSNR over the steps beside it, where matplotlib is installed."""
    try:
        import matplotlib
    except ImportError:
        say(f"no plot of {log}: install matplotlib")
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
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    pyplot.close(figure)
    write_whole(log.with_suffix(".png"), image.getvalue())
