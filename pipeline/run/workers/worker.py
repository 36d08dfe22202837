"""A worker: networks on one device and opened images, kept from task to task."""

import contextlib
import itertools
import json
import os
import platform
import socket
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import numpy as np
import torch

from tierscale.models import registry
from tierscale.models.contract.upscaler import Upscaler
from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.formats.registry import open_image
from tierscale.pipeline.formats.source import Source
from tierscale.pipeline.inference.enlarge import Device, Engine
from tierscale.pipeline.inference.normalise import Read
from tierscale.pipeline.output import store
from tierscale.pipeline.plan.plan import Draft, Settings
from tierscale.pipeline.plan.source import PixelSource
from tierscale.pipeline.plan.tiers import Weights
from tierscale.pipeline.run.workers import allocator

# Opened images, and networks, that a worker keeps at hand.
OPEN_SOURCES, KEPT_NETWORKS = 2, 16
# Torch threads of a worker: bytes depend on them (sums of floats), so they are the same everywhere.
THREADS = 1

# Of the workers of this process.
_numbers = itertools.count(1)


class Turn:
    """The right of one task to compute on a worker. end: lets the next one begin."""

    def __init__(self, end: Callable[[], None]) -> None:
        self._end: Callable[[], None] | None = end

    def end(self) -> None:
        """Give the right back, unless it was given back before."""
        end, self._end = self._end, None
        if end is not None:
            end()


def use_whole_process() -> None:
    """Set up a process that does nothing but this work: its allocator, and few threads of zarr."""
    allocator.settle()
    store.quiet_threads()


class Worker:
    """Networks on one device, and the images they are at work on.

    Nothing that is remembered between tasks changes a pixel, so a restarted worker gives the same
    ones. One task computes at a time; while it waits for the disk at its end, the next may begin.
    device: "cpu" or "cuda". name: of this worker alone, in receipts and messages. processor: what
    it computes on; workers on the same give the same bytes.
    """

    def __init__(self, device: str) -> None:
        torch.set_num_threads(THREADS)
        self.name = f"{socket.gethostname()}-{os.getpid()}-{next(_numbers)}"
        self.device = Device(device)
        self.processor = _processor(device)
        self._upscalers: OrderedDict[tuple[str, str], Upscaler] = OrderedDict()
        self._sources: OrderedDict[tuple[PixelSource, str], Source] = OrderedDict()
        self._turn = Turn(lambda: None)

    def begin(self, turn: Turn) -> None:
        """Let the task of a turn compute, in the thread that calls this."""
        torch.set_num_threads(THREADS)
        self._turn = turn

    def rest(self) -> None:
        """Called by a task that computes no more and only waits for the disk."""
        self._turn.end()

    def check_device(self) -> None:
        """Refused: torch here cannot use the device that the worker was given."""
        if self.device.name == "cuda" and not torch.cuda.is_available():
            raise Refused(
                f"a worker has a GPU that its torch {torch.__version__} cannot use; install a CUDA"
                " build, or use --device cpu"
            )

    def engine(self, draft: Draft, settings: Settings, tiers: Iterable[int]) -> Engine:
        """Some tiers of a plan, loaded. Refused: the device or the weights here are others."""
        if draft.device != self.device.name:
            raise Refused(
                f"the plan is for {draft.device} and this worker runs on {self.device.name}; use"
                f" --device {draft.device}"
            )
        upscalers = {index: self.network(draft.tiers[index].network) for index in set(tiers)}
        return Engine(draft, upscalers, settings, self.device)

    def network(self, network: Weights) -> Upscaler:
        """A network with the very weights. Refused: they are not here."""
        # By their digest too: a file may be replaced while workers live on.
        key = (network.name, network.weights)
        if key not in self._upscalers:
            try:
                loaded = registry.load_weights(network.name, self.device.name, network.weights)
            except ValueError as error:
                raise Refused(str(error)) from error
            self._upscalers[key] = loaded.upscaler
            while len(self._upscalers) > KEPT_NETWORKS:
                self._upscalers.popitem(last=False)
        self._upscalers.move_to_end(key)
        return self._upscalers[key]

    def reader(self, draft: Draft, pixels: PixelSource) -> Read:
        """What reads a window of the image, counted from its region."""
        source = self._source(draft, pixels)
        left, top = pixels.region[:2] if pixels.region else (0, 0)

        def read(y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
            return source.read(top + y0, top + y1, left + x0, left + x1)

        return read

    def _source(self, draft: Draft, pixels: PixelSource) -> Source:
        key = (pixels, json.dumps(draft.source.identity, sort_keys=True))
        if key not in self._sources:
            self._sources[key] = open_pixels(pixels)
            while len(self._sources) > OPEN_SOURCES:
                self._sources.popitem(last=False)[1].close()
        self._sources.move_to_end(key)
        return self._sources[key]


@cache
def _processor(device: str) -> str:
    """What rounding depends on: the processor's name, its vector instructions, and torch."""
    if device == "cuda" and torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    name = platform.machine()
    with contextlib.suppress(OSError):  # there is none but on Linux
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(": ")[-1] for line in lines if line.startswith("model name")), name)
    return f"{name} {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"


def open_pixels(pixels: PixelSource) -> Source:
    """The image to read pixels from. Damaged: it is a copy that is not there any more."""
    if not pixels.copied:
        return open_image(pixels.uri, pixels.selection)
    try:
        return open_image(pixels.uri)  # a copy holds the selected image alone
    except (Refused, Damaged) as error:
        raise Damaged(
            f"{pixels.uri}: this copy of the source was removed by another run, or this machine"
            " does not see it; run the same command again, with an output that all machines see"
        ) from error
