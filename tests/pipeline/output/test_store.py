"""The group of an output: created empty, written by whole shards, never taken for another's."""

import subprocess
import sys

import numpy as np
import pytest
import zarr

from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.output import store
from tierscale.pipeline.output.levels import StoreLayout

LAYOUT = StoreLayout((3, 1500, 1100), np.dtype("u1"), "rgb", (512, 512))


@pytest.fixture
def path(tmp_path):
    store.create(str(tmp_path / "a.zarr"), LAYOUT, {"tierscale": {"plan": "ours"}})
    return str(tmp_path / "a.zarr")


def pixels(*shape):
    return np.random.default_rng(0).integers(0, 255, shape, np.uint8)


def test_levels_are_sharded_and_empty(path):
    for level, size in enumerate(LAYOUT.levels):
        array = store.open_level(path, level)
        assert array.shape == (3, *size) and array.shards == (3, 512, 512)
        assert not array[:].any()
    assert store.shards_of(path, 0) == (3, 3) and store.shards_of(path, 1) == (2, 2)


def test_what_is_not_written_yet_holds_no_data(tmp_path):
    layout = StoreLayout((1, 40, 50), np.dtype("f4"), "grey", (64, 64), -9999.0)
    of_levels = [{"proj:code": "EPSG:4326"}]
    store.create(str(tmp_path / "a.zarr"), layout, {}, of_levels)
    array = store.open_level(str(tmp_path / "a.zarr"), 0)
    assert (array[:] == -9999).all() and array.attrs["proj:code"] == "EPSG:4326"


def test_an_output_keeps_the_chunks_and_the_means_it_was_begun_with(tmp_path, monkeypatch):
    begun, new = str(tmp_path / "begun.zarr"), str(tmp_path / "new.zarr")
    with monkeypatch.context() as earlier:
        earlier.setattr(StoreLayout, "chunk", (3, 256, 512))
        store.create(begun, LAYOUT, {"tierscale": {"plan": "ours"}})
    store.create(new, LAYOUT, {"tierscale": {"plan": "ours", "pyramid": store.VALID}})
    for path, chunk, valid in ((begun, (3, 256, 512), False), (new, (1, 512, 512), True)):
        store.write_shard(path, 0, (0, 0), pixels(3, 512, 512))
        assert store.open_level(path, 0).chunks == chunk
        np.testing.assert_array_equal(store.read_shard(path, 0, (0, 0)), pixels(3, 512, 512))
        assert store.averages_valid(path) == valid


def test_a_shard_at_the_edge_is_written_whole_and_read_back(path):
    part = pixels(3, 1500 - 1024, 1100 - 1024)
    store.write_shard(path, 0, (2, 2), part)
    np.testing.assert_array_equal(store.read_shard(path, 0, (2, 2)), part)
    assert not store.read_shard(path, 0, (1, 2)).any()
    np.testing.assert_array_equal(zarr.open_array(f"{path}/0", mode="r")[:, 1024:, 1024:], part)
    with pytest.raises(ValueError, match="written whole"):
        store.write_shard(path, 0, (0, 0), part)


def test_a_damaged_shard_is_reported_and_can_be_replaced(path, tmp_path):
    store.write_shard(path, 0, (0, 0), pixels(3, 512, 512))
    file = tmp_path / "a.zarr/0/c/0/0/0"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(Damaged, match=r"level 0 shard 0\.0 cannot be read back .*--heal"):
        store.read_shard(path, 0, (0, 0))
    store.write_shard(path, 0, (0, 0), pixels(3, 512, 512))
    np.testing.assert_array_equal(store.read_shard(path, 0, (0, 0)), pixels(3, 512, 512))


def test_a_level_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(Refused, match="does not exist"):
        store.open_level(str(tmp_path / "none.zarr"), 0)


def test_libraries_of_few_uses_are_not_loaded_with_the_package():
    """Each worker process imports these modules."""
    modules = (
        "store",
        "ownership",
        "receipts",
        "tile_table",
        "report",
        "explain",
        "pictures.charts",
    )
    imports = "; ".join(f"import tierscale.pipeline.output.{name}" for name in modules)
    found = subprocess.run(
        [sys.executable, "-c", f"{imports}; import sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not {"dask", "matplotlib", "ray"} & set(found.stdout.split())
