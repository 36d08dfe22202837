"""The floor of bicubic on the evaluation images, as it was measured for the reference data."""

from fractions import Fraction
from pathlib import Path

import pytest

from tierscale.models.contract.metrics import psnr
from tierscale.models.contract.upscaler import Placement
from tierscale.models.runtime.bicubic import Bicubic
from tierscale.models.train.data.photos import centre_crop, image_files, read_image
from tierscale.models.train.data.shrink import shrink

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("folder", "grey", "floor"),
    [
        ("Set14", {"img_003"}, 24.58),
        pytest.param("Urban100", set(), 21.56, marks=pytest.mark.slow),
    ],
)
def test_the_floor_of_bicubic_is_the_measured_one(
    folder: str, grey: set[str], floor: float, shared: Path
) -> None:
    found = []
    for path in image_files(shared / "data" / "eval" / folder):
        if path.stem in grey:
            continue
        hr = centre_crop(read_image(path), 4) / 255
        lr = shrink(hr, 4)
        made = Bicubic()(
            lr[None], Placement.whole((lr.shape[-2], lr.shape[-1]), Fraction(4))
        ).pixels[0]
        found.append(psnr(made, hr, 4))
    assert sum(found) / len(found) == pytest.approx(floor, abs=0.01)
