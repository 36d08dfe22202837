"""Formats that are decoded whole, and plain rows of numbers."""

import warnings

import numpy as np
import pytest
from PIL import Image

from tests.pipeline.formats.pictures import check, picture, whole
from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.formats.registry import open_image
from tierscale.pipeline.plan.options import Selection


@pytest.mark.parametrize("form", ["WEBP", "BMP", "GIF"])
def test_lossless_formats_come_back(tmp_path, form):
    pixels = picture(40, 60)
    image = Image.fromarray(pixels)
    if form == "GIF":
        image = image.quantize(16)
        pixels = np.asarray(image.convert("RGB"))
    image.save(tmp_path / "a", format=form, **({"lossless": True} if form == "WEBP" else {}))
    check(tmp_path / "a", pixels.transpose(2, 0, 1), colour="rgb", random_access=False)


def test_a_gif_is_refused_by_what_a_frame_announces_before_it_is_opened(tmp_path, monkeypatch):
    frames = [Image.fromarray(np.full((9, 7), value, np.uint8)) for value in (0, 90, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], disposal=2)
    with open_image(tmp_path / "a.gif") as source:
        assert source.shape[1:] == (9, 7)
    content = bytearray((tmp_path / "a.gif").read_bytes())
    last = content.rindex(b"\x2c\0\0\0\0\x07\0\x09\0")
    content[last + 5 : last + 9] = (
        b"\xff" * 4
    )  # its third frame alone would be a background of 4 GiB
    (tmp_path / "large.gif").write_bytes(content)
    with open_image(tmp_path / "large.gif", Selection(series=1), max_bytes=1 << 30) as source:
        assert source.shape[1:] == (9, 7), "frames behind the selected one are not looked at"
    # An empty extension, behind which Pillow reads one block too many and finds another frame than
    # the file has.
    (tmp_path / "hidden.gif").write_bytes(
        content[:6] + b"\1\0\1\0\0\0\0" + b"\x21\xf9\0" + b"\x2c" + b"\0" * 4 + b"\1\0\1\0\0\2\0;"
    )
    monkeypatch.setattr(Image, "open", lambda *arguments, **options: pytest.fail("opened"))
    with pytest.raises(Refused, match=r"large\.gif.*--max-memory 34358689800 "):
        open_image(tmp_path / "large.gif", Selection(series=2), max_bytes=1 << 30)
    with pytest.raises(Damaged, match=r"hidden\.gif.*empty"):
        open_image(tmp_path / "hidden.gif")


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


@pytest.mark.parametrize(("top", "bits"), [(255, None), (4095, 12), (65535, None)])
def test_pnm_values_stay_as_they_are(tmp_path, top, bits):
    for samples in (1, 3):
        pixels = (
            np.random.default_rng(0)
            .integers(0, top + 1, (11, 13, samples))
            .astype(np.uint8 if top == 255 else np.uint16)
        )
        head = f"P{5 if samples == 1 else 6}\n# made here\n13 11\n{top}\n".encode()
        (tmp_path / "a.pnm").write_bytes(
            head + pixels.astype(">u2" if top > 255 else "u1").tobytes()
        )
        check(tmp_path / "a.pnm", pixels.transpose(2, 0, 1), bits=bits, random_access=True)
    (tmp_path / "a.pnm").write_bytes(head + b"\0" * 10)
    with pytest.raises(Damaged, match="cut short"):
        open_image(tmp_path / "a.pnm")


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["u1", ">u2", "<f4", ">f8"])
@pytest.mark.parametrize("axes", ["yx", "yxc", "cyx"])
def test_npy_of_any_order_comes_back(tmp_path, order, dtype, axes):
    shape = {"yx": (20, 30), "yxc": (20, 30, 3), "cyx": (3, 20, 30)}[axes]
    array = np.asarray(np.random.default_rng(0).integers(0, 200, shape), dtype=dtype, order=order)
    np.save(tmp_path / "a.npy", array)
    expected = array[None] if axes == "yx" else array.transpose(2, 0, 1) if axes == "yxc" else array
    kept = {"f": np.float32, "u": np.dtype(dtype).newbyteorder("=")}[np.dtype(dtype).kind]
    check(
        tmp_path / "a.npy",
        expected.astype(kept),
        colour="grey" if axes == "yx" else "rgb",
        random_access=True,
    )


def test_nothing_here_warns(tmp_path):
    Image.fromarray(picture(9, 9)).save(tmp_path / "a.jpg")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with open_image(tmp_path / "a.jpg") as source:
            whole(source)
    assert not caught
