"""What the images of a manifest share: the workers, a budget, and a deadline."""

import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from tierscale.jobs.cli.progress import Bar
from tierscale.pipeline.dataset.shared_budget import Looked, look, share_out
from tierscale.pipeline.errors import Damaged, Interrupted, Refused
from tierscale.pipeline.formats.registry import Selection, open_image
from tierscale.pipeline.routing.routes import TimeLimit
from tierscale.pipeline.run.bounded import threaded_map
from tierscale.pipeline.run.pool import Pool
from tierscale.pipeline.run.run import Request, Run

Todo = Sequence[tuple[int, Request]]
# Told of each image that fails: its number, its request, and why.
Failed = Callable[[int, Request, Exception], None]


def pooled_routes(
    todo: Todo, pool: Pool, bar: Bar, stop: threading.Event, failed: Failed
) -> dict[int, np.ndarray]:
    """Tiers of the tiles of all images that share a budget, by number, from a pre-pass of each.

    Images share it with those that have the same tiers and scale. What fails is told and left out.
    """
    sharing = [(number, request) for number, request in todo if request.options.pooled]
    requests = dict(sharing)

    def one(job: tuple[int, Request]) -> Looked | Exception:
        try:
            return look(Run(job[1], pool, stop=stop))
        except Exception as error:  # one image's fault must never stop the others
            return error

    groups: dict[object, dict[int, Looked]] = {}
    looks = threaded_map(sharing, one, pool.width + 1, stop)
    for done, ((number, _), found) in enumerate(looks, start=1):
        bar("scores", done, len(sharing))
        if isinstance(found, Looked):
            options = requests[number].options
            groups.setdefault((options.tier_labels, options.scale, options.budget), {})[number] = (
                found
            )
        else:
            failed(number, requests[number], found)
    routes: dict[int, np.ndarray] = {}
    for images in [] if stop.is_set() else groups.values():
        # In the manifest's order, so that ties do not depend on which image was looked at first.
        numbers = sorted(images)
        try:
            share = requests[numbers[0]].options.budget
            assert share is not None
            routes.update(
                zip(numbers, share_out([images[number] for number in numbers], share), strict=True)
            )
        except Refused as error:
            for number in numbers:
                failed(number, requests[number], error)
    return routes


class Watch:
    """A deadline that all images share: what is left of it is parted by pixels whenever an image is
    about to be routed.

    sizes: input pixels of each image by number. now: seconds, as a clock tells them.
    """

    def __init__(
        self,
        seconds: float,
        sizes: dict[int, int],
        workers: int,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.end, self.now, self.workers = now() + seconds, now, workers
        self._left = dict(sizes)
        self._lock = threading.Lock()

    def clock(self, number: int) -> TimeLimit:
        """The clock of one image. An archive that is late goes on with the cheapest tier."""
        return TimeLimit(lambda: self.left(number), self.workers, late=True)

    def left(self, number: int) -> float:
        """Seconds of all workers that an image has: its part of those that are left for it and all
        that are not finished.
        """
        with self._lock:
            total = sum(self._left.values())
            return max(0.0, self.end - self.now()) * self._left.get(number, 0) / max(total, 1)

    def finished(self, number: int) -> None:
        """Leave the rest of the time to the others."""
        with self._lock:
            self._left.pop(number, None)


def watch_of(todo: Todo, seconds: float, workers: int) -> Watch:
    """A watch for the images with a deadline; those that cannot be opened have no part in it."""
    sizes = {}
    for number, request in todo:
        options = request.options
        if options.policy != "deadline":
            continue
        try:
            with open_image(
                request.source, Selection(options.series, options.level, options.z, options.t)
            ) as image:
                sizes[number] = image.shape[1] * image.shape[2]
        except (Refused, Damaged, OSError, Interrupted):
            continue
    return Watch(seconds, sizes, workers)
