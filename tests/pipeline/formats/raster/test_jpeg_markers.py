"""Damage that decoders of JPEG hide is told, sound files are not, and foreign kinds are refused."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.pipeline.formats.pictures import picture
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.raster.jpeg_markers import check_jpeg, first_symbols, units
from tierscale.pipeline.formats.registry import open_image

PHOTO = picture(300, 400)
# A flat picture with optimised tables is rightly coded by zeros.
PICTURES = {"photo": PHOTO, "grey": PHOTO[..., 0], "flat": np.full((600, 800, 3), 255, np.uint8)}
KINDS = {
    "plain": {},
    "progressive": {"progressive": True},
    "optimised": {"optimize": True},
    "restarts": {"restart_marker_rows": 1},
    "many restarts": {"restart_marker_blocks": 3, "subsampling": 0},
    "progressive, restarts": {"progressive": True, "restart_marker_rows": 2},
}


def written(pixels, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", **{"quality": 85, **options})
    return bytearray(file.getvalue())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("quality", [30, 95])
@pytest.mark.parametrize("name", PICTURES)
def test_sound_files_are_sound(name, kind, quality):
    assert check_jpeg(bytes(written(PICTURES[name], quality=quality, **KINDS[kind])), "a.jpg") == []


@pytest.mark.parametrize("kind", ["plain", "restarts", "many restarts", "progressive"])
def test_zeroed_bytes_are_told(tmp_path, kind):
    data = written(PHOTO, **KINDS[kind])
    middle = len(data) // 2
    data[middle : middle + 500] = bytes(500)
    (tmp_path / "a.jpg").write_bytes(data)
    with open_image(tmp_path / "a.jpg") as source:
        (note,) = source.notes
    assert "a part of the picture is wrong, fetch the file again" in note
    if kind == "plain":
        assert f"500 zeros from byte {middle} on" in note or "501 zeros" in note


@pytest.mark.parametrize("change", ["lost", "order"])
def test_restart_markers_are_counted(change):
    data = bytes(written(PHOTO, restart_marker_rows=1))
    first = data.index(b"\xff\xd1")
    broken = data[:first] + (b"" if change == "lost" else b"\xff\xd5") + data[first + 2 :]
    (note,) = check_jpeg(broken, "a.jpg")
    assert "restart markers" in note


def test_kinds_that_no_decoder_here_knows_are_refused_by_name(tmp_path):
    data = written(PHOTO)
    frame = data.index(b"\xff\xc0")
    for marker, bits, words in (
        (0xC1, 12, "JPEG of 12 bits"),
        (0xC3, 8, "lossless JPEG"),
        (0xC3, 16, "lossless JPEG"),
        (0xC5, 8, "hierarchical JPEG"),
    ):
        data[frame + 1], data[frame + 4] = marker, bits
        (tmp_path / "a.jpg").write_bytes(data)
        with pytest.raises(Refused, match=words) as raised:
            open_image(tmp_path / "a.jpg")
        assert "damaged" not in str(raised.value) and "fetch" not in str(raised.value)


def test_units_and_tables_by_hand():
    # 100 rows, 200 columns, colours shared by 2 x 2 pixels: units of 16 x 16.
    assert units(bytes((8, 0, 100, 0, 200, 3, 1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1))) == 7 * 13
    assert units(bytes((8, 0, 100, 0, 200, 1, 1, 0x22, 0))) == 13 * 25
    direct = bytes((0x00, 1, *(0,) * 15, 7))
    alternating = bytes((0x11, 0, 2, *(0,) * 14, 3, 4))
    assert list(first_symbols(direct + alternating)) == [(1, 3)]


@pytest.mark.parametrize("length", [2, 3, 20, 300, 700])
def test_a_file_that_is_cut_is_left_to_the_decoder(length):
    assert check_jpeg(bytes(written(PHOTO)[:length]), "a.jpg") == []
