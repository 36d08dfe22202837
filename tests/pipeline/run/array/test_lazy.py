"""A dask array gives a dask array, of which nothing is read or planned before it is computed."""

import pickle
import threading

import cloudpickle
import dask
import dask.array as da
import numpy as np
import pytest
import torch
import zarr

from tests.pipeline.run.array.conftest import HOW
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.run.array import upscale_array, work


class Loads:
    """A lazy copy of a picture in small chunks, which notes each that is loaded."""

    def __init__(self, picture):
        self.picture, self.seen = picture, []

    def load(self, block_info=None):
        (y0, y1), (x0, x1), _ = block_info[None]["array-location"]
        self.seen.append(((y0, x0), threading.current_thread().name))
        return self.picture[y0:y1, x0:x1]

    def array(self):
        height, width, channels = self.picture.shape
        whole = da.from_array(np.zeros((height, width, channels), np.uint8), chunks=(50, 50, 3))
        return da.map_blocks(
            self.load, chunks=whole.chunks, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8)
        )


@pytest.fixture
def loads(picture):
    return Loads(picture)


def test_pixels_are_those_of_the_array_in_memory(loads, enlarged):
    made = upscale_array(loads.array(), 4, **HOW)
    assert isinstance(made, da.Array) and made.dtype == np.uint8
    assert made.shape == enlarged.shape and made.numblocks == (3, 3, 1)
    assert loads.seen == [], "nothing is read before it is computed"
    np.testing.assert_array_equal(made.compute(), enlarged)


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_a_part_is_made_alone_and_the_plan_once(loads, enlarged, monkeypatch, scheduler):
    plans, real = [], work.ArrayJob.plan
    monkeypatch.setattr(
        work.ArrayJob, "plan", lambda job, pool: plans.append(job) or real(job, pool)
    )
    made = upscale_array(loads.array(), 4, **HOW)
    with dask.config.set(scheduler=scheduler):
        np.testing.assert_array_equal(made[:99, 5:120].compute(), enlarged[:99, 5:120])
        planned = len(loads.seen)
        np.testing.assert_array_equal(made[700:, 900:].compute(), enlarged[700:, 900:])
    assert len(plans) == 1
    last = {place for place, _ in loads.seen[planned:]}
    assert last and all(y >= 100 and x >= 150 for y, x in last), last


def test_axes_and_kinds_of_pixels_come_back_as_they_were(picture):
    how = {"tiers": "bicubic", "tile": 16}
    for pixels, axes in (
        (picture.transpose(2, 0, 1), "cyx"),
        (picture[..., 0], "yx"),
        (picture[..., :2].transpose(2, 0, 1).astype(np.uint16) * 99, "cyx"),
        (picture[..., :1].transpose(2, 0, 1) / np.float32(255), "cyx"),
    ):
        made = upscale_array(da.from_array(pixels, chunks=40), "5/2", axes=axes, **how)
        wanted = upscale_array(pixels, "5/2", axes=axes, **how)
        assert made.dtype == wanted.dtype
        np.testing.assert_array_equal(made.compute(), wanted)


def test_a_block_is_read_by_the_threads_that_enlarge_and_by_no_more(loads):
    upscale_array(loads.array(), 4, **HOW)[:10, :10].compute(scheduler="threads")
    assert {name.split("_")[0] for _, name in loads.seen} == {"worker"}


def test_a_dask_array_is_written_to_a_zarr_without_a_result_in_memory(loads, enlarged, tmp_path):
    made = upscale_array(loads.array(), 4, out=tmp_path / "a.zarr", **HOW)
    assert isinstance(made, zarr.Array)
    np.testing.assert_array_equal(made[:], enlarged)


def test_one_result_can_be_enlarged_again(picture):
    small = da.from_array(picture[:40, :50], chunks=20)
    twice = upscale_array(
        upscale_array(small, 2, axes="yxc", tiers="bicubic"), 2, axes="yxc", tiers="bicubic"
    )
    wanted = upscale_array(picture[:40, :50], 2, axes="yxc", tiers="bicubic")
    wanted = upscale_array(wanted, 2, axes="yxc", tiers="bicubic")
    np.testing.assert_array_equal(twice.compute(scheduler="threads"), wanted)


def test_a_result_can_be_sent_to_another_process(picture, enlarged):
    made = upscale_array(da.from_array(picture, chunks=100), 4, **HOW)
    sent = pickle.loads(cloudpickle.dumps(made))
    assert sent.name == made.name
    np.testing.assert_array_equal(sent[:80].compute(), enlarged[:80])


def test_names_tell_results_apart(picture):
    source = da.from_array(picture, chunks=100)
    how = {**HOW, "budget": 0.6}
    names = [upscale_array(source, 4, **each).name for each in (HOW, HOW, how)]
    assert names[0] == names[1] != names[2]
    assert upscale_array(source[:-1], 4, **HOW).name != names[0]
    assert upscale_array(source[..., :1], 4, tiers="bicubic", axes="yxc").name != (
        upscale_array(source[..., :1], 4, tiers="bicubic", axes="cyx").name
    )


def test_what_cannot_work_is_refused_at_once(loads):
    lazy = loads.array()
    with pytest.raises(Refused, match=r"a deadline cannot be kept for a dask array.*give out="):
        upscale_array(lazy, 4, tiers=HOW["tiers"], axes="yxc", deadline=60, tile=16)
    with pytest.raises(Refused, match=r"nan.* are not known yet; call compute_chunk_sizes\(\)"):
        upscale_array(lazy[lazy[:, 0, 0] > 100], 4, tiers="bicubic", axes="yxc")
    large = da.zeros((3, 60_000, 60_000), chunks=(3, 60_000, 30_000), dtype=np.uint8)
    with pytest.raises(Refused, match=r"rechunk the array, of which 5.03 GiB are read for any"):
        upscale_array(large, 4, tiers="bicubic", max_memory=4 << 30)
    assert loads.seen == []


def test_torch_keeps_its_number_of_threads(picture):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        upscale_array(da.from_array(picture, chunks=100), 4, **HOW)[:10].compute()
        found = []
        other = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        other.start()
        other.join()
        assert found == [2] == [torch.get_num_threads()]
    finally:
        torch.set_num_threads(before)
