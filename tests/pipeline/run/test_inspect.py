"""What is seen of a source before it is planned, and whether it is the planned one again."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import tifffile

from tests.pipeline.formats.pictures import picture
from tests.plans import SOURCE, draft_of
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.registry import open_image
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.run.array.upscale import upscale_array
from tierscale.pipeline.run.inspect import describe_source, reopen


@pytest.mark.parametrize(("scale", "said"), [(1, True), (Fraction(3, 2), False)])
def test_a_scale_that_enlarges_nothing_is_told(tmp_path, scale, said):
    tifffile.imwrite(tmp_path / "a.tif", picture(20, 30), photometric="rgb")
    with open_image(tmp_path / "a.tif") as image:
        notes = describe_source(image, Options(scale=Fraction(scale))).notes
    assert any("enlarges nothing" in note for note in notes) is said


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_scale_1_gives_the_pixels_of_the_source(dtype):
    pixels = picture(20, 30, 3, dtype)
    found = upscale_array(pixels, 1, tiers="bicubic")
    np.testing.assert_allclose(found, pixels, rtol=1e-6)
    assert found.dtype == dtype and (dtype == np.float32 or (found == pixels).all())


def test_another_image_of_the_same_file_is_not_taken_for_the_planned_one(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(picture(24, 32), metadata=None, photometric="rgb", subfiletype=1)
        writer.write(picture(96, 128), metadata=None, photometric="rgb")
    with open_image(path) as image:
        source = replace(SOURCE, uri=str(path), identity=dict(image.identity))
    planned = replace(draft_of((96, 128)), source=source)
    assert reopen(planned).uri == str(path)
    with pytest.raises(Refused, match=r"takes another image of the file.*--overwrite"):
        reopen(replace(draft_of((24, 32)), source=source))
