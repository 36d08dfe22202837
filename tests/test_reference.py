"""The floor of bicubic on the evaluation images, as it was measured for the reference data."""

import os
from fractions import Fraction
from pathlib import Path

import pytest

from tierscale.models.contract.metrics import psnr
from tierscale.models.contract.upscaler import Placement
from tierscale.models.runtime.bicubic import Bicubic
from tierscale.models.train.photos import centre_crop, image_files, read_image
from tierscale.models.train.shrink import shrink

SHARED = Path(os.environ.get("TIERSCALE_SHARED", Path(__file__).parents[2] / "shared"))
EVAL = SHARED / "data" / "eval"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.skipif(
    not EVAL.is_dir(), reason=f"no evaluation images at {EVAL}; set TIERSCALE_SHARED"
)
@pytest.mark.parametrize(
    ("folder", "grey", "floor"), [("Set14", {"img_003"}, 24.58), ("Urban100", set(), 21.56)]
)
def test_the_floor_of_bicubic_is_the_measured_one(
    folder: str, grey: set[str], floor: float
) -> None:
    found = []
    for path in image_files(EVAL / folder):
        if path.stem in grey:
            continue
        hr = centre_crop(read_image(path), 4) / 255
        lr = shrink(hr, 4)
        made = Bicubic()(
            lr[None], Placement.whole((lr.shape[-2], lr.shape[-1]), Fraction(4))
        ).pixels[0]
        found.append(psnr(made, hr, 4))
    assert sum(found) / len(found) == pytest.approx(floor, abs=0.01)
