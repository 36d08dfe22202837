"""One budget and one deadline for a whole manifest: never passed, better than a budget for each,
the same after any interruption.
"""

import json
import threading
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import skimage.data
import zarr
from PIL import Image
from tierscale.jobs.sharing import Watch
from tierscale.pipeline.dataset.shared_budget import Looked, share_out

from tests.test_choosing import plan_of, scores_of
from tierscale.jobs.upscale_dataset import JobOptions, upscale_dataset
from tierscale.pipeline.dataset import shared_budget as pooled
from tierscale.pipeline.dataset.manifest import Manifest, Row
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.routing import policies as routing
from tierscale.pipeline.routing import routes as choosing
from tierscale.pipeline.routing.costs import full_cost, planned_cost
from tierscale.pipeline.run.job import ImageJob as ImageJob
from tierscale.pipeline.run.run import Run
from tierscale.pipeline.run.workers.pool import LocalPool

TIERS = ("bicubic", "fsrcnn-x4")


def looked(seed, hard=1.0, size=(200, 330)):
    plan = plan_of("budget", size, budget=0.5, pooled=True)
    return Looked(plan, scores_of(plan, seed) * np.float32(hard))


def total(images, routes):
    cost = sum(planned_cost(image.plan, own) for image, own in zip(images, routes, strict=True))
    return cost / sum(full_cost(image.plan) for image in images)


def left(images, routes):
    return sum(
        float(
            (
                choosing.areas(image.plan)
                * np.take_along_axis(image.found, own.reshape(-1, 1), axis=1)[:, 0]
            ).sum()
        )
        for image, own in zip(images, routes, strict=True)
    )


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6, 1.0])
def test_a_shared_budget_is_kept_and_goes_where_it_pays(share):
    images = [looked(0, 0.01), looked(1, 1.0), looked(2, 0.1, (90, 400))]
    routes = share_out(images, share)
    assert total(images, routes) <= share
    assert total(images, routes) > share - max(0.01, 2 / sum(len(image.found) for image in images))
    each = [
        choosing.route(
            replace(image.plan, policy={**image.plan.policy, "budget": share}), image.found
        )
        for image in images
    ]
    assert left(images, routes) <= left(images, each) * (1 + 1e-9)
    if share == 0.3:
        assert routes[0].mean() < 0.2 < routes[1].mean(), "easy images leave theirs to hard ones"
        assert left(images, routes) < 0.95 * left(images, each)


def test_one_image_alone_has_the_routes_of_its_own_budget():
    image = looked(3)
    np.testing.assert_array_equal(
        share_out([image], 0.4)[0],
        choosing.route(
            replace(image.plan, policy={**image.plan.policy, "budget": 0.4}), image.found
        ),
    )


def test_images_that_were_planned_keep_their_routes_and_nothing_else_changes():
    images = [looked(0), looked(1, 0.2), looked(2)]
    routes = share_out(images, 0.4)
    stored = [Looked(replace(images[0].plan, routes=routes[0]), images[0].found), *images[1:]]
    for first, again in zip(routes, share_out(stored, 0.4), strict=True):
        np.testing.assert_array_equal(again, first)
    # An image that was planned when it was alone has more than its part now; the others have what
    # is left.
    greedy = Looked(
        replace(images[0].plan, routes=np.ones(images[0].plan.grid.tiles, int)), images[0].found
    )
    made = share_out([greedy, *images[1:]], 0.4)
    assert (made[0] == 1).all() and total([greedy, *images[1:]], made) <= 0.4


def test_a_budget_below_the_cheapest_tier_names_the_smallest():
    with pytest.raises(
        Refused, match=r"budget of 0.001 for the archive is below .* ask for 0\.0\d+ or more"
    ):
        share_out([looked(0), looked(1)], 0.001)


@pytest.fixture
def archive(tmp_path):
    """A calm, a busy and a broken image, and one that has a budget of its own."""
    coffee = skimage.data.coffee()
    (tmp_path / "in").mkdir()
    Image.fromarray(coffee[:90, :130]).save(tmp_path / "in/a.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 96, 3), np.uint8)).save(
        tmp_path / "in/b.jpg", quality=95, progressive=True
    )
    (tmp_path / "in/broken.png").write_bytes(b"no image")
    Image.fromarray(coffee[100:190, 200:290]).save(tmp_path / "in/own.png")
    rows = [Row(str(tmp_path / "in" / name)) for name in ("a.png", "b.jpg", "broken.png")]
    return Manifest((*rows, Row(str(tmp_path / "in/own.png"), budget=0.9)), root=tmp_path / "in")


def job(tmp_path, **more):
    return JobOptions(
        Options(tiers=TIERS, tile=16, **more),
        str(tmp_path / "out"),
        ray="none",
        workers=1,
        quiet=True,
    )


def test_a_manifest_shares_its_budget(archive, tmp_path):
    rows = upscale_dataset(archive, job(tmp_path, policy="budget", budget=0.5)).to_pylist()
    assert [row["status"] for row in rows] == ["done", "done", "failed", "done"]
    plans = [Folder(row["output"]).plan() for row in (rows[0], rows[1], rows[3])]
    assert [plan.policy["pooled"] for plan in plans] == [True, True, False]
    cost, most = sum(row["cost"] for row in rows[:2]), sum(full_cost(plan) for plan in plans[:2])
    assert cost <= 0.5 * most * (1 + 1e-9)
    assert rows[0]["cost_share"] < 0.5 < rows[1]["cost_share"]
    assert 0.5 < rows[3]["cost_share"] <= 0.9
    again = upscale_dataset(archive, job(tmp_path, policy="budget", budget=0.5)).to_pylist()
    assert [row["status"] for row in again] == ["skipped", "skipped", "failed", "skipped"]


def test_a_second_look_reads_what_the_first_one_kept(archive, tmp_path, monkeypatch):
    """Scores are kept in Parquet when the job is killed before any plan is stored; the array comes
    out as if it had not been.
    """
    options = job(tmp_path, policy="budget", budget=0.5)
    image = replace(options.image, pooled=True)
    request = ImageJob(archive.rows[1].source, str(tmp_path / "out/b.jpg.zarr"), image)
    with LocalPool(1) as pool:
        first = pooled.look(Run(request, pool))
        folder = Folder(request.output).path
        assert pq.read_table(folder / "scores.parquet").num_rows == len(first.found)
        assert not (folder / "source.zarr").exists(), "an archive must not lie on the disk twice"
        monkeypatch.setattr("tierscale.pipeline.run.prescan.Prepass.look", None)
        np.testing.assert_array_equal(pooled.look(Run(request, pool)).found, first.found)
        rows = upscale_dataset(Manifest(archive.rows[1:2], root=archive.root), options).to_pylist()
    assert rows[0]["status"] == "done", rows[0]["error"]
    assert not (folder / "scores.parquet").exists(), "the tile table holds them now"
    monkeypatch.undo()
    (tmp_path / "else").mkdir()
    other = upscale_dataset(
        Manifest(archive.rows[1:2], root=archive.root),
        replace(options, output_root=str(tmp_path / "else")),
    ).to_pylist()
    found = [zarr.open_array(f"{row['output']}/0", mode="r")[:] for row in (rows[0], other[0])]
    np.testing.assert_array_equal(*found)


def test_stopped_while_it_looks_the_job_lists_what_is_left(archive, tmp_path):
    class Stopped:
        stop = threading.Event()

        def arm(self):
            self.stop.set()

    rows = upscale_dataset(
        archive, job(tmp_path, policy="budget", budget=0.5), Stopped()
    ).to_pylist()
    assert all(row["status"] == "failed" for row in rows) and "interrupted" in rows[0]["error"]


def test_a_manifest_shares_its_time(archive, tmp_path):
    rows = upscale_dataset(archive, job(tmp_path, policy="deadline", deadline=600.0)).to_pylist()
    assert [row["status"] for row in rows] == ["done", "done", "failed", "done"]
    late = upscale_dataset(
        archive,
        replace(
            job(tmp_path, policy="deadline", deadline=1e-3), output_root=str(tmp_path / "late")
        ),
    ).to_pylist()
    assert [row["status"] for row in late] == ["done", "done", "failed", "done"]
    assert dict(late[0]["tiles"])["fsrcnn-x4"] == 0, (
        "an archive that is late goes on with the cheapest tier"
    )
    assert (
        json.loads((tmp_path / "late/a.png.zarr.tierscale/plan.json").read_text())["policy"][
            "deadline"
        ]
        == 1e-3
    )


def test_a_deadline_of_a_row_is_its_own(archive, tmp_path):
    """It has no part in the job's, which is over at once, and takes none from the others."""
    own = replace(archive.rows[0], deadline=600.0)
    manifest = replace(archive, rows=(own, archive.rows[1]))
    rows = upscale_dataset(manifest, job(tmp_path, policy="deadline", deadline=1e-3)).to_pylist()
    full = [dict(row["tiles"])["fsrcnn-x4"] for row in rows]
    assert [row["status"] for row in rows] == ["done", "done"] and full[0] > 0 == full[1]


def test_time_is_parted_by_pixels_and_again_after_each_image():
    now = [100.0]
    watch = Watch(1000.0, {1: 300, 2: 100, 3: 100}, 2, lambda: now[0])
    assert watch.left(1) == 600 and watch.left(2) == 200
    now[0] = 400.0
    watch.finished(1)
    assert watch.clock(2).left() == 350 and watch.clock(2).late
    now[0] = 2000.0
    assert watch.left(2) == 0 and watch.left(9) == 0


def test_the_groups_of_several_images_are_those_of_each():
    images = [looked(0), looked(1, 1.0, (90, 400))]
    choices = [choosing.routing_problem(image.plan) for image in images]
    joint = pooled.Joint(
        tuple(choice.groups for choice in choices), tuple(len(image.found) for image in images)
    )
    errors = np.concatenate([image.found for image in images])
    routes = joint.cheapest(errors, 1e-9)
    for own, choice, image in zip(joint.split(routes), choices, images, strict=True):
        np.testing.assert_array_equal(own, choice.groups.cheapest(image.found, 1e-9))
    assert joint.cost(routes) == sum(
        choice.groups.cost(own) for own, choice in zip(joint.split(routes), choices, strict=True)
    )
    tiles = np.arange(0, len(errors), 3)
    assert sorted(joint.together(tiles, errors[tiles, 0])) == tiles.tolist()
    assert routing.POLICIES["budget"] is routing.budget
