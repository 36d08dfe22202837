"""Plain zarr arrays as sources."""

import base64
import struct

import numpy as np
import pytest
import zarr

from tests.pipeline.formats.pictures import check, picture, whole
from tierscale.pipeline.errors import Damaged, Unreachable
from tierscale.pipeline.formats.georeference import crs_code, geo_transform
from tierscale.pipeline.formats.registry import open_image


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("dtype", ["uint8", ">u2", "float32"])
def test_a_plain_zarr_array_comes_back(tmp_path, version, dtype):
    pixels = picture(50, 70).transpose(2, 0, 1).astype(dtype)
    if version == 3 and dtype == ">u2":
        dtype = "uint16"
    array = zarr.create_array(
        str(tmp_path / "a.zarr"),
        shape=pixels.shape,
        chunks=(3, 16, 16),
        dtype=dtype,
        zarr_format=version,
    )
    array[:] = pixels
    check(
        tmp_path / "a.zarr",
        pixels.astype(np.dtype(dtype).newbyteorder("=")),
        colour="rgb",
        random_access=True,
    )
    part = next(
        path
        for path in sorted((tmp_path / "a.zarr").rglob("*"))
        if path.is_file() and path.stat().st_size > 100 and "." not in path.name[1:2]
    )
    part = (
        part
        if part.name != "zarr.json"
        else next(p for p in sorted((tmp_path / "a.zarr" / "c").rglob("*")) if p.is_file())
    )
    part.write_bytes(part.read_bytes()[:20])
    with pytest.raises(Damaged, match=r"a\.zarr"), open_image(tmp_path / "a.zarr") as source:
        whole(source)


def test_a_zarr_that_goes_away_is_never_black(tmp_path, monkeypatch):
    """Chunks that are missing read as black, as those do that were never written."""
    array = zarr.create_array(str(tmp_path / "a.zarr"), shape=(40, 40), chunks=(8, 8), dtype="u1")
    array[:32] = 7
    with open_image(tmp_path / "a.zarr") as source:
        pixels = source.read(0, 40, 0, 40)
        assert (pixels[:, :32] == 7).all() and not pixels[:, 32:].any()
        whole_read = type(array).__getitem__

        def unmounted(self, at):
            (tmp_path / "a.zarr").rename(tmp_path / "away")
            return whole_read(self, at)

        with monkeypatch.context() as patched:
            patched.setattr(type(array), "__getitem__", unmounted)
            with pytest.raises(Unreachable, match=r"a\.zarr went away while it was read"):
                source.read(0, 40, 0, 40)
        (tmp_path / "away").rename(tmp_path / "a.zarr")
        assert (source.read(0, 32, 0, 40) == 7).all()


@pytest.mark.parametrize("form", [2, 3])
@pytest.mark.parametrize(
    ("said", "nodata"),
    [
        ({"_FillValue": -9999.0}, -9999.0),
        ({"_FillValue": [-9999]}, -9999.0),
        ({"missing_value": 255, "_FillValue": None}, 255.0),
        ({"_FillValue": base64.b64encode(struct.pack("<d", -9999)).decode()}, -9999.0),
        ({"_FillValue": "none"}, None),
        ({}, None),
    ],
)
def test_missing_values_are_what_the_attributes_say(tmp_path, form, said, nodata):
    zarr.create_array(
        tmp_path / "a.zarr",
        shape=(8, 9),
        dtype="f4",
        fill_value=-9999,
        zarr_format=form,
        attributes=said,
    )
    with open_image(tmp_path / "a.zarr") as source:
        assert source.metadata.nodata == nodata


@pytest.mark.parametrize(
    ("names", "axes"),
    [
        (("Y", "X", "Band"), "yxc"),
        (("band", "y", "x"), "cyx"),
        (("wavelength", "lat", "lon"), "cyx"),
        (("rows", "columns", "channel"), "yxc"),
    ],
)
def test_bands_are_channels_by_the_names_of_axes(tmp_path, names, axes):
    pixels = np.random.default_rng(0).integers(0, 255, (12, 20, 30), dtype=np.uint8)
    array = zarr.create_array(
        str(tmp_path / "a.zarr"),
        shape=(12, 20, 30),
        dtype="u1",
        chunks=(12, 20, 30),
        zarr_format=2,
    )
    array[:] = pixels
    array.attrs["_ARRAY_DIMENSIONS"] = list(names)
    with open_image(tmp_path / "a.zarr") as source:
        seen = source.read(0, source.shape[1], 0, source.shape[2])
    np.testing.assert_array_equal(seen, pixels.transpose([axes.index(one) for one in "cyx"]))


def test_the_place_on_the_ground_of_the_conventions_is_read_and_others_are_named(tmp_path):
    array = zarr.create_array(
        str(tmp_path / "a.zarr"), shape=(20, 30), dtype="u1", dimension_names=("y", "x")
    )
    array.attrs["proj:code"] = "EPSG:32632"
    array.attrs["spatial:transform"] = [2.5, 0.0, 500000.0, 0.0, -2.5, 5200000.0]
    with open_image(tmp_path / "a.zarr") as source:
        geo = source.metadata.geo
    assert crs_code(geo) == "EPSG:32632"
    assert geo_transform(geo) == [2.5, 0, 500000, 0, -2.5, 5200000]
    array.attrs["proj:code"] = "IAU:1"
    with open_image(tmp_path / "a.zarr") as source:
        assert source.metadata.geo is None
        assert any("spatial:transform" in note and "not read" in note for note in source.notes)
