"""Every picture is upright."""

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from tests.pipeline.formats.pictures import LAYOUTS, check, picture, whole
from tierscale.pipeline.formats.registry import open_image


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["tiles", "strips", "flat", "png", "jpeg"])
def test_every_orientation_is_shown_as_pillow_shows_it(tmp_path, orientation, form):
    pixels = picture(50, 70)
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"a.{form if form in ('png', 'jpeg') else 'tif'}"
    if form in ("png", "jpeg"):
        Image.fromarray(pixels).save(path, exif=exif)
    else:
        tags = [(274, "H", 1, orientation, True)]
        tifffile.imwrite(
            path,
            pixels,
            photometric="rgb",
            extratags=tags,
            resolution=(100, 200),
            metadata=None,
            **LAYOUTS[form],
        )
    with Image.open(path) as image:
        shown = ImageOps.exif_transpose(
            image.convert("RGB") if form not in ("png", "jpeg") else image
        )
    if form not in ("png", "jpeg"):
        plain = Image.fromarray(pixels)
        plain.getexif()[274] = orientation
        shown = ImageOps.exif_transpose(plain)
    expected = np.asarray(shown).transpose(2, 0, 1)
    check(path, expected, colour="rgb")
    with open_image(path) as source:
        assert any("upright" in note for note in source.notes) == (orientation > 1)
        if form == "tiles":
            assert source.metadata.resolution == ((200, 100) if orientation >= 5 else (100, 200))


def test_a_mirrored_picture_is_not_held_whole(tmp_path):
    exif = Image.Exif()
    for orientation, held in ((2, False), (3, True)):
        exif[274] = orientation
        Image.fromarray(picture(50, 70)).save(tmp_path / "a.png", exif=exif)
        with open_image(tmp_path / "a.png") as source:
            whole(source)
            source.read(0, 9, 0, 9)
            assert (source.pixels.whole is not None) == held  # type: ignore[attr-defined]
