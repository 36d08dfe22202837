"""Where results of arrays go: a zarr array, or a new one at a path, which is whole or not there."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import zarr

from tests.pipeline.run.array.conftest import HOW
from tests.plans import draft_of
from tierscale.pipeline.errors import Damaged, DiskFull, Refused
from tierscale.pipeline.geometry.grid import Rect, Span
from tierscale.pipeline.run.array import target, upscale_array, work
from tierscale.pipeline.run.array.target import ZarrArray

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("layout", "version"),
    [
        ({"chunks": (64, 64, 3)}, 3),
        ({"chunks": (33, 71, 2)}, 3),
        ({"chunks": (840, 1000, 3)}, 3),
        ({"chunks": (64, 64, 3), "shards": (128, 192, 3)}, 3),
        ({"chunks": (100, 100, 1)}, 2),
    ],
    ids=["small chunks", "odd chunks", "one chunk", "shards", "version 2"],
)
def test_a_zarr_array_in_any_chunks_takes_the_result(
    picture, enlarged, monkeypatch, layout, version
):
    monkeypatch.setattr("tierscale.pipeline.run.array.memory.cores", lambda: 3)
    out = zarr.create_array(
        {}, shape=enlarged.shape, dtype=np.uint8, fill_value=7, zarr_format=version, **layout
    )
    assert upscale_array(picture, 4, out=out, **HOW) is out
    np.testing.assert_array_equal(out[:], enlarged)


class Store:
    """Looks like a zarr array in chunks; counts how many writes are under way at a time."""

    read_only, shards, store_path, dtype = False, None, "memory", np.dtype(np.uint8)

    def __init__(self, shape, chunks):
        self.shape, self.chunks = shape, chunks
        self.most = self._now = 0
        self._lock = threading.Lock()

    def __setitem__(self, where, pixels):
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        time.sleep(0.05)
        with self._lock:
            self._now -= 1


@pytest.mark.parametrize(
    ("chunks", "most"), [((3, 768, 384), 3), ((3, 768, 700), 1), ((3, 576, 768), 1)]
)
def test_only_shards_that_share_no_chunk_are_written_at_the_same_time(chunks, most):
    draft = draft_of((576, 576), tile=32)
    assert draft.grid.hr_shard == (768, 768)
    store = Store(draft.hr_shape, chunks)
    found = ZarrArray(store, draft, "cyx")
    pixels = np.zeros((3, 768, 768), np.uint8)
    threads = [
        threading.Thread(target=found.write, args=(Rect(Span(0, 768), Span(x, x + 768)), pixels))
        for x in range(0, 2304, 768)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.most == most
    assert found.bytes_beside == (0 if most > 1 else 3 * np.prod(chunks))


def test_a_path_becomes_a_zarr_array_of_whole_shards(picture, enlarged, tmp_path):
    path = tmp_path / "new" / "a.zarr"
    made = upscale_array(picture, 4, out=path, **HOW)
    np.testing.assert_array_equal(made[:], enlarged)
    found = zarr.open_array(path, mode="r")
    assert found.metadata.dimension_names == ("y", "x", "c")
    assert found.shards == (320, 384, 3)
    np.testing.assert_array_equal(found[:], enlarged)


def test_a_grey_image_becomes_a_zarr_array_of_two_axes(picture, tmp_path):
    grey = picture[..., 0]
    made = upscale_array(grey, 2, tiers="bicubic", out=str(tmp_path / "a.zarr"))
    np.testing.assert_array_equal(made[:], upscale_array(grey, 2, tiers="bicubic"))


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (zarr.zeros((3, 40, 40), dtype="u1"), r"shape \(3, 40, 40\) and type uint8, but .* \(80, "),
        (zarr.zeros((80, 80, 3), dtype="u2"), "type uint16, but the result has .* type uint8"),
        (5, "out is a int, and results go to a zarr array or a path"),
        (np.zeros((80, 80, 3), np.uint8), "out is a ndarray"),
    ],
)
def test_an_out_that_cannot_hold_the_result_is_refused(out, message):
    with pytest.raises(Refused, match=message):
        upscale_array(np.zeros((20, 20, 3), np.uint8), 4, tiers="bicubic", axes="yxc", out=out)


def test_an_out_that_may_not_be_written_is_refused(picture, tmp_path):
    zarr.save_array(tmp_path / "a.zarr", np.zeros((80, 80), np.uint8))
    closed = zarr.open_array(tmp_path / "a.zarr", mode="r")
    small = picture[:20, :20, 0]
    with pytest.raises(
        Refused, match=r"a.zarr\) is open for reading only; open it with mode='r\+'"
    ):
        upscale_array(small, 4, tiers="bicubic", out=closed)
    with pytest.raises(Refused, match=r"a.zarr exists; give another path"):
        upscale_array(small, 4, tiers="bicubic", out=tmp_path / "a.zarr")
    same = zarr.array(small)
    with pytest.raises(Refused, match="out is the array that is enlarged"):
        upscale_array(same, 1, tiers="bicubic", out=same)


def test_a_disk_that_is_too_small_is_refused_before_work(picture, tmp_path, monkeypatch):
    monkeypatch.setattr(work.ArrayJob, "plan", None)
    monkeypatch.setattr(
        "tierscale.pipeline.run.resources.shutil.disk_usage", lambda path: SimpleNamespace(free=1)
    )
    with pytest.raises(Refused, match=r"the output needs about 2.40 MiB"):
        upscale_array(picture, 4, out=tmp_path / "a.zarr", **HOW)
    assert not (tmp_path / "a.zarr").exists()


def test_until_it_is_whole_a_path_cannot_be_opened(picture, tmp_path, monkeypatch):
    path, real = tmp_path / "a.zarr", target.write_bytes

    def watched(place, content):
        assert not (path / "zarr.json").exists(), "the metadata is written last"
        real(place, content)

    monkeypatch.setattr(target, "write_bytes", watched)
    upscale_array(picture, 4, out=path, **HOW)
    assert (path / "zarr.json").is_file()


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (
            DiskFull("finished shards are kept"),
            DiskFull,
            "a.zarr is full; free some space, and begin again",
        ),
        (Refused("it cannot be written"), Damaged, "it cannot be written"),
        (OSError(5, "Input/output error"), Damaged, "a.zarr cannot be written or read"),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
    ],
)
def test_what_fails_on_the_way_leaves_nothing(picture, tmp_path, monkeypatch, error, kind, message):
    count, real = [0], target.write_bytes

    def third_fails(place, content):
        count[0] += 1
        if count[0] == 3:
            raise error
        real(place, content)

    monkeypatch.setattr(target, "write_bytes", third_fails)
    with pytest.raises(kind, match=message):
        upscale_array(picture, 4, out=tmp_path / "a.zarr", **HOW)
    assert list(tmp_path.iterdir()) == []
