"""The files of shards: which there are, how long they are, and what does not belong to them."""

import os
from dataclasses import replace

import pytest

from tests.pipeline.output.test_receipts import receipt
from tierscale.pipeline.output.stored_files import (
    StoredFile,
    difference,
    remove_leftovers,
    stored_files,
)


def put(folder, names, content=b"12345"):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def test_shards_are_told_from_everything_else(tmp_path):
    output = tmp_path / "out.zarr"
    put(output, ["0/c/0/3/12", "2/c/0/0/0"])
    put(output, ["zarr.json", "0/zarr.json", "0/c/0/3/4.ab12.tmp", "0/c/1/3/4", "x/y"])
    os.utime(output / "2/c/0/0/0", (5.0, 7.5))
    found = stored_files(str(output))
    assert set(found) == {(0, 3, 12), (2, 0, 0)}
    assert found[2, 0, 0] == StoredFile(5, 7.5)
    assert stored_files(str(tmp_path / "none.zarr")) == {}


@pytest.mark.parametrize(
    "file, words",
    [
        (StoredFile(192, 0.0), None),
        (StoredFile(0, 0.0), "has 0 bytes, its receipt says 192"),
        (StoredFile(191, 0.0), "has 191 bytes"),
        (None, r"is gone, its receipt says 192 bytes; run the same command again"),
    ],
)
def test_a_file_has_the_length_of_its_receipt(file, words):
    one = receipt(1, 2)
    files = {} if file is None else {one.key: file}
    text = difference("/out/a.zarr", one, files)
    if words is None:
        assert text is None
    else:
        assert text.startswith("/out/a.zarr level 0 shard 1.2 ") and words in text
    assert difference("/out/a.zarr", replace(one, bytes=None), files) is None, "it is not known"


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path):
    output, folder = tmp_path / "out.zarr", tmp_path / "out.zarr.tierscale"
    keep = ["0/c/0/0/0", "zarr.json"], ["receipts/0/0.0.json", "lease.json.12ab.tmp", "plan.json"]
    put(output, [*keep[0], "0/c/0/0/0.12ab.tmp", "0/c/0/0/.77.partial"])
    put(folder, [*keep[1], "receipts/0/0.0.json.12ab.tmp", "tiles.parquet.12ab.tmp"])
    remove_leftovers(str(output))
    for root, names in zip((output, folder), keep, strict=True):
        left = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
        assert left == set(names)
