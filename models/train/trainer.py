"""Training: Adam, warm-up, cosine decay, a running mean of the weights, and an exact resume."""

import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tierscale.models.contract.checkpoints import ModelSpec, write_whole
from tierscale.models.contract.metrics import psnr
from tierscale.models.contract.modules import channels_last
from tierscale.models.runtime.linear_tail import Enlarging
from tierscale.models.train.data.crops import draw
from tierscale.models.train.data.mixture import MARGIN, damaged
from tierscale.models.train.data.photos import Photo
from tierscale.models.train.schedule import Schedule, done_share, rate_at
from tierscale.models.train.tasks import LARGEST, Task

# What weights are stored in.
STORED = torch.finfo(torch.float16)
# An enlarging part that can be composed is, but for one step of so many, which keeps it right at
# the edges.
WHOLE = 4


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """What is trained and how: all that a resumed run must share with the first, and the task.

    origin: what else must be the same, such as the stage and a digest of the photos.
    """

    spec: ModelSpec
    schedule: Schedule
    task: Task = field(default_factory=Task)
    origin: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reports:
    """When and to whom a run reports.

    every: seconds between reports. tell: called with the mean loss since the last report and the
    PSNR in dB. largest: of watched photos, see Trainer.watch.
    """

    every: float
    tell: Callable[[float, float], None]
    largest: int | None = 64


# What state() holds.
STATE = frozenset(
    {"network", "ema", "optimiser", "step", "elapsed", "blueprint", "schedule", "origin"}
)


class Trainer:
    """A network under a plan: weights, running mean, optimiser, step and seconds so far."""

    def __init__(self, network: nn.Module, plan: TrainingPlan, device: torch.device) -> None:
        # Measured on an EPYC with AVX512-bf16, two threads, CARN, microseconds for each input
        # pixel: plain 54, channels last 33, bf16 25, both 15; torch.compile makes both slower.
        self.network = channels_last(network.to(device))
        self.spec, self.schedule, self.task = plan.spec, plan.schedule, plan.task
        self.device, self.origin = device, dict(plan.origin)
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(not self.task.trained or name.startswith(self.task.trained))
        self.moving = [
            parameter for parameter in self.network.parameters() if parameter.requires_grad
        ]
        self.optimiser = torch.optim.Adam(
            self.moving, self.schedule.rate, betas=(0.9, 0.99), fused=device.type == "cuda"
        )
        self.ema = {
            name: value.detach().clone() for name, value in self.network.state_dict().items()
        }
        self.step, self.elapsed = 0, 0.0

    def advance(self, photos: Sequence[Photo], started: float) -> Tensor:
        """One step; the loss, still on the device.

        started: clock at which `elapsed` was last brought up to date.
        """
        schedule = self.schedule
        share = done_share(schedule, self.step, self.elapsed + time.monotonic() - started)
        for group in self.optimiser.param_groups:
            group["lr"] = rate_at(schedule, self.step, share)
        damaging = (damaged, MARGIN) if schedule.family == "photo" else None
        lr, hr = draw(photos, schedule.crop, schedule.batch, (schedule.seed, self.step), damaging)
        lr = lr.to(self.device, memory_format=torch.channels_last)
        self.optimiser.zero_grad(set_to_none=True)
        for part in self.network.modules():
            if isinstance(part, Enlarging):
                part.quick = self.step % WHOLE != 0
        with torch.autocast(self.device.type, torch.bfloat16, enabled=schedule.bf16):
            loss = self.task.loss(self.network, lr, hr.to(self.device), self.spec)
        loss.backward()
        nn.utils.clip_grad_norm_(self.moving, schedule.clip)
        self.optimiser.step()
        self.step += 1
        decay = min(schedule.ema, self.step / (self.step + 10))
        for name, value in self.network.state_dict().items():
            (
                self.ema[name].lerp_(value, 1 - decay)
                if value.is_floating_point()
                else self.ema[name].copy_(value)
            )
        return loss.detach()

    @property
    def scale(self) -> int:
        """Of the crops: the network's; the largest that is trained where it takes any."""
        return self.spec.scale or LARGEST

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return {
            "network": self.network.state_dict(),
            "ema": self.ema,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "elapsed": self.elapsed,
            "blueprint": asdict(self.spec),
            "schedule": asdict(self.schedule),
            "origin": self.origin,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from state().

        ValueError: it belongs to another network, schedule, stage or other photos.
        """
        # What a run of an earlier version does not say was as it is by default.
        state = {**state, "schedule": {**asdict(Schedule()), **state["schedule"]}}
        for name, mine in (
            ("blueprint", asdict(self.spec)),
            ("schedule", asdict(self.schedule)),
            ("origin", self.origin),
        ):
            for key, value in mine.items():
                was = state[name].get(key)
                if was != value:
                    raise ValueError(
                        f"the run to resume has {key} {was!r}, not {value!r}; give the options and"
                        " photos it was started with"
                    )
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.ema = {name: value.to(self.device) for name, value in state["ema"].items()}
        self.step, self.elapsed = state["step"], state["elapsed"]

    def check(self, loss: float) -> None:
        """FloatingPointError when training diverged.

        That is, a loss or the running mean's weights are not finite, or beyond what these are
        stored in.
        """
        storable = all(
            bool((value.abs() <= STORED.max).all())
            for value in self.ema.values()
            if value.is_floating_point()
        )
        if not (math.isfinite(loss) and storable):
            raise FloatingPointError(
                f"training diverged by step {self.step} (loss {loss:.4g}), and nothing is stored of"
                " what came after the last report; try again with a --rate well below"
                f" {self.schedule.rate:g}"
            )

    def watch(self, photos: Sequence[Photo], largest: int | None = 64) -> float:
        """Mean PSNR in dB of the running mean's weights on some photos.

        largest: input pixels a side of the central part that is enlarged; None: all.
        """
        trained = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.network.load_state_dict(self.ema)
        self.network.eval()
        scale, total = self.scale, 0.0
        with torch.inference_mode():
            for photo in photos:
                side = largest or max(photo.lr.shape[-2:])
                y, x = (max(0, (size - side) // 2) for size in photo.lr.shape[-2:])
                lr = photo.lr[None, :, y : y + side, x : x + side].to(self.device)
                hr = (
                    photo.hr[:, y * scale : (y + side) * scale, x * scale : (x + side) * scale].to(
                        self.device
                    )
                    / 255
                )
                total += psnr(self.task.image(self.network, lr, self.spec)[0], hr, scale)
        self.network.load_state_dict(trained)
        self.network.train()
        return total / len(photos)


def train(
    trainer: Trainer,
    photos: Sequence[Photo],
    watched: Sequence[Photo],
    reports: Reports,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Run the schedule to its end, or until stop().

    Reports come about each `reports.every` seconds and at the end, unless training diverged:
    FloatingPointError.
    """
    started = last = time.monotonic()
    losses: list[Tensor] = []
    while done_share(trainer.schedule, trainer.step, trainer.elapsed) < 1:
        losses.append(trainer.advance(photos, started))
        now = time.monotonic()
        trainer.elapsed, started = trainer.elapsed + now - started, now
        over = stop() or done_share(trainer.schedule, trainer.step, trainer.elapsed) >= 1
        if over or now - last >= reports.every:
            loss = torch.stack(losses).mean().item()
            trainer.check(loss)
            reports.tell(loss, trainer.watch(watched, reports.largest))
            losses, last = [], time.monotonic()
        if over:
            return


def save_state(path: Path, trainer: Trainer) -> None:
    """Write state() whole or not at all."""
    buffer = io.BytesIO()
    torch.save(trainer.state(), buffer)
    write_whole(path, buffer.getvalue())


def first_line(error: Exception) -> str:
    """What an error of torch says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def read_state(path: Path, device: str) -> dict[str, Any]:
    """What save_state() wrote; ValueError when the file is none of it."""
    if not path.is_file():
        raise ValueError(
            f"there is no file {path} to resume from; give the .pt file of an earlier run"
        )
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    # Of a file that is none of its own, torch's reader says so in a dozen ways.
    except Exception as error:
        raise ValueError(
            f"{path} is not a checkpoint of a training run ({first_line(error)}); give the .pt file"
            " of an earlier run"
        ) from error
    lacking = sorted(STATE - state.keys()) if isinstance(state, dict) else sorted(STATE)
    if lacking:
        raise ValueError(
            f"{path} is not a checkpoint of a training run as this version writes it: it lacks"
            f" {', '.join(lacking)}; begin anew"
        )
    return state
