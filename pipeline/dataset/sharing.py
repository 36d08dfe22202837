"""What the images of a manifest share: a budget, and a deadline."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from tierscale.pipeline.errors import Damaged, Interrupted, Refused
from tierscale.pipeline.formats.registry import open_image
from tierscale.pipeline.output.tile_table import read_scores
from tierscale.pipeline.plan.policies import Budget, Deadline
from tierscale.pipeline.routing.problem import check_scores
from tierscale.pipeline.routing.routes import TimeLimit
from tierscale.pipeline.routing.shared_budget import ScoredImage, split_budget
from tierscale.pipeline.run.job import Controls, ImageJob, Timings
from tierscale.pipeline.run.planning import COPY, Planner
from tierscale.pipeline.run.scoring import kept_scores
from tierscale.pipeline.run.workers.bounded import bounded_map
from tierscale.pipeline.run.workers.pool import Pool
from tierscale.pipeline.storage.lease import Lease
from tierscale.pipeline.storage.paths import remove_tree

# Told of each image that fails: its number, its job, and why.
Failed = Callable[[int, ImageJob, Exception], None]


def score_image(job: ImageJob, pool: Pool, controls: Controls) -> ScoredImage:
    """The scores of an image: of its stored plan, as they were kept, or found now and kept.

    What was ingested to be looked at is not kept, or an archive would lie on the disk twice. Raises
    Refused, Damaged, Interrupted.
    """
    planner = Planner(job, pool, controls, Timings())
    inspection = planner.inspect()
    folder = planner.folder.path
    with Lease(planner.folder.path):
        plan = planner.stored(inspection)
        if plan is not None:
            return ScoredImage(plan, read_scores(folder, len(plan.tiers)), plan.routes)
        scored = planner.kept(inspection, folder)
        if scored is None:
            scored = planner.scored(inspection, folder)
            kept_scores.save(folder, scored)
            remove_tree(folder / COPY)
    try:
        check_scores(scored.scores, scored.grid.tiles[1])
    except ValueError as error:
        raise Refused(str(error)) from error
    return ScoredImage(scored, scored.scores, None)


def shared_routes(
    jobs: Sequence[tuple[int, ImageJob]],
    pool: Pool,
    controls: Controls,
    failed: Failed,
) -> dict[int, np.ndarray]:
    """Tiers of the tiles of all images that share a budget, by number, from a prescan of each.

    Images share it with those that have the same tiers and scale. What fails is reported and
    left out.
    """
    sharing = {number: job for number, job in jobs if is_shared(job)}
    groups: dict[object, dict[int, ScoredImage]] = {}
    with ThreadPoolExecutor(pool.width + 1, thread_name_prefix="scores") as drivers:

        def start(number: int) -> Future[ScoredImage]:
            return drivers.submit(score_image, sharing[number], pool, controls)

        under_way = bounded_map(list(sharing), start, pool.width + 1, controls.stop)
        for done, (number, future) in enumerate(under_way, start=1):
            controls.progress("scores", done, len(sharing))
            job = sharing[number]
            try:
                image = future.result()
            except Exception as error:  # one image's fault must never stop the others
                failed(number, job, error)
                continue
            # Those of a stored plan may be other ones than this version's defaults.
            labels = tuple(tier.label for tier in image.plan.tiers)
            key = (labels, image.plan.scale, job.options.policy)
            groups.setdefault(key, {})[number] = image
    if controls.stop.is_set():
        return {}
    routes: dict[int, np.ndarray] = {}
    for images in groups.values():
        try:
            routes.update(_share(images, sharing))
        except Refused as error:
            for number in sorted(images):
                failed(number, sharing[number], error)
    return routes


def is_shared(job: ImageJob) -> bool:
    """Whether the budget of a job is that of the whole archive."""
    return isinstance(job.options.policy, Budget) and job.options.policy.shared


def _share(
    images: Mapping[int, ScoredImage], jobs: Mapping[int, ImageJob]
) -> dict[int, np.ndarray]:
    """The routes of images that share one budget, by number."""
    # In the manifest's order, so that ties do not depend on which image was looked at first.
    numbers = sorted(images)
    policy = jobs[numbers[0]].options.policy
    if not isinstance(policy, Budget):
        raise TypeError(f"images with policy {policy.name} share no budget")
    stored = {number: image.routes for number, image in images.items() if image.routes is not None}
    if len(stored) == len(images):
        return stored
    chosen = split_budget([images[number] for number in numbers], policy.share)
    return dict(zip(numbers, chosen, strict=True))


class SharedDeadline:
    """A deadline of many images: what is left is divided by pixels when an image is to be routed.

    sizes: input pixels of each image by number. now: seconds, as a clock tells them.
    """

    def __init__(
        self,
        seconds: float,
        sizes: Mapping[int, int],
        workers: int,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.end, self.now, self.workers = now() + seconds, now, workers
        self._unfinished = dict(sizes)
        self._lock = threading.Lock()

    def limit(self, number: int) -> TimeLimit:
        """The time limit of one image. An archive that is late goes on with the first tier."""
        return TimeLimit(lambda: self.left(number), self.workers, late=True)

    def left(self, number: int) -> float:
        """Seconds of all workers that an image has, of those left for all that are unfinished."""
        with self._lock:
            total = sum(self._unfinished.values())
            seconds = max(0.0, self.end - self.now())
            return seconds * self._unfinished.get(number, 0) / max(total, 1)

    def finished(self, number: int) -> None:
        """Leave the rest of the time to the others."""
        with self._lock:
            self._unfinished.pop(number, None)


def shared_deadline(jobs: Sequence[tuple[int, ImageJob]], workers: int) -> SharedDeadline | None:
    """The deadline that jobs share, or None; images that cannot be opened have no part in it."""
    sizes: dict[int, int] = {}
    seconds = None
    for number, job in jobs:
        policy = job.options.policy
        if not isinstance(policy, Deadline):
            continue
        seconds = policy.seconds if seconds is None else seconds
        try:
            with open_image(job.source, job.options.selection) as image:
                sizes[number] = image.shape[1] * image.shape[2]
        except (Refused, Damaged, OSError, Interrupted):
            continue  # the run of this image will say so
    return None if seconds is None else SharedDeadline(seconds, sizes, workers)
