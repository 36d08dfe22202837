"""A plan is made once: gone on with where it will do, refused or replaced where it will not."""

import os
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.pipeline.run.upscaling import plan_at, upscale
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.arrays.ingest import ingest, rows_done
from tierscale.pipeline.formats.registry import open_image
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.policies import Budget
from tierscale.pipeline.run.job import Controls
from tierscale.pipeline.run.workers import prescan_tasks

BICUBIC = Options(tiers=("bicubic",), tile=32)


def noise(path, size=(60, 50)):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, size, np.uint8)).save(path)
    return path


def test_an_ingest_tells_how_far_it_is(tmp_path):
    seen, source, copy = [], noise(tmp_path / "a.png", (1100, 200)), str(tmp_path / "copy.zarr")
    with open_image(source) as image:
        ingest(
            image, copy, progress=lambda done, total: seen.append((done, total, rows_done(copy)))
        )
    # The row that was begun last may not be whole yet.
    assert seen == [(1, 3, (0, 3)), (2, 3, (1, 3)), (3, 3, (2, 3))]
    assert rows_done(str(tmp_path / "none.zarr")) == (0, 1)


def test_a_run_tells_how_far_its_ingest_is(tmp_path, monkeypatch):
    def slow(image, path, **more):
        ingest(image, path, **more, progress=lambda done, total: time.sleep(1.1))

    monkeypatch.setattr(prescan_tasks, "ingest", slow)
    steps = []
    controls = Controls(lambda stage, done, total: steps.append((stage, done, total)))
    options = Options(tiers=("bicubic",), scale=Options().scale / 2)
    upscale(noise(tmp_path / "a.png", (1100, 200)), tmp_path / "x.zarr", options, controls)
    rows = [(done, total) for stage, done, total in steps if stage == "ingest"]
    assert rows[-1] == (3, 3) and (1, 3) in rows


def test_the_same_request_goes_on_and_another_is_refused_or_replaces(tmp_path):
    source, output = noise(tmp_path / "a.png"), tmp_path / "out.zarr"
    first = upscale(source, output, BICUBIC)
    again = upscale(source, output, BICUBIC)
    assert (again.written, again.done_before, again.plan) == (0, first.shards, first.plan)
    other = replace(BICUBIC, tile=16)
    with pytest.raises(Refused, match=r"another plan \(tile 32, now 16\).* --overwrite"):
        upscale(source, output, other)
    assert plan_at(output).digest == first.plan
    replaced = upscale(source, output, other, overwrite=True)
    assert replaced.written == replaced.shards and plan_at(output).tile == 16


def test_only_what_changed_in_the_file_is_renewed(tmp_path):
    source, output = noise(tmp_path / "a.png"), tmp_path / "out.zarr"
    first = upscale(source, output, BICUBIC)
    noise(source, (60, 56))
    with pytest.raises(Refused, match="source identity"):
        upscale(source, output, BICUBIC)
    with pytest.raises(Refused, match="tile 32, now 16"):
        upscale(source, output, replace(BICUBIC, tile=16), renew=True)
    assert plan_at(output).digest == first.plan
    assert upscale(source, output, BICUBIC, renew=True).shape == (1, 240, 224)


def test_an_output_that_is_not_ours_is_left_alone_even_to_overwrite(tmp_path):
    source, output = noise(tmp_path / "a.png"), tmp_path / "out.zarr"
    output.mkdir()
    (output / "precious").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(Refused, match=r"out\.zarr"):
            upscale(source, output, BICUBIC, overwrite=overwrite)
    assert [path.name for path in output.iterdir()] == ["precious"]


def test_what_is_refused_late_leaves_the_old_output_whole(tmp_path):
    """A budget can be found too small after the prescan only; nothing is removed before."""
    source, output = noise(tmp_path / "a.png"), tmp_path / "out.zarr"
    two = Options(tiers=("bicubic", "fsrcnn-x4"), tile=32)
    upscale(source, output, two)
    before = {path: os.stat(path).st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(Refused, match="less than the first tier costs"):
        upscale(source, output, replace(two, policy=Budget(1e-6)), overwrite=True)
    after = {path: os.stat(path).st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert before.items() <= after.items()


def test_receipts_never_outlive_their_output(tmp_path):
    """An output that was taken away is made anew, though its receipts say that it is whole."""
    source, output = noise(tmp_path / "a.png"), tmp_path / "out.zarr"
    first = upscale(source, output, BICUBIC)
    output.rename(tmp_path / "elsewhere.zarr")
    again = upscale(source, output, BICUBIC)
    assert (again.done_before, again.written) == (0, first.shards)
