"""An OME-Zarr 0.4 has all levels of an output, for readers of zarr 2."""

import json

import numpy as np
import pytest
import zarr

from tests.commands import FAST, tierscale
from tests.pipeline.formats.pictures import picture
from tests.pipeline.output.export.sample import exported, write_output
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.registry import open_image
from tierscale.pipeline.output.export.ome_zarr import export_ome_zarr


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_levels_lie_in_plain_chunks_of_version_2(tmp_path, dtype):
    parts = write_output(tmp_path / "a.zarr", (3, 700, 900), dtype)
    calls: list[tuple[int, int]] = []
    out = tmp_path / "b.zarr"
    export_ome_zarr(exported(tmp_path, "rgb"), str(out), progress=lambda *c: calls.append(c))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "b.zarr"]
    assert calls[-1][0] == calls[-1][1] == len(calls)
    assert {".zattrs", ".zgroup", ".zmetadata"} < {path.name for path in out.iterdir()}
    for level, part in enumerate(parts):
        stored = json.loads((out / str(level) / ".zarray").read_text())
        assert (stored["zarr_format"], stored["dimension_separator"]) == (2, "/")
        assert stored["chunks"][0] == 1 and max(stored["chunks"]) <= 512
        assert (out / str(level) / "0" / "0" / "0").is_file()
        np.testing.assert_array_equal(zarr.open_array(str(out / str(level)), mode="r")[:], part)


def test_what_tiatoolbox_looks_for_is_there_and_tierscale_reads_it_back(tmp_path, capsys):
    from PIL import Image

    Image.fromarray(picture(60, 90, 3)).save(tmp_path / "a.png", dpi=(300, 300))
    tierscale(capsys, "upscale", tmp_path / "a.png", tmp_path / "a.zarr", *FAST)
    out = tmp_path / "b.ome.zarr"
    assert tierscale(capsys, "export", tmp_path / "a.zarr", out, "--ome-zarr", "0.4")[0] == 0
    attributes = json.loads((out / ".zattrs").read_text())
    assert attributes["multiscales"][0]["version"] == attributes["omero"]["version"] == "0.4"
    assert attributes["_ARRAY_DIMENSIONS"] == ["c", "y", "x"]
    assert set(attributes["omero"]["channels"][0]) <= {
        *("active", "coefficient", "color", "family", "inverted", "label", "window")
    }
    assert set(attributes["omero"]["rdefs"]) <= {"defaultT", "defaultZ", "model"}
    with open_image(out) as copy, open_image(tmp_path / "a.zarr") as whole:
        assert (copy.colour, copy.metadata) == (whole.colour, whole.metadata)
        assert copy.metadata.resolution == pytest.approx((472.44, 472.44))  # by the centimetre
        np.testing.assert_array_equal(copy.read(0, 240, 0, 360), whole.read(0, 240, 0, 360))
    assert tierscale(capsys, "verify", out)[0] == 2  # it is no output: nothing can heal it


def test_a_group_without_metadata_is_no_image(tmp_path):
    zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    with pytest.raises(Refused, match="not an OME-Zarr image"):
        export_ome_zarr(exported(tmp_path, "rgb"), str(tmp_path / "b.zarr"))
