"""Train a network: `tierscale train carn-x4 --hr DIR --seconds 3600`, or `python jobs/train.py …`
where only torch, numpy, safetensors and Pillow are installed; the same command on a CPU and a GPU.
"""

import argparse
import csv
import io
import json
import math
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn

if __name__ == "__main__" and not __package__:
    # Run as a file, Python puts jobs/ on the path instead of the project.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tierscale.models import registry
from tierscale.models.contract.checkpoints import (
    Checkpoint,
    read_checkpoint,
    write_checkpoint,
    write_whole,
)
from tierscale.models.train.photos import (
    Photo,
    digest,
    hold_out,
    image_sizes,
    read_photos,
    read_watched,
    same,
)
from tierscale.models.train.recipes import FIRST, build, known, recipe, task, warm_start
from tierscale.models.train.trainer import (
    LOSSES,
    Schedule,
    Trainer,
    done_share,
    first_line,
    read_state,
    save_state,
    train,
)

EXAMPLES = f"""
networks: {known()}

examples:
  tierscale train carn-x4 --hr scans/ --seconds 3600 --init carn-x4 --rate 2e-4      fine-tune the zoo's weights on an archive of your own
  tierscale train fsrcnn-x4 --hr photos/ --steps 20000 --out runs/a                  from scratch
  tierscale train fsrcnn-x4 --hr photos/ --steps 20000 --out runs/a --resume runs/a/fsrcnn-x4.pt
The result, runs/a/fsrcnn-x4.safetensors, is a tier: tierscale upscale … --tiers bicubic,file:runs/a/fsrcnn-x4.safetensors
"""
# Beyond it, torch takes no seed.
SEEDS = 2**63
LOG = "step,seconds,loss,psnr"


class Options(argparse.ArgumentParser):
    """Options whose mistakes are ValueErrors, so that they end like all others, in one sentence."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; see --help")


def number(kind: type[int] | type[float], zero: bool = False) -> Callable[[str], float]:
    """What reads a finite number above 0 (`zero`: or 0) from an option's text; ArgumentTypeError
    quoting the text.
    """

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and (value > 0 or (zero and value == 0)) and value < SEEDS):
            what = "a whole number" if kind is int else "a finite number"
            raise argparse.ArgumentTypeError(
                f"{text!r} is not {what} {'of 0 or more' if zero else 'above 0'}"
            )
        return value

    return read


def mapping(text: str) -> dict[str, Any]:
    """The JSON object in an option's text; ArgumentTypeError quoting the text."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f'{text!r} is no JSON object such as {{"features": 32}}')
    return found


def arguments() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = Options(
        prog="tierscale train",
        description=(
            "Train a network on a folder of photos, from scratch or from weights that there are."
        ),
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    whole, positive, standard = number(int), number(float), Schedule()
    own = "default: the network's own"
    parser.add_argument(
        "name",
        help="what to train, such as fsrcnn-x4, carn-x2 or pcsr-carn-x4; all are listed below",
    )
    parser.add_argument(
        "--hr", type=Path, required=True, metavar="DIR", help="folder of photos, 8 bit"
    )
    parser.add_argument(
        "--watch",
        type=Path,
        metavar="DIR",
        help=(
            "images whose PSNR is shown, each as a whole (default: every 23rd photo, or the lower"
            " part of a single one, is held back, and the central 64 input pixels of each are"
            " shown)"
        ),
    )
    parser.add_argument(
        "--stage",
        help=(
            "of an adaptive method's training, such as heaviest, lighter, choice (default: the"
            " method's first)"
        ),
    )
    parser.add_argument("--steps", type=whole, help="end after so many steps (default: none)")
    parser.add_argument(
        "--seconds",
        type=positive,
        help="end after so many seconds (default: none); this or --steps must be given",
    )
    parser.add_argument("--batch", type=whole, help=f"crops in a step (default: {standard.batch})")
    parser.add_argument(
        "--crop", type=whole, help=f"input pixels a side of a crop (default: {standard.crop})"
    )
    parser.add_argument(
        "--rate",
        type=positive,
        help=f"peak learning rate ({own}, 5e-4 to 2e-3; with --init a third to a fifth is better)",
    )
    parser.add_argument(
        "--loss", choices=sorted(LOSSES), help=f"of plain networks (default: {standard.loss})"
    )
    parser.add_argument(
        "--arguments",
        type=mapping,
        default={},
        metavar="JSON",
        help=f"of the network, such as '{{\"features\": 32}}' ({own})",
    )
    parser.add_argument(
        "--seed",
        type=number(int, zero=True),
        default=0,
        help="of the first weights and the crops (default: 0)",
    )
    parser.add_argument(
        "--bf16",
        action=argparse.BooleanOptionalAction,
        help=(
            "compute in bfloat16: much faster where the processor has it (default: on a GPU, not on"
            " a CPU)"
        ),
    )
    parser.add_argument(
        "--threads",
        type=whole,
        default=os.cpu_count() or 1,
        help="CPU threads (default: %(default)s, all there are)",
    )
    parser.add_argument(
        "--device",
        default="auto",
        choices=("auto", "cpu", "cuda"),
        help="default: auto, a GPU where there is one",
    )
    parser.add_argument(
        "--init",
        action="append",
        default=[],
        metavar="[PART=]FILE",
        help=(
            "start from what fits of a zoo name or a file; may be repeated (default: from scratch)"
        ),
    )
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="CKPT",
        help="go on from the .pt file of an earlier run, exactly (default: a new run)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(".work/train"),
        metavar="DIR",
        help="where all files of the run go (default: %(default)s)",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace what an earlier run left in --out (default: refused)",
    )
    parser.add_argument(
        "--every",
        type=positive,
        default=60,
        metavar="SECONDS",
        help="between progress lines and checkpoints (default: %(default)s)",
    )
    return parser


def schedule_from(options: argparse.Namespace, standard: Schedule, device: str) -> Schedule:
    """The recipe's schedule with what the options change; ValueError without an end."""
    names = ("steps", "seconds", "batch", "crop", "rate", "loss", "seed", "bf16")
    changed = {
        "bf16": device == "cuda",
        **{name: getattr(options, name) for name in names if getattr(options, name) is not None},
    }
    schedule = replace(standard, **changed)
    done_share(schedule, 0, 0.0)
    return schedule


def take_over(network: nn.Module, init: str) -> None:
    """Start a network from [PART=]FILE or [PART=]NAME and say what fitted; ValueError when nothing
    did.
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
    print(
        f"from {init}: {count - len(fresh)} of {count} tensors"
        + (f"; not in it: {lacking}" if fresh else ""),
        flush=True,
    )


def prepare(options: argparse.Namespace) -> Trainer:
    """The trainer that the options describe, resumed or warm-started when they say so; photos are
    only counted.
    """
    spec, standard = recipe(options.name)
    spec = replace(spec, arguments={**spec.arguments, **options.arguments})
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "--device cuda: torch finds no GPU here; leave it out, or install a torch that was"
            " built for the GPU"
        )
    kind = (
        ("cuda" if torch.cuda.is_available() else "cpu")
        if options.device == "auto"
        else options.device
    )
    torch.set_num_threads(options.threads)
    schedule = schedule_from(options, standard, kind)
    stage, todo = task(spec, options.stage, schedule.loss)
    if todo.trained and stage not in FIRST and not (options.init or options.resume):
        raise ValueError(
            f"stage {stage!r} trains {', '.join(todo.trained)} alone; give the other parts' weights"
            " with --init"
        )
    try:
        network = build(spec, options.seed)
        with torch.no_grad():
            todo.image(network.eval(), torch.zeros(1, 3, schedule.crop, schedule.crop), spec)
    # Of a wrong number, a network's parts say so in a dozen ways.
    except Exception as error:
        given = json.dumps(options.arguments)
        raise ValueError(
            f"{options.name} does not work with --arguments {given} and crops of {schedule.crop}"
            f" ({first_line(error)}); change them"
        ) from error
    network.train()
    for init in options.init:
        take_over(network, init)
    origin = {
        "stage": stage,
        "photos": digest(image_sizes(options.hr)),
        "watched": digest(image_sizes(options.watch)) if options.watch else "of the photos",
    }
    trainer = Trainer(network, spec, schedule, torch.device(kind), todo, origin)
    if options.resume:
        trainer.restore(read_state(options.resume, kind))
    return trainer


def check_out(options: argparse.Namespace) -> None:
    """Make the folder for the results and try it; ValueError when it cannot be written to or holds
    another run's.
    """
    target = options.out / options.name
    if not (options.resume or options.overwrite) and any(
        os.path.exists(f"{target}{suffix}") for suffix in (".pt", ".safetensors")
    ):
        raise ValueError(
            f"{options.out} holds an earlier run of {options.name}; give --resume to go on, another"
            " --out, or --overwrite"
        )
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        tried = options.out / f".{options.name}.tried"
        write_whole(tried, b"tried")
        tried.unlink()
    except OSError as error:
        raise ValueError(
            f"cannot write to {options.out} ({error}); give a folder that can be written to with"
            " --out"
        ) from error


def read(options: argparse.Namespace, trainer: Trainer) -> tuple[list[Photo], list[Photo]]:
    """Photos to train on and to watch, in the device's memory; warns when they are the same."""
    scale, crop = trainer.scale, trainer.schedule.crop
    photos = read_photos(options.hr, scale, crop)
    if options.watch:
        watched = read_watched(options.watch, scale)
    else:
        photos, watched = hold_out(photos, crop)
    both = same(photos, watched)
    if both:
        told = f"{len(both)} of {len(watched)} watched images are trained on too, such as {both[0]}"
        print(
            f"train: {told}; the PSNR of such says nothing about other images",
            file=sys.stderr,
            flush=True,
        )
    return [one.on(trainer.device) for one in photos], [one.on(trainer.device) for one in watched]


def store(options: argparse.Namespace, trainer: Trainer, images: int) -> None:
    """Write checkpoint, weights and the part of the card that training knows; each file whole or
    not at all.
    """
    target = options.out / options.name
    save_state(target.with_suffix(".pt"), trainer)
    write_checkpoint(
        target.with_suffix(".safetensors"), Checkpoint(trainer.spec, trainer.ema), half=True
    )
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
        "command": shlex.join(["tierscale", "train", *options.line]),
    }
    write_whole(target.with_suffix(".json"), (json.dumps(card, indent=2) + "\n").encode())


def plot(log: Path) -> None:
    """Draw the log's loss and PSNR over the steps beside it, where matplotlib is installed."""
    try:
        import matplotlib
    except ImportError:
        print(f"no plot of {log}: install matplotlib", flush=True)
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
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=120)
    pyplot.close(figure)
    write_whole(log.with_suffix(".png"), drawn.getvalue())


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
    """Train to the end of the schedule, with a progress line and a row of the log at each report;
    exit code.
    """
    trainer, stopping = prepare(options), Stopping()
    check_out(options)
    schedule = trainer.schedule
    photos, watched = read(options, trainer)
    print(
        f"{options.name}: {len(photos)} photos, {len(watched)} watched, {trainer.device},"
        f" {schedule}",
        flush=True,
    )
    log = options.out / f"{options.name}.csv"
    rows = (log.read_text().splitlines() if options.resume and log.is_file() else []) or [LOG]

    def report(loss: float, quality: float) -> None:
        share = done_share(schedule, trainer.step, trainer.elapsed)
        left = trainer.elapsed * (1 - share) / max(share, 1e-9)
        rows.append(f"{trainer.step},{trainer.elapsed:.1f},{loss:.6f},{quality:.4f}")
        write_whole(log, "\n".join([*rows, ""]).encode())
        speed = trainer.step / max(trainer.elapsed, 1e-9)
        print(
            f"step {trainer.step} loss {loss:.5f} psnr {quality:.3f} dB {speed:.2f} steps/s"
            f" {left / 60:.1f} min left",
            flush=True,
        )
        store(options, trainer, len(photos))

    if done_share(schedule, trainer.step, trainer.elapsed) >= 1:
        # Nothing is left to do, so that nothing will be reported; but --out may be another folder
        # than that of the run before.
        store(options, trainer, len(photos))
    train(trainer, photos, watched, options.every, report, stopping, None if options.watch else 64)
    if len(rows) > 1:
        plot(log)
    if stopping():
        print(
            f"stopped at step {trainer.step}; go on with --resume {options.out / options.name}.pt",
            file=sys.stderr,
        )
        return 128 + stopping.number
    print(
        f"{options.out / options.name}.safetensors is ready: use it as a tier"
        f" file:{options.out / options.name}.safetensors",
        flush=True,
    )
    return 0


def main(line: Sequence[str] | None = None) -> int:
    """Exit code 0 when trained, 1 when that diverged or saving failed, 2 when the arguments cannot
    work, 130, 143 after SIGINT, SIGTERM.
    """
    given = list(sys.argv[1:] if line is None else line)
    try:
        options = arguments().parse_args(given)
        options.line = given
        return run(options)
    except ValueError as error:
        print(f"train: {error}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"train: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        kept = f"{options.out / options.name}.pt"
        last = (
            f"; the last checkpoint is whole, go on with --resume {kept}"
            if os.path.isfile(kept)
            else ""
        )
        print(f"train: cannot write to {options.out} ({error}){last}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
