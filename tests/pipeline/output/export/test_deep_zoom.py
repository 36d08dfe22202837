"""A Deep Zoom image shows what the output shows, at every level, down to one pixel."""

import io
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from tests.pipeline.output.export.sample import COLOURS, ICC, exported, write_output
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.output.export.deep_zoom import OVERLAP, TILE, export_deep_zoom


def opened(file):
    """A tile, read to its end."""
    return Image.open(io.BytesIO(file.read_bytes()))


def joined(folder, level, size, suffix):
    """The picture of a level, of its tiles without their overlap; (y, x, c) or (y, x)."""
    rows = []
    for row in range(-(-size[0] // TILE)):
        tiles = []
        for column in range(-(-size[1] // TILE)):
            file = folder / "image_files" / str(level) / f"{column}_{row}.{suffix}"
            tile = np.asarray(opened(file))
            top, left = OVERLAP * (row > 0), OVERLAP * (column > 0)
            tiles.append(tile[top : top + TILE, left : left + TILE])
        rows.append(np.concatenate(tiles, axis=1))
    return np.concatenate(rows)


@pytest.mark.parametrize("colour", ["grey", "rgb", "rgba", "greya"])
def test_tiles_make_up_every_level(tmp_path, colour):
    alpha = "straight" if colour in ("rgba", "greya") else None
    parts = write_output(tmp_path / "a.zarr", (COLOURS[colour], 1100, 1300))
    image = exported(tmp_path, colour, alpha=alpha, metadata=PhotoMetadata(icc=ICC))
    export_deep_zoom(image, str(tmp_path / "dz"))
    suffix = "png" if alpha else "jpg"
    index = ElementTree.parse(tmp_path / "dz" / "image.dzi").getroot()
    assert index.get("Format") == suffix and int(index.get("TileSize")) == TILE
    assert {**index[0].attrib} == {"Width": "1300", "Height": "1100"}
    levels = sorted(int(path.name) for path in (tmp_path / "dz" / "image_files").iterdir())
    assert levels == list(range(12))  # 2 ** 11 is the first power of two that holds 1300 pixels
    for down, part in enumerate(parts):
        seen = joined(tmp_path / "dz", 11 - down, part.shape[1:], suffix)
        wanted = part[0] if len(part) == 1 else part.transpose(1, 2, 0)
        assert np.abs(seen.astype(int) - wanted).mean() <= (0 if alpha else 8)
    tile = opened(tmp_path / "dz" / "image_files" / "0" / f"0_0.{suffix}")
    assert tile.size == (1, 1) and tile.info["icc_profile"] == ICC


def test_inner_tiles_share_a_pixel_with_their_neighbours(tmp_path):
    write_output(tmp_path / "a.zarr", (1, 600, 1600), levels=1)
    export_deep_zoom(exported(tmp_path, "grey"), str(tmp_path / "dz"))
    sizes = [
        opened(tmp_path / "dz" / "image_files" / "11" / f"{column}_0.jpg").size
        for column in range(4)
    ]
    assert sizes == [(511, 511), (512, 511), (512, 511), (1600 - 3 * 510 + 1, 511)]


@pytest.mark.parametrize(
    ("colour", "dtype", "words"),
    [("grey", np.uint16, "8 bits, not uint16"), ("channels", np.uint8, "3 separate channels")],
)
def test_what_tiles_cannot_hold_is_refused_before_anything_is_written(
    tmp_path, colour, dtype, words
):
    write_output(tmp_path / "a.zarr", (COLOURS[colour], 60, 70), dtype)
    with pytest.raises(Refused, match=words):
        export_deep_zoom(exported(tmp_path, colour), str(tmp_path / "dz"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]
