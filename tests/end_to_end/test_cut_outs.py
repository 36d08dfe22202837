"""A cut-out is enlarged without a rim in the colour of what nobody sees, whatever the file."""

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from tests.pipeline.formats.pictures import write_png
from tierscale.jobs.cli.main import main
from tierscale.pipeline.formats.png.stream import chunk

HIGH, WIDE = 24, 32
Y, X = np.mgrid[:HIGH, :WIDE]
SEEN = (X - 16) ** 2 + (Y - 12) ** 2 < 81
MAGENTA = (255, 0, 255)


def disc(seen, hidden):
    """A disc of one colour, (y, x, 4); outside it is clear, in another one."""
    colours = np.where(SEEN[..., None], seen, hidden).astype(np.uint8)
    return np.concatenate([colours, 255 * SEEN[..., None].astype(np.uint8)], axis=-1)


def write(path, form, seen, hidden):
    """The disc in a file of a form."""
    pixels = disc(seen, hidden)
    if form == "tif":
        tifffile.imwrite(path, pixels, photometric="rgb", extrasamples=["unassalpha"])
    elif form == "premultiplied":
        pixels[..., :3] *= SEEN[..., None]
        tifffile.imwrite(path, pixels, photometric="rgb", extrasamples=["assocalpha"])
    elif form == "webp":
        Image.fromarray(pixels).save(path, "WEBP", lossless=True, exact=True)
    elif form == "key":
        key = chunk(b"tRNS", np.array(hidden, ">u2").tobytes())
        write_png(path, pixels[..., :3].astype(np.uint16), 2, 8, False, key)
    elif form == "palette":
        entries = chunk(b"PLTE", bytes((*seen, *hidden))) + chunk(b"tRNS", bytes((255, 0)))
        write_png(path, (~SEEN[..., None]).astype(np.uint16), 3, 1, False, entries)
    elif form == "grey key":
        key = chunk(b"tRNS", np.array(hidden[:1], ">u2").tobytes())
        write_png(path, pixels[..., :1].astype(np.uint16), 0, 8, False, key)
    else:
        Image.fromarray(pixels).save(path, "PNG")


FORMS = ["png", "tif", "premultiplied", "webp", "key", "palette", "grey key"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("seen", "hidden"), [((255,) * 3, (0,) * 3), ((255,) * 3, MAGENTA), ((0,) * 3, (255,) * 3)]
)
def test_a_disc_has_no_rim(tmp_path, form, seen, hidden):
    if form == "grey key" and hidden == MAGENTA:
        hidden = (90,) * 3
    source = tmp_path / "a.bin"
    write(source, form, seen, hidden)
    with pytest.raises(SystemExit) as ended:
        main(["upscale", str(source), str(tmp_path / "a.zarr"), "--tiers", "bicubic", "--ray",
              "none"])  # fmt: skip
    assert not ended.value.code
    out = zarr.open_group(str(tmp_path / "a.zarr"), mode="r")["0"][:].astype(float)
    alpha = out[-1:] / 255
    colours = out[:-1] if form == "premultiplied" else out[:-1] * alpha
    laid = colours + seen[0] * (1 - alpha)
    assert np.abs(laid - seen[0]).max() <= 5
    assert alpha.max() == 1 and alpha.min() == 0 and ((alpha > 0) & (alpha < 1)).any()
