"""Setting up a training run: what it is asked to do, and the trainer that does it."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tierscale.models import registry
from tierscale.models.contract.checkpoints import ModelSpec, read_checkpoint
from tierscale.models.train.data.photos import digest, image_sizes
from tierscale.models.train.recipes import (
    FIRST,
    STAGES,
    Stages,
    build,
    recipe,
    task,
    warm_start,
)
from tierscale.models.train.schedule import Schedule, done_share
from tierscale.models.train.tasks import Task
from tierscale.models.train.trainer import Trainer, TrainingPlan, first_line, read_state

# What reports a line of text.
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """What a run is asked to do.

    name: of recipes, such as fsrcnn-x4.
    hr: folder of photos.
    out: folder for the files of the run.
    watch: folder of images whose PSNR is shown; None: some photos are held back.
    stage: of a method's training; None: its first.
    schedule: fields of the recipe's Schedule that are changed.
    arguments: of the network's constructor that are changed.
    init: sources of weights to start from, each [PART=]FILE or [PART=]NAME.
    resume: state file of an earlier run.
    overwrite: replace what an earlier run left in `out`.
    every: seconds between reports.
    threads, device: CPU threads; "auto", "cpu" or "cuda".
    command: as given, for the card.
    """

    name: str
    hr: Path
    out: Path
    watch: Path | None
    stage: str | None
    schedule: Mapping[str, Any]
    arguments: Mapping[str, Any]
    init: tuple[str, ...]
    resume: Path | None
    overwrite: bool
    every: float
    threads: int
    device: str
    command: tuple[str, ...]

    def file(self, suffix: str) -> Path:
        """A file of the run, such as that of ".pt"."""
        return (self.out / self.name).with_suffix(suffix)


def prepare(options: TrainOptions, say: Say, stages: Stages = STAGES) -> Trainer:
    """The trainer that the options describe, resumed or warm-started when they say so.

    Photos are only counted. ValueError: the options cannot work.
    """
    spec, standard = recipe(options.name)
    spec = replace(spec, arguments={**spec.arguments, **options.arguments})
    device = pick_device(options.device)
    torch.set_num_threads(options.threads)
    schedule = replace(standard, **{"bf16": device == "cuda", **options.schedule})
    done_share(schedule, 0, 0.0)  # refuses a schedule without an end
    stage, todo = task(spec, options.stage, schedule.loss, stages)
    if todo.trained and stage not in FIRST and not (options.init or options.resume):
        raise ValueError(
            f"stage {stage!r} trains {', '.join(todo.trained)} alone; give the other parts' weights"
            " with --init"
        )
    network = build_tried(options, spec, schedule, todo)
    for init in options.init:
        take_over(network, init, say)
    origin = {
        "stage": stage,
        "photos": digest(image_sizes(options.hr)),
        "watched": digest(image_sizes(options.watch)) if options.watch else "of the photos",
    }
    plan = TrainingPlan(spec, schedule, todo, origin)
    trainer = Trainer(network, plan, torch.device(device))
    if options.resume:
        trainer.restore(read_state(options.resume, device))
    return trainer


def pick_device(device: str) -> str:
    """ "cpu" or "cuda" of "auto", "cpu" or "cuda"; ValueError where there is no GPU."""
    usable = torch.cuda.is_available()
    if device == "cuda" and not usable:
        raise ValueError(
            "--device cuda: torch finds no GPU here; leave it out, or install a torch that was"
            " built for the GPU"
        )
    return ("cuda" if usable else "cpu") if device == "auto" else device


def build_tried(
    options: TrainOptions, spec: ModelSpec, schedule: Schedule, todo: Task
) -> nn.Module:
    """The network with its first weights; ValueError where it does not work on a crop."""
    try:
        network = build(spec, schedule.seed)
        with torch.no_grad():
            todo.image(network.eval(), torch.zeros(1, 3, schedule.crop, schedule.crop), spec)
    # Of a wrong number, a network's parts say so in a dozen ways.
    except Exception as error:
        raise ValueError(
            f"{options.name} does not work with --arguments {json.dumps(options.arguments)} and"
            f" crops of {schedule.crop} ({first_line(error)}); change them"
        ) from error
    return network.train()


def take_over(network: nn.Module, init: str, say: Say) -> None:
    """Start a network from [PART=]FILE or [PART=]NAME and say what fitted.

    ValueError when nothing did.
    """
    # A path may hold an = itself.
    part, _, source = ("", "", init) if os.path.isfile(init) else init.rpartition("=")
    path = Path(source) if os.path.isfile(source) else registry.locate(source)
    try:
        tensors = read_checkpoint(path).tensors
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error}); give another --init") from error
    fresh, count = warm_start(network, tensors, part or None), len(network.state_dict())
    if len(fresh) == count:
        raise ValueError(
            f"nothing of --init {init} fits the network; give weights of the same kind, or the part"
            " that they are for"
        )
    lacking = ", ".join(fresh[:4]) + (f" and {len(fresh) - 4} more" if len(fresh) > 4 else "")
    say(
        f"from {init}: {count - len(fresh)} of {count} tensors"
        + (f"; not in it: {lacking}" if fresh else "")
    )
