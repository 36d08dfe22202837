"""Formats that Pillow decodes whole."""

import warnings

import numpy as np
import pytest
from PIL import Image

from tests.pipeline.formats.pictures import check, picture, whole
from tierscale.pipeline.errors import Damaged
from tierscale.pipeline.formats.registry import open_image


@pytest.mark.parametrize("form", ["WEBP", "BMP", "GIF"])
def test_lossless_formats_come_back(tmp_path, form):
    pixels = picture(40, 60)
    image = Image.fromarray(pixels)
    if form == "GIF":
        image = image.quantize(16)
        pixels = np.asarray(image.convert("RGB"))
    image.save(tmp_path / "a", format=form, **({"lossless": True} if form == "WEBP" else {}))
    check(tmp_path / "a", pixels.transpose(2, 0, 1), colour="rgb", random_access=False)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_is_what_pillow_decodes(tmp_path, mode, progressive):
    pixels = picture(70, 50)
    Image.fromarray(pixels).convert(mode).save(tmp_path / "a.jpg", progressive=progressive)
    with Image.open(tmp_path / "a.jpg") as image:
        expected = np.asarray(image.convert("RGB") if mode == "CMYK" else image)
    expected = expected[None] if mode == "L" else expected.transpose(2, 0, 1)
    check(tmp_path / "a.jpg", expected, colour="grey" if mode == "L" else "rgb")


@pytest.mark.parametrize("form", ["jpg", "webp", "gif", "bmp", "avif"])
def test_a_cut_file_is_damaged(tmp_path, form):
    path = tmp_path / f"a.{form}"
    Image.fromarray(picture(80, 90)).save(path)
    good = path.read_bytes()
    for share in (0.3, 0.6, 0.95):
        path.write_bytes(good[: int(len(good) * share)])
        with pytest.raises(Damaged, match=rf"a\.{form}"), open_image(path) as source:
            whole(source)


def test_nothing_here_warns(tmp_path):
    Image.fromarray(picture(9, 9)).save(tmp_path / "a.jpg")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with open_image(tmp_path / "a.jpg") as source:
            whole(source)
    assert not caught
