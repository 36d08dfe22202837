"""The quality of a JPEG by its tables."""

import io

import numpy as np
import pytest
import skimage.data
from PIL import Image

from tierscale.pipeline.formats.raster.jpeg_quality import jpeg_quality
from tierscale.pipeline.formats.registry import open_image


@pytest.mark.parametrize("quality", [1, 10, 25, 49, 50, 51, 75, 90, 96, 100])
def test_the_quality_that_it_was_written_with_is_found(quality):
    file = io.BytesIO()
    Image.fromarray(skimage.data.coffee()[:64, :64]).save(file, "JPEG", quality=quality)
    found = jpeg_quality(Image.open(file).quantization)
    assert found == pytest.approx(quality, abs=1)


def test_without_tables_there_is_none():
    assert jpeg_quality({}) is None and jpeg_quality({0: [1, 2]}) is None


def test_an_opened_jpeg_says_it_and_others_do_not(tmp_path):
    for name, options in (("a.jpg", {"quality": 40}), ("a.webp", {})):
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / name, **options)
    qualities = []
    for name in ("a.jpg", "a.webp"):
        with open_image(str(tmp_path / name)) as image:
            qualities.append(image.jpeg_quality)
    assert qualities == [40, None]
