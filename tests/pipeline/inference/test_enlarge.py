"""When memory runs out: batches are halved, then windows, and the receipt says so."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import zarr

from tests.fakes import Smear
from tierscale.pipeline.inference.enlarge import Device, Engine, enlarge
from tierscale.pipeline.inference.shard import read_input
from tierscale.pipeline.output import store
from tierscale.pipeline.output.levels import StoreLayout
from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.policies import Budget, Full
from tierscale.pipeline.plan.stored import with_digest
from tierscale.pipeline.run.array import enlarge_array
from tierscale.pipeline.run.workers.pool import InProcess
from tierscale.pipeline.run.workers.shard_tasks import FinishShard
from tierscale.pipeline.run.workers.worker import Worker

BOTH = ("bicubic", "smear")


def noise(*shape):
    return np.random.default_rng(0).integers(1, 255, shape).astype(np.uint8)


def in_batches_of_four(image, share):
    """The plan of an image, for the workers of a GPU as far as its batches go."""
    plan = enlarge_array(image, Options(tiers=BOTH, policy=Budget(share), tile=48)).plan
    return with_digest(replace(plan, batch=(4, 4)))


def test_out_of_memory_halves_batches_then_windows_until_nothing_helps(smear):
    image = noise(3, 150, 170)
    options = Options(tiers=("smear",), policy=Full(), tile=48)
    whole = enlarge_array(image, options).pixels
    smear["smear"] = Smear(most=4000)
    small = enlarge_array(image, options).pixels
    assert np.abs(whole.astype(int) - small).max() <= 1
    smear["smear"] = Smear(most=400)
    with pytest.raises(torch.OutOfMemoryError, match="does not fit"):
        enlarge_array(image, options)


def test_the_smaller_batch_is_remembered_for_the_device(smear):
    image = noise(3, 200, 200)
    plan = in_batches_of_four(image, 0.6)
    smear["smear"] = Smear(most=2 * 80 * 80)
    works = plan.works((0, 0))
    shard_input = read_input(plan, lambda y0, y1, x0, x1: image[:, y0:y1, x0:x1], (0, 0), works)
    device = Device("cpu")
    upscalers = {0: smear["bicubic"], 1: smear["smear"]}
    pieces = enlarge(Engine(plan, upscalers, plan.settings, device), shard_input, works)
    assert device.batches.get("smear", 4) < 4
    assert {piece.batch for piece in pieces if piece.work.tier == 0} == {4}


@pytest.mark.parametrize(
    ("most", "batch", "retreats"), [(None, 4, ()), (10_000, 2, ("smear",)), (4000, 0, ("smear",))]
)
def test_a_receipt_says_where_memory_ran_out(smear, tmp_path, one_thread, most, batch, retreats):
    pixels = noise(3, 100, 200)
    plan = in_batches_of_four(pixels, 0.8)
    zarr.create_array(str(tmp_path / "in.zarr"), data=pixels, chunks=(3, 64, 64))
    source = replace(plan.source, uri=str(tmp_path / "in.zarr")).in_place
    folder = Folder(str(tmp_path / "out.zarr"))
    store.create(folder.output, StoreLayout.of(plan), {"tierscale": {"plan": plan.digest}})
    smear["smear"] = Smear(most=most)
    made = FinishShard(InProcess(plan), source, folder.output, (0, 0)).run(Worker("cpu"))
    assert min(made.tiles.values()) > 0, "the test needs tiles of both tiers"
    assert (made.batch, made.retreats) == (batch, retreats)
    assert list(folder.receipts(plan.digest)) == [made]
