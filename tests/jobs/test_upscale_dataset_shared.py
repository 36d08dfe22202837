"""A budget and a deadline of a whole manifest: kept, told, and the same after an interruption."""

import json
import threading
from dataclasses import replace

import numpy as np
import pytest
import skimage.data
import zarr
from PIL import Image

from tierscale.jobs.manifest_run import ManifestJob, run_manifest
from tierscale.pipeline.dataset.manifest import Manifest, Row
from tierscale.pipeline.dataset.sharing import score_image
from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.policies import Budget, Deadline
from tierscale.pipeline.routing.costs import full_cost
from tierscale.pipeline.run.job import Controls, ImageJob
from tierscale.pipeline.run.prescan import Prescan
from tierscale.pipeline.run.workers.pool import LocalPool

TIERS = ("bicubic", "fsrcnn-x4")


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


def job(root, policy):
    options = Options(tiers=TIERS, tile=16, policy=policy)
    return ManifestJob(options, str(root), ray="none", workers=1, quiet=True)


def statuses(rows):
    return [row["status"] for row in rows]


def test_a_manifest_shares_its_budget(archive, tmp_path):
    options = job(tmp_path / "out", Budget(0.5))
    rows = run_manifest(archive, options).to_pylist()
    assert statuses(rows) == ["done", "done", "failed", "done"]
    plans = [Folder(row["output"]).plan() for row in (rows[0], rows[1], rows[3])]
    shared = Budget(0.5, shared=True)
    assert [plan.policy for plan in plans] == [shared, shared, Budget(0.9)]
    cost, most = sum(row["cost"] for row in rows[:2]), sum(full_cost(plan) for plan in plans[:2])
    assert cost <= 0.5 * most * (1 + 1e-9)
    assert rows[0]["cost_share"] < 0.5 < rows[1]["cost_share"]
    assert 0.5 < rows[3]["cost_share"] <= 0.9
    again = run_manifest(archive, options).to_pylist()
    assert statuses(again) == ["skipped", "skipped", "failed", "skipped"]


def test_a_manifest_that_goes_on_from_kept_scores_makes_the_same_array(
    archive, tmp_path, monkeypatch
):
    """As when it is killed after its prescan and before any plan is stored."""
    one = Manifest(archive.rows[1:2], root=archive.root)
    shared = job(tmp_path, Budget(0.5, shared=True)).image
    image = ImageJob(one.rows[0].source, str(tmp_path / "out/b.jpg.zarr"), shared)
    with LocalPool(1) as pool:
        score_image(image, pool, Controls())
    with monkeypatch.context() as changed:
        changed.setattr(Prescan, "scan", None)
        (row,) = run_manifest(one, job(tmp_path / "out", Budget(0.5))).to_pylist()
    assert row["status"] == "done", row["error"]
    assert not (Folder(row["output"]).path / "scores.parquet").exists(), "the tile table has them"
    (other,) = run_manifest(one, job(tmp_path / "else", Budget(0.5))).to_pylist()
    found = [zarr.open_array(f"{made['output']}/0", mode="r")[:] for made in (row, other)]
    np.testing.assert_array_equal(*found)


def test_stopped_while_it_scores_the_job_lists_what_is_left(archive, tmp_path):
    class Stopped:
        stop = threading.Event()

        def arm(self):
            self.stop.set()

    rows = run_manifest(archive, job(tmp_path / "out", Budget(0.5)), Stopped()).to_pylist()
    assert set(statuses(rows)) == {"failed"} and "interrupted" in rows[0]["error"]


def test_a_manifest_shares_its_time(archive, tmp_path):
    rows = run_manifest(archive, job(tmp_path / "out", Deadline(600.0))).to_pylist()
    assert statuses(rows) == ["done", "done", "failed", "done"]
    late = run_manifest(archive, job(tmp_path / "late", Deadline(1e-3))).to_pylist()
    assert statuses(late) == ["done", "done", "failed", "done"]
    assert dict(late[0]["tiles"])["fsrcnn-x4"] == 0, (
        "an archive that is late goes on with the first tier"
    )
    plan = json.loads((tmp_path / "late/a.png.zarr.tierscale/plan.json").read_text())
    assert plan["policy"] == {"name": "deadline", "seconds": 1e-3}


def test_a_deadline_of_a_row_is_its_own(archive, tmp_path):
    """It has no part in the job's, which is over at once, and takes none from the others."""
    own = replace(archive.rows[0], deadline=600.0)
    manifest = replace(archive, rows=(own, archive.rows[1]))
    rows = run_manifest(manifest, job(tmp_path / "out", Deadline(1e-3))).to_pylist()
    full = [dict(row["tiles"])["fsrcnn-x4"] for row in rows]
    assert statuses(rows) == ["done", "done"] and full[0] > 0 == full[1]
