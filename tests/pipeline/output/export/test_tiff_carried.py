"""What is known of a picture comes back from a TIFF and from a PNG as it went in."""

import dataclasses

import numpy as np
import pytest
import tifffile

from tests.pipeline.output.export.sample import GEO, METADATA, exported, write_output
from tierscale.pipeline.formats.blocks.directories import Entry, directory_bytes
from tierscale.pipeline.formats.blocks.exif import block_directories, exif_facts
from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.formats.profile import srgb
from tierscale.pipeline.formats.registry import open_image
from tierscale.pipeline.output.export.png import export_png
from tierscale.pipeline.output.export.tiff import export_tiff

IPTC = b"\x1c\x02\x19\x00\x0cshelfmark 12"
TEXT = "© 2020 Museum Köln, Zoë Ångström, 日本".encode()


def text_block():
    """An EXIF block with text in UTF-8 in tags of plain text, and Windows' title in UTF-16."""
    tags = {tag: Entry(2, len(TEXT) + 1, TEXT + b"\0") for tag in (269, 270, 315, 316, 33432)}
    title = "Brücke\0".encode("utf-16-le")
    block = directory_bytes({**tags, 40091: Entry(1, len(title), title)}, 8)
    return exif_facts(b"II*\0\x08\0\0\0" + block).block


def written(tmp_path, form, metadata):
    """The metadata that a small picture is read with after it was exported."""
    write_output(tmp_path / "a.zarr", (3, 30, 40))
    image, out = exported(tmp_path, "rgb", metadata=metadata), str(tmp_path / f"a.{form}")
    if form == "tif":
        export_tiff(image, out)
    else:
        export_png(image, out, max_bytes=1 << 20)
    with open_image(out) as source:
        assert source.notes == ()
        return source.metadata


@pytest.mark.parametrize("form", ["tif", "png"])
def test_everything_comes_back(tmp_path, form):
    metadata = dataclasses.replace(METADATA, iptc=IPTC, exif=text_block())
    found = written(tmp_path, form, metadata)
    for name in ("icc", "xmp", "iptc"):
        assert getattr(found, name) == getattr(metadata, name), name
    first, _ = block_directories(found.exif)
    expected, _ = block_directories(metadata.exif)
    # The software of a TIFF is tierscale now.
    assert {tag: first[tag] for tag in expected} == expected


@pytest.mark.parametrize("form", ["tif", "png"])
@pytest.mark.parametrize("ratio", [(2.0, 1.0), (0.25, 0.5)])
def test_oblong_pixels_stay_oblong_without_a_unit(tmp_path, form, ratio):
    found = written(tmp_path, form, PhotoMetadata(resolution=ratio).scaled(4))
    assert found.resolution_unit is None
    assert found.resolution[0] / found.resolution[1] == ratio[0] / ratio[1]


def test_a_place_on_the_ground_comes_back(tmp_path):
    rpc = [float(value) for value in range(92)]
    names = '<GDALMetadata><Item name="UNITTYPE" sample="0">°C</Item></GDALMetadata>'
    geo = {**GEO, "RPCCoefficient": rpc, "GDAL_METADATA": names, "GeoAsciiParams": "Köln|"}
    assert written(tmp_path, "tif", PhotoMetadata(geo=geo, nodata=0.0)).geo == geo
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.pages.first.tags[42112].value == names


def test_exif_comes_back_from_a_big_tiff(tmp_path, monkeypatch):
    monkeypatch.setattr("tierscale.pipeline.output.export.tiff.CLASSIC_BYTES", 0)
    found = written(tmp_path, "tif", METADATA)
    kept, expected = (block_directories(block) for block in (found.exif, METADATA.exif))
    assert kept[1] == expected[1]
    assert np.all([kept[0][tag] == expected[0][tag] for tag in (270, 271)])


def test_a_caption_stays_where_channels_are_pages(tmp_path):
    write_output(tmp_path / "a.zarr", (3, 30, 40), np.uint16)
    image = exported(tmp_path, "channels", metadata=PhotoMetadata(exif=text_block()))
    export_tiff(image, str(tmp_path / "a.tif"))
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.is_ome and f"<Description>{TEXT.decode()}</Description>" in tif.ome_metadata


def test_that_colours_are_srgb_is_said_again(tmp_path):
    assert written(tmp_path, "png", PhotoMetadata(srgb=True)).srgb
    assert written(tmp_path, "tif", PhotoMetadata(srgb=True)).icc == srgb()
    assert written(tmp_path, "tif", PhotoMetadata()).icc is None
