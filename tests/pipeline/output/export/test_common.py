"""No half file is left under the final name of an export, and memory is bounded."""

import errno
import os
import tracemalloc

import pytest

from tests.disk_trace import DiskTrace
from tests.pipeline.output.export.sample import (
    exported,
    write_output,
)
from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.output.export.png import export_png
from tierscale.pipeline.output.export.tiff import export_tiff


@pytest.mark.parametrize("kind", ["tif", "png"])
def test_a_failed_export_leaves_what_was_there(tmp_path, kind):
    write_output(tmp_path / "a.zarr", (3, 600, 700))
    shard = next(
        path for path in sorted((tmp_path / "a.zarr" / "0" / "c").rglob("*")) if path.is_file()
    )
    shard.write_bytes(shard.read_bytes()[:50])
    out = tmp_path / f"a.{kind}"
    out.write_text("before")
    with pytest.raises(Damaged, match=r"a\.zarr"):
        if kind == "tif":
            export_tiff(exported(tmp_path, "rgb"), str(out))
        else:
            export_png(exported(tmp_path, "rgb"), str(out), max_bytes=1 << 30)
    assert out.read_text() == "before" and sorted(
        path.name for path in tmp_path.iterdir()
    ) == sorted(["a.zarr", out.name])


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, Damaged), (errno.EROFS, Refused)])
def test_an_export_that_cannot_be_written_says_so_and_leaves_nothing(
    tmp_path, monkeypatch, number, kind
):
    def replace(part, out):
        raise OSError(number, os.strerror(number))

    write_output(tmp_path / "a.zarr", (3, 20, 20))
    monkeypatch.setattr("tierscale.pipeline.output.export.common.os.replace", replace)
    with pytest.raises(kind, match=r"a\.png:? .*cannot be written"):
        export_png(exported(tmp_path, "rgb"), str(tmp_path / "a.png"), max_bytes=1 << 30)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


@pytest.mark.parametrize("kind", ["tif", "png"])
def test_an_export_is_on_the_disk_when_it_is_done(tmp_path, monkeypatch, kind):
    write_output(tmp_path / "a.zarr", (3, 20, 20))
    trace, out = DiskTrace(monkeypatch), tmp_path / f"a.{kind}"
    if kind == "tif":
        export_tiff(exported(tmp_path, "rgb"), str(out))
    else:
        export_png(exported(tmp_path, "rgb"), str(out), max_bytes=1 << 30)
    assert trace.durable(out)


def test_what_is_no_output_is_refused(tmp_path):
    with pytest.raises(Refused, match="not an OME-Zarr"):
        export_tiff(exported(tmp_path, "rgb", name="none"), str(tmp_path / "a.tif"))
    assert not list(tmp_path.iterdir())


def test_export_works_in_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("tierscale.pipeline.output.export.tiff.BLOCK_BYTES", 1 << 20)
    write_output(tmp_path / "a.zarr", (3, 4000, 1000), levels=1)
    allowed = 20 * 100 * 3000
    for kind in ("tif", "png"):
        tracemalloc.start()
        if kind == "tif":
            export_tiff(exported(tmp_path, "rgb"), str(tmp_path / "a.tif"))
        else:
            export_png(exported(tmp_path, "rgb"), str(tmp_path / "a.png"), max_bytes=allowed)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < (allowed + (2 << 20) if kind == "png" else 3 * 4000 * 1000 * 0.6), kind
