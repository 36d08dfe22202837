"""One shard: flat ends of the range, alpha, pixels without data."""

from fractions import Fraction

import numpy as np
import pytest
import tifffile
import torch
import zarr

from tests.fakes import Smear
from tierscale.jobs.cli.main import main
from tierscale.models.contract.upscaler import Placement
from tierscale.models.runtime.bicubic import Bicubic
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.policies import Full
from tierscale.pipeline.run.array import enlarge_array, upscale_array


def noise(*shape):
    return np.random.default_rng(0).integers(1, 255, shape).astype(np.uint8)


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 4095), (np.float32, 1.5)])
def test_flat_black_and_white_come_out_exactly(smear, dtype, top):
    smear["smear"] = Smear(offset=0.01)
    image = (noise(1, 96, 96) / 255 * top * 0.8 + 0.1 * top).astype(dtype)
    image[:, 20:50, 20:50], image[:, 60:90, 60:90] = 0, top
    out = upscale_array(image, 4, tiers=["smear"], policy="full", tile=32)
    assert (out[:, 4 * 22 : 4 * 48, 4 * 22 : 4 * 48] == 0).all()
    assert (out[:, 4 * 62 : 4 * 88, 4 * 62 : 4 * 88] == dtype(top)).all()
    flat = upscale_array(
        np.full((1, 40, 40), top, dtype), 4, tiers=["smear"], policy="full", tile=32
    )
    assert (flat == dtype(top)).all()


def test_alpha_is_bicubic_and_tiles_leave_no_mark_in_it(smear):
    image = noise(4, 100, 90)
    out = upscale_array(image, 4, tiers=["smear"], policy="full", tile=32)
    window = torch.from_numpy(image[None, 3:].astype(np.float32) / 255)
    wanted = Bicubic()(window, Placement.whole((100, 90), Fraction(4))).pixels[0, 0].numpy()
    wanted = np.clip(np.rint(wanted * 255), 0, 255)
    assert np.abs(out[3] - wanted).max() <= 1


def cut_out(colour, hidden, dtype=np.uint8, premultiplied=False):
    """A disc (4, 70, 70) with a soft rim on clear ground that hides other colours."""
    y, x = np.mgrid[:70, :70]
    alpha = np.clip(22.5 - np.hypot(y - 35, x - 35), 0, 1)
    rgb = np.where(alpha > 0, colour * (alpha if premultiplied else 1), hidden)
    top = np.iinfo(dtype).max
    return np.rint(np.stack([rgb, rgb, rgb, alpha]) * top).astype(dtype)


def over(out, ground):
    """Colours (3, y, x) as they are seen over a grey ground, 0..1."""
    unit = out / np.iinfo(out.dtype).max
    return unit[:3] * unit[3] + ground * (1 - unit[3])


def enlarged(image, tier="bicubic"):
    """The image (4, y, x), whose alpha is straight, by one tier."""
    return upscale_array(image, 4, tiers=[tier], policy="full", tile=32)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("tier", ["bicubic", "fsrcnn-x4"])
def test_colours_that_alpha_hides_do_not_bleed_into_the_rim(tier, dtype):
    for colour in (1.0, 0.0):
        out = enlarged(cut_out(colour, 1 - colour, dtype), tier)
        seen = over(out, colour)
        assert np.abs(seen - colour).max() <= 5 / 255


def test_premultiplied_colours_get_no_dark_rim(tmp_path):
    image = cut_out(1.0, 0.0, premultiplied=True).transpose(1, 2, 0)
    tifffile.imwrite(
        tmp_path / "a.tif", image, photometric="rgb", extrasamples=["assocalpha"], tile=(32, 32)
    )
    options = ("--tiers", "bicubic,fsrcnn-x4", "--policy", "full", "--tile", "32", "--ray", "none")
    with pytest.raises(SystemExit) as ended:
        main(["upscale", str(tmp_path / "a.tif"), str(tmp_path / "out.zarr"), *options])
    assert ended.value.code == 0
    unit = zarr.open_array(tmp_path / "out.zarr/0", mode="r")[:] / 255
    assert (unit[:3] + 1 - unit[3]).min() >= 250 / 255


@pytest.mark.parametrize("tier", ["bicubic", "smear"])
def test_nothing_visible_depends_on_what_is_hidden(smear, tier):
    """Whatever the tier; and what lies deep below stays as it was."""
    images = [cut_out(0.7, hidden) for hidden in (0.0, 0.2, 1.0)]
    outs = [enlarged(image, tier) for image in images]
    visible = outs[0][3] > 0
    for image, out in zip(images, outs, strict=True):
        assert (out[:, visible] == outs[0][:, visible]).all() and (out[3] == outs[0][3]).all()
        assert (out[:3, :16, :16] == image[:3, :4, :4].repeat(4, 1).repeat(4, 2)).all()


def test_pixels_without_data_stay_without_and_spoil_nothing(smear):
    image = noise(1, 80, 80).astype(np.float32)
    holed = image.copy()
    holed[:, 30:40, 30:40] = -9999
    options = Options(tiers=("smear",), policy=Full(), tile=32, nodata=-9999)
    out = enlarge_array(holed, options).pixels
    assert (out[:, 120:160, 120:160] == -9999).all()
    assert out[:, :100].min() > -50 and (out == -9999).sum() == 1600
