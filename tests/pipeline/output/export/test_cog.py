"""A COG holds what the TIFF holds: directories first, and small levels before large ones."""

import itertools

import numpy as np
import pytest
import tifffile

from tests.pipeline.output.export.sample import GEO, METADATA, exported, stored, write_output
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.formats.registry import open_image
from tierscale.pipeline.output.export import tiff
from tierscale.pipeline.output.export.tiff import export_cog


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    ("channels", "colour", "dtype"),
    [(3, "rgb", np.uint8), (5, "channels", np.uint16), (1, "grey", np.float32)],
)
def test_directories_lie_before_pixels_and_small_levels_before_large_ones(
    tmp_path, monkeypatch, channels, colour, dtype, big
):
    if big:
        monkeypatch.setattr(tiff, "CLASSIC_BYTES", 0)
    parts = write_output(tmp_path / "a.zarr", (channels, 1100, 1300), dtype)
    metadata = PhotoMetadata(geo=GEO, nodata=0.0)
    export_cog(exported(tmp_path, colour, metadata=metadata), str(tmp_path / "a.tif"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "a.zarr"]
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.is_bigtiff == big
        pages = list(tif.pages)
        offsets = [page.offset for page in pages]
        data = [(min(page.dataoffsets), max(page.dataoffsets)) for page in pages]
        assert offsets == sorted(offsets) and offsets[0] in (8, 16)
        assert offsets[-1] < data[-1][0]
        for larger, smaller in itertools.pairwise(data):
            assert smaller[1] < larger[0]
        for page, part in zip(pages, parts, strict=True):
            planes = "channels" if colour == "channels" else colour
            np.testing.assert_array_equal(page.asarray(), stored(part, planes))
    with open_image(tmp_path / "a.tif") as source:
        assert source.metadata.geo["ModelPixelScale"] == GEO["ModelPixelScale"]
        np.testing.assert_array_equal(source.read(0, 1100, 0, 1300), parts[0])


def test_what_a_photo_says_stays_in_a_cog(tmp_path):
    write_output(tmp_path / "a.zarr", (3, 600, 700))
    export_cog(exported(tmp_path, "rgb", metadata=METADATA), str(tmp_path / "a.tif"))
    with open_image(tmp_path / "a.tif") as source:
        assert source.metadata.exif is not None and b"maker" in source.metadata.exif
        assert (source.metadata.icc, source.metadata.xmp) == (METADATA.icc, METADATA.xmp)


def test_a_compression_that_cannot_hold_it_leaves_nothing(tmp_path):
    write_output(tmp_path / "a.zarr", (1, 60, 70), np.uint16)
    with pytest.raises(Refused, match="JPEG holds 8-bit"):
        export_cog(exported(tmp_path, "grey"), str(tmp_path / "a.tif"), compression="jpeg")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]
