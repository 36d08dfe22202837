"""What cards say of quality is what `tierscale evaluate` finds."""

from fractions import Fraction
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

from tierscale.jobs.evaluate import evaluate_folder
from tierscale.models import registry
from tierscale.models.train import measure
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.policies import Full


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "Set14"
    folder.mkdir()
    coffee = Image.fromarray(skimage.data.coffee()[100:197, 100:230])
    coffee.save(folder / "a.png")
    coffee.rotate(90, expand=True).quantize(64).save(folder / "b.png")
    for name in ("c", "img_003"):
        coffee.convert("L").save(folder / f"{name}.png")
    return folder


def test_a_card_counts_what_evaluate_counts(photos: Path) -> None:
    found = measure.quality(registry.load("fsrcnn-x4"), photos, 4)
    mean = evaluate_folder(str(photos), Options(tiers=("fsrcnn-x4",), policy=Full()))["mean"]
    assert (found["coloured"].psnr, found["coloured"].ssim) == pytest.approx(
        (mean["psnr"], mean["ssim"]), abs=1e-3
    )
    assert found["papers"].psnr != pytest.approx(mean["psnr"], abs=1e-2)
    assert found["coloured"].cost == registry.load("fsrcnn-x4").cost(Fraction(4))


def test_the_grey_image_of_the_set_is_counted_by_nobody(photos: Path) -> None:
    before = measure.quality(registry.load("bicubic"), photos, 4)
    (photos / "img_003.png").unlink()
    assert measure.quality(registry.load("bicubic"), photos, 4) == before
