"""Other programs open what is written, and see the same pixels, levels, places and names.

Each reader is optional: `make test-interop` installs them (the extra `interop`).
"""

import numpy as np
import pytest
import tifffile
import zarr

from tests.commands import FAST, tierscale
from tests.pipeline.formats.pictures import picture
from tests.pipeline.output.export.sample import COLOURS, GEO, exported, write_output
from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.output import store
from tierscale.pipeline.output.export.tiff import export_cog, export_tiff
from tierscale.pipeline.output.levels import StoreLayout

BANDS = "".join(
    f'<Item name="DESCRIPTION" sample="{band}" role="description">{name}</Item>'
    for band, name in enumerate(("B2", "B3", "B4", "B8", "B11"))
)
KEYS = [1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32632]
MAP = {
    **GEO,
    "GeoKeyDirectory": KEYS,
    "GDAL_METADATA": f"<GDALMetadata>{BANDS}</GDALMetadata>",
}


@pytest.fixture
def photo(tmp_path):
    """A photo of three levels as a TIFF; its path and its levels."""
    parts = write_output(tmp_path / "a.zarr", (3, 1100, 1300))
    export_tiff(exported(tmp_path, "rgb"), str(tmp_path / "a.tif"))
    return str(tmp_path / "a.tif"), parts


def test_rasterio_sees_bands_names_and_no_data(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    parts = write_output(tmp_path / "a.zarr", (5, 530, 700), np.uint16)
    image = exported(tmp_path, "channels", metadata=PhotoMetadata(geo=MAP, nodata=0.0))
    export_tiff(image, str(tmp_path / "a.tif"))
    with rasterio.open(tmp_path / "a.tif") as raster:
        assert raster.descriptions == ("B2", "B3", "B4", "B8", "B11")
        assert (raster.nodata, raster.crs.to_epsg()) == (0, 32632)
        assert tuple(raster.transform)[:6] == (2.5, 0, 100, 0, -2.5, 200)
        assert len(raster.overviews(1)) == 2
        np.testing.assert_array_equal(raster.read(), parts[0])
    with rasterio.open(tmp_path / "a.tif", overview_level=0) as level:
        assert level.nodata == 0
        np.testing.assert_array_equal(level.read(), parts[1])


def test_rasterio_takes_no_fourth_band_for_alpha(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    write_output(tmp_path / "a.zarr", (4, 60, 70))
    colours = ("FF0000", "00FF00", "0000FF", "FFFFFF")
    metadata = PhotoMetadata(geo=GEO, channel_colours=colours)
    export_tiff(exported(tmp_path, "channels", metadata=metadata), str(tmp_path / "a.tif"))
    with rasterio.open(tmp_path / "a.tif") as raster:
        names = [colour.name for colour in raster.colorinterp]
    assert names == ["red", "green", "blue", "undefined"]


def test_openslide_sees_all_levels(photo):
    openslide = pytest.importorskip("openslide")
    path, parts = photo
    with openslide.OpenSlide(path) as slide:
        assert slide.level_dimensions == tuple((part.shape[2], part.shape[1]) for part in parts)
        seen = np.asarray(slide.read_region((0, 0), 1, (650, 550)).convert("RGB"))
    np.testing.assert_array_equal(seen, parts[1].transpose(1, 2, 0))


def test_libvips_sees_the_same_pixels(photo):
    pyvips = pytest.importorskip("pyvips")
    path, parts = photo
    np.testing.assert_array_equal(
        pyvips.Image.new_from_file(path).numpy(), parts[0].transpose(1, 2, 0)
    )


def test_tensorstore_sees_the_same_pixels(tmp_path):
    tensorstore = pytest.importorskip("tensorstore")
    layout = StoreLayout((3, 700, 900), np.dtype("u2"), "rgb", (512, 512))
    store.create(str(tmp_path / "a.zarr"), layout, {})
    pixels = np.random.default_rng(0).integers(0, 65535, (3, 512, 512), np.uint16)
    store.write_shard(str(tmp_path / "a.zarr"), 0, (0, 0), pixels)
    kvstore = {"driver": "file", "path": f"{tmp_path}/a.zarr/0/"}
    array = tensorstore.open({"driver": "zarr3", "kvstore": kvstore}).result()
    assert array.shape == (3, 700, 900)
    np.testing.assert_array_equal(array[:, :512, :512].read().result(), pixels)


def test_gdal_sees_the_mask_of_a_map_and_takes_a_cog_for_one(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    cogeo = pytest.importorskip("rio_cogeo.cogeo")
    parts = write_output(tmp_path / "a.zarr", (4, 1100, 1300))
    place = {name: value for name, value in MAP.items() if not name.startswith("GDAL")}
    metadata = PhotoMetadata(geo=place, masked=True)
    image = exported(tmp_path, "rgba", alpha="straight", metadata=metadata)
    export_tiff(image, str(tmp_path / "a.tif"))
    export_cog(image, str(tmp_path / "cog.tif"))
    assert cogeo.cog_validate(tmp_path / "cog.tif", quiet=True) == (True, [], [])
    for name in ("a.tif", "cog.tif"):
        with rasterio.open(tmp_path / name) as raster:
            assert [flag.name for flag in raster.mask_flag_enums[0]] == ["per_dataset"]
            assert raster.overviews(1) == [2, 4]
            np.testing.assert_array_equal(raster.read(), parts[0][:3])
            np.testing.assert_array_equal(raster.read_masks(1) > 0, parts[0][3] > 127)
        with rasterio.open(tmp_path / name, overview_level=0) as level:
            np.testing.assert_array_equal(level.read_masks(1) > 0, parts[1][3] > 127)


@pytest.mark.parametrize("compression", ["deflate", "zstd", "lzw", "none"])
@pytest.mark.parametrize(
    ("colour", "dtype"), [("channels", np.uint16), ("grey", np.float32), ("rgb", np.uint8)]
)
def test_rio_cogeo_calls_a_cog_valid(tmp_path, colour, dtype, compression):
    rasterio = pytest.importorskip("rasterio")
    cogeo = pytest.importorskip("rio_cogeo.cogeo")
    parts = write_output(tmp_path / "a.zarr", (COLOURS[colour], 700, 1300), dtype)
    image = exported(tmp_path, colour, metadata=PhotoMetadata(geo=GEO, nodata=0.0))
    export_cog(image, str(tmp_path / "a.tif"), compression=compression)
    assert cogeo.cog_validate(tmp_path / "a.tif", quiet=True) == (True, [], [])
    with rasterio.open(tmp_path / "a.tif") as raster:
        np.testing.assert_array_equal(raster.read(), parts[0])


def test_ome_zarr_py_sees_the_picture_and_its_tiers(tmp_path, capsys):
    io = pytest.importorskip("ome_zarr.io")
    reader = pytest.importorskip("ome_zarr.reader")
    tifffile.imwrite(tmp_path / "a.tif", picture(70, 150, 3), photometric="rgb")
    output = tmp_path / "a.zarr"
    assert tierscale(capsys, "upscale", tmp_path / "a.tif", output, *FAST, "--tile", "32")[0] == 0
    older = tmp_path / "b.zarr"
    assert tierscale(capsys, "export", output, older, "--ome-zarr", "0.4")[0] == 0
    wanted = zarr.open_array(f"{output}/0", mode="r")[:]
    for path in (output, older):
        picture_of, *labels = reader.Reader(io.parse_url(str(path)))()
        np.testing.assert_array_equal(np.asarray(picture_of.data[0]), wanted)
        assert picture_of.metadata["axes"][0]["name"] == "c"
        assert path == older or [node.data[0].shape for node in labels[-1:]] == [(1, 3, 5)]
    *_, tiers = reader.Reader(io.parse_url(str(output)))()
    assert tiers.metadata["properties"] == {1: {"tier": "bicubic"}}
