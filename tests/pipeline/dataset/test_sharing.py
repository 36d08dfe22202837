"""What images share: scores that are found once, a budget, and a deadline."""

import threading

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tierscale.pipeline.dataset.sharing import (
    SharedDeadline,
    score_image,
    shared_deadline,
    shared_routes,
)
from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.policies import Budget, Deadline
from tierscale.pipeline.run.job import Controls, ImageJob
from tierscale.pipeline.run.prescan import Prescan
from tierscale.pipeline.run.run import upscale_image
from tierscale.pipeline.run.workers.pool import LocalPool

SHARED = Budget(0.5, shared=True)


def job_of(tmp_path, name, policy=SHARED, size=(80, 96), tiers=("bicubic", "fsrcnn-x4")):
    """A job of a noisy image; a progressive JPEG has to be ingested."""
    pixels = np.random.default_rng(len(name)).integers(0, 255, (*size, 3), np.uint8)
    more = {"progressive": True} if name.endswith(".jpg") else {}
    Image.fromarray(pixels).save(tmp_path / name, **more)
    options = Options(tiers=tiers, tile=16, policy=policy)
    return ImageJob(str(tmp_path / name), str(tmp_path / f"out/{name}.zarr"), options)


def refuse(number, job, error):
    raise error


def test_scores_are_found_once_and_the_copy_is_not_kept(tmp_path, monkeypatch):
    job = job_of(tmp_path, "b.jpg")
    with LocalPool(1) as pool:
        first = score_image(job, pool, Controls())
        folder = Folder(job.output).path
        assert pq.read_table(folder / "scores.parquet").num_rows == len(first.scores)
        assert not (folder / "source.zarr").exists(), "an archive must not lie on the disk twice"
        monkeypatch.setattr(Prescan, "scan", None)
        again = score_image(job, pool, Controls())
    np.testing.assert_array_equal(again.scores, first.scores)
    assert first.routes is again.routes is None


def test_an_image_that_has_its_plan_keeps_its_routes(tmp_path):
    job, other = job_of(tmp_path, "a.png"), job_of(tmp_path, "other.png")
    with LocalPool(1) as pool:
        routes = shared_routes([(0, job), (1, other)], pool, Controls(), refuse)
        upscale_image(job, pool, Controls(routes=routes[0]))
        scored = score_image(job, pool, Controls())
        np.testing.assert_array_equal(scored.routes, routes[0])
        again = shared_routes([(0, job), (1, other)], pool, Controls(), refuse)
    for number in (0, 1):
        np.testing.assert_array_equal(again[number], routes[number])


def test_what_fails_is_reported_and_the_others_share_the_budget(tmp_path):
    jobs = [job_of(tmp_path, name) for name in ("a.png", "broken.png", "own.png")]
    (tmp_path / "broken.png").write_bytes(b"no image")
    own = job_of(tmp_path, "own.png", Budget(0.9))
    failures = []
    with LocalPool(1) as pool:
        routes = shared_routes(
            [(0, jobs[0]), (1, jobs[1]), (2, own)],
            pool,
            Controls(),
            lambda *all: failures.append(all),
        )
    assert set(routes) == {0}, "a budget of a row is no part of the archive's"
    ((number, job, error),) = failures
    assert (number, job) == (1, jobs[1]) and isinstance(error, Refused | Damaged)


def test_a_budget_that_no_image_can_keep_is_reported_for_all_that_share_it(tmp_path):
    jobs = [job_of(tmp_path, name, Budget(0.001, shared=True)) for name in ("a.png", "b.png")]
    failures = []
    with LocalPool(1) as pool:
        found = shared_routes(
            list(enumerate(jobs)), pool, Controls(), lambda *all: failures.append(all)
        )
    assert found == {} and [number for number, *_ in failures] == [0, 1]
    assert all("for the archive" in str(error) for *_, error in failures)


def test_stopped_it_begins_no_image(tmp_path):
    stop = threading.Event()
    stop.set()
    with LocalPool(1) as pool:
        found = shared_routes([(0, job_of(tmp_path, "a.png"))], pool, Controls(stop=stop), refuse)
    assert found == {} and not (tmp_path / "out").exists()


def test_time_is_shared_by_pixels_and_again_after_each_image():
    now = [100.0]
    deadline = SharedDeadline(1000.0, {1: 300, 2: 100, 3: 100}, 2, lambda: now[0])
    assert deadline.left(1) == 600 and deadline.left(2) == 200
    now[0] = 400.0
    deadline.finished(1)
    limit = deadline.limit(2)
    assert limit.left() == 350 and limit.late and limit.workers == 2
    now[0] = 2000.0
    assert deadline.left(2) == 0 and deadline.left(9) == 0


def test_images_without_a_deadline_or_that_cannot_be_opened_have_no_part_in_it(tmp_path):
    timed = job_of(tmp_path, "a.png", Deadline(100.0), (10, 20))
    other, broken = job_of(tmp_path, "b.png", SHARED), job_of(tmp_path, "c.png", Deadline(50.0))
    (tmp_path / "c.png").write_bytes(b"no image")
    assert shared_deadline([(1, other)], 2) is None
    found = shared_deadline([(0, timed), (1, other), (2, broken)], 2)
    assert found.left(0) == pytest.approx(100.0, abs=5.0)
    assert found.left(1) == found.left(2) == 0


def test_outputs_that_were_begun_with_other_tiers_share_among_themselves(tmp_path):
    """As where the default tiers are others by now: what is stored stays, what is new is shared."""
    begun = [job_of(tmp_path, f"{letter}.png") for letter in "ab"]
    with LocalPool(1) as pool:
        before = shared_routes(list(enumerate(begun)), pool, Controls(), refuse)
        for number, job in enumerate(begun):
            upscale_image(job, pool, Controls(routes=before[number]))
        # Nobody writes the tiers any more, and this version has others by default.
        later = [job_of(tmp_path, f"{letter}.png", tiers=None) for letter in "abc"]
        routes = shared_routes(list(enumerate(later)), pool, Controls(), refuse)
        for number in (0, 1):
            np.testing.assert_array_equal(routes[number], before[number])
        for number, job in enumerate(later):
            written = upscale_image(job, pool, Controls(routes=routes[number])).written
            assert (written == 0) == (number < 2)
    tiers = [Folder(job.output).plan().tiers for job in later]
    assert tiers[0] == tiers[1] != tiers[2]
