"""One shard: flat ends of the range, alpha, pixels without data."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from tests.fakes import Smear
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


def test_pixels_without_data_stay_without_and_spoil_nothing(smear):
    image = noise(1, 80, 80).astype(np.float32)
    holed = image.copy()
    holed[:, 30:40, 30:40] = -9999
    options = Options(tiers=("smear",), policy=Full(), tile=32, nodata=-9999)
    out = enlarge_array(holed, options).pixels
    assert (out[:, 120:160, 120:160] == -9999).all()
    assert out[:, :100].min() > -50 and (out == -9999).sum() == 1600
