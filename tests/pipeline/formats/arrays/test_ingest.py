"""An ingested copy is the same source, whole or not there."""

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.disk_trace import DiskTrace
from tests.pipeline.formats.pictures import picture, whole
from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.formats.arrays.ingest import bands, discard, ingest
from tierscale.pipeline.formats.registry import open_array, open_image
from tierscale.pipeline.storage import paths


@pytest.mark.parametrize("form", ["png", "jpg", "tif"])
@pytest.mark.parametrize("chunk_size", [16, 37, 512])
def test_an_ingested_copy_is_the_same_source(tmp_path, form, chunk_size):
    path, copy = tmp_path / f"a.{form}", str(tmp_path / "copy.zarr")
    exif = Image.Exif()
    exif[274], exif[271] = 6, "maker"
    image = Image.fromarray(picture(90, 70, 4 if form == "png" else 3))
    if form == "tif":
        tags = [(33550, "d", 3, (1.0, 1.0, 0.0), True), (42113, "s", 0, "0", True)]
        tifffile.imwrite(
            path,
            np.asarray(image),
            compression="lzw",
            rowsperstrip=11,
            photometric="rgb",
            extratags=tags,
        )
    else:
        image.save(path, exif=exif, dpi=(100, 200))
    calls: list[tuple[int, int]] = []
    with open_image(path) as source:
        ingest(
            source, copy, chunk=chunk_size, progress=lambda done, total: calls.append((done, total))
        )
        with open_image(copy) as again:
            np.testing.assert_array_equal(whole(again), whole(source))
            for name in (
                "shape",
                "dtype",
                "colour",
                "alpha",
                "bits",
                "metadata",
                "notes",
                "identity",
            ):
                assert getattr(again, name) == getattr(source, name), name
            assert again.random_access
            assert zarr.open_array(copy).chunks == (source.shape[0], chunk_size, chunk_size)
        assert calls[-1] == (len(calls), len(calls)) == (-(-source.shape[1] // chunk_size),) * 2


def test_an_interrupted_ingest_is_seen_and_made_again(tmp_path):
    Image.fromarray(picture(90, 70)).save(tmp_path / "a.png")
    copy = str(tmp_path / "copy.zarr")

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with open_image(tmp_path / "a.png") as source:
        with pytest.raises(KeyboardInterrupt):
            ingest(source, copy, chunk=16, progress=stop)
        with pytest.raises(Damaged, match="not finished"):
            open_image(copy)
        ingest(source, copy, chunk=16)
        with open_image(copy) as again:
            np.testing.assert_array_equal(whole(again), whole(source))
        before = os.stat(Path(copy) / "zarr.json").st_mtime_ns
        ingest(source, copy, chunk=16)
        assert os.stat(Path(copy) / "zarr.json").st_mtime_ns == before


def test_a_copy_is_on_the_disk_before_it_says_that_it_is_complete(tmp_path, monkeypatch):
    """A chunk that a power failure takes would be black pixels."""
    Image.fromarray(picture(90, 70)).save(tmp_path / "a.png")
    trace, copy = DiskTrace(monkeypatch), tmp_path / "copy.zarr"
    with open_image(tmp_path / "a.png") as source:
        ingest(source, str(copy), chunk=32)
    complete = trace.named(copy / "zarr.json")
    before = {path for kind, path in trace.events[:complete] if kind == "sync"}
    chunks = [path for path in copy.rglob("c/*/*/*") if path.is_file()]
    assert len(chunks) == 3 * 3
    assert {str(path) for path in (*chunks, *(chunk.parent for chunk in chunks))} <= before
    trace.durable(copy / "zarr.json")
    removed = len(trace.events)
    remove = paths.shutil.rmtree
    monkeypatch.setattr(
        paths.shutil,
        "rmtree",
        lambda path, **more: (trace.events.append(("remove", str(path))), remove(path, **more)),
    )
    discard(copy)
    # That it is complete is gone for good before the first chunk goes.
    assert trace.events[removed:] == [
        ("sync", str(copy)),
        ("remove", str(copy)),
        ("sync", str(tmp_path)),
    ]


def test_a_copy_of_our_own_whose_document_the_power_took_is_made_again(tmp_path):
    Image.fromarray(picture(40, 50)).save(tmp_path / "a.png")
    copy = tmp_path / "copy.zarr"
    with open_image(tmp_path / "a.png") as source:
        ingest(source, str(copy), chunk=32)
        (copy / "zarr.json").write_bytes(b"")
        with pytest.raises(Refused, match="not a copy made by tierscale"):
            ingest(source, str(copy), chunk=32)
        ingest(source, str(copy), chunk=32, replaceable=True)
        with open_image(str(copy)) as again:
            np.testing.assert_array_equal(whole(again), whole(source))


def test_an_ingest_of_something_else_or_over_something_else(tmp_path):
    for seed, name in enumerate("ab"):
        Image.fromarray(picture(20, 30, seed=seed)).save(tmp_path / f"{name}.png")
    copy = str(tmp_path / "copy.zarr")
    with open_image(tmp_path / "a.png") as first, open_image(tmp_path / "b.png") as second:
        ingest(first, copy)
        with pytest.raises(Refused, match="copy of another image"):
            ingest(second, copy)
        with open_image(copy) as ingested:
            np.testing.assert_array_equal(whole(ingested), whole(first))
        ingest(second, copy, replaceable=True)
        with open_image(copy) as again:
            np.testing.assert_array_equal(whole(again), whole(second))
        zarr.create_array(str(tmp_path / "foreign.zarr"), shape=(4,), dtype="u1")
        (tmp_path / "letter.txt").write_text("dear")
        for foreign in ("foreign.zarr", "letter.txt"):
            with pytest.raises(Refused, match="not a copy made by tierscale"):
                ingest(first, str(tmp_path / foreign))
        assert (tmp_path / "letter.txt").read_text() == "dear"


def test_a_damaged_source_leaves_no_copy(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", picture(64, 96), photometric="rgb", rowsperstrip=8, compression="zlib"
    )
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tif:
        tif.filehandle.seek(tif.pages.first.dataoffsets[6])
        tif.filehandle.write(b"\0" * 50)
    with open_image(tmp_path / "a.tif") as source, pytest.raises(Damaged, match="strip 6"):
        ingest(source, str(tmp_path / "copy.zarr"), chunk=16)
    assert not (tmp_path / "copy.zarr").exists()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=12), st.integers(1, 30))
def test_bands_are_regular_whatever_strips_come_in(heights, rows):
    total = sum(heights)
    array = np.arange(2 * total * 3, dtype=np.uint16).reshape(2, total, 3)
    source = open_array(array, "cyx")
    edges = [0, *itertools.accumulate(heights)]

    class Ragged:
        shape, dtype = source.shape, source.dtype

        def strips(self):
            yield from ((a, array[:, a:b]) for a, b in itertools.pairwise(edges))

    got = [(y, band.copy()) for y, band in bands(Ragged(), rows)]  # type: ignore[arg-type]
    assert [y for y, _ in got] == list(range(0, total, rows))
    np.testing.assert_array_equal(np.concatenate([band for _, band in got], axis=1), array)
