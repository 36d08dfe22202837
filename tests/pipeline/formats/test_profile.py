"""Colours that a file states otherwise than by ICC reach the output as a profile."""

import io
import struct
import time

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from tests.pipeline.formats.pictures import picture, write_png
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.png.stream import chunk
from tierscale.pipeline.formats.profile import adobe_rgb, profile, srgb
from tierscale.pipeline.formats.registry import open_image

ADOBE = (0.3127, 0.329, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)


def points(*numbers):
    return chunk(b"cHRM", struct.pack(">8I", *(round(100000 * number) for number in numbers)))


def gamma(value):
    return chunk(b"gAMA", struct.pack(">I", round(100000 * value)))


def png_profile(path, *chunks, grey=False):
    """The profile that a small PNG with these chunks is read with, and the notes."""
    write_png(path, picture(5, 6, 1 if grey else 3), 0 if grey else 2, 8, False, b"".join(chunks))
    with open_image(path) as source:
        return source.metadata.icc, source.notes


def middle(icc, mode="RGB"):
    """What a value of 128 is in sRGB by a profile."""
    grey = Image.new(mode, (1, 1), (128,) * 3 if mode == "RGB" else 128)
    made = ImageCms.profileToProfile(
        grey, io.BytesIO(icc), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    return made.getpixel((0, 0))[1]


def primaries(icc):
    read = ImageCms.ImageCmsProfile(io.BytesIO(icc)).profile
    return np.array([read.red_primary[1], read.green_primary[1], read.blue_primary[1]])


@pytest.mark.parametrize("grey", [False, True])
def test_a_png_that_states_linear_light_is_not_taken_for_srgb(tmp_path, grey):
    icc, _ = png_profile(tmp_path / "a.png", gamma(1.0), grey=grey)
    assert abs(middle(icc, "L" if grey else "RGB") - 188) <= 2


def test_a_png_keeps_the_primaries_that_it_states(tmp_path):
    icc, _ = png_profile(tmp_path / "a.png", gamma(1 / 2.2), points(*ADOBE))
    np.testing.assert_allclose(primaries(icc), primaries(adobe_rgb()), atol=0.001)
    srgb = profile(2.2)
    assert np.abs(primaries(icc) - primaries(srgb)).max() > 0.02


@pytest.mark.parametrize(
    "chunks",
    [
        (chunk(b"sRGB", b"\0"), gamma(0.45455), points(*ADOBE)),
        (gamma(0),),
        (points(*(0.0,) * 8),),
        (chunk(b"cICP", bytes((1, 13, 0, 1))),),
        (),
    ],
)
def test_what_is_srgb_or_says_nothing_gets_no_profile(tmp_path, chunks):
    assert png_profile(tmp_path / "a.png", *chunks)[0] is None


def test_display_p3_by_code_points_becomes_its_profile(tmp_path):
    icc, _ = png_profile(tmp_path / "a.png", chunk(b"cICP", bytes((12, 13, 0, 1))), gamma(1.0))
    assert abs(middle(icc) - 128) <= 1
    assert np.abs(primaries(icc) - primaries(profile(2.2))).max() > 0.02


@pytest.mark.parametrize("code", [(9, 16, 0, 1), (9, 18, 0, 1), (22, 13, 0, 1)])
def test_code_points_that_nothing_carries_are_refused(tmp_path, code):
    with pytest.raises(Refused, match=f"primaries {code[0]} and the transfer {code[1]}"):
        png_profile(tmp_path / "a.png", chunk(b"cICP", bytes(code)))


def test_significant_bits_that_are_lost_are_named(tmp_path):
    _, notes = png_profile(tmp_path / "a.png", chunk(b"sBIT", bytes((5, 6, 5))))
    assert any("5, 6, 5 significant bits" in note for note in notes)


@pytest.mark.parametrize(("index", "space"), [("R03", 65535), (None, 2)])
@pytest.mark.parametrize("known", [True, False])
def test_a_camera_that_says_adobe_rgb_is_believed_unless_a_profile_says_more(
    tmp_path, index, space, known
):
    exif = Image.Exif()
    exif[0x8769] = {0xA001: space, **({0xA005: {1: index, 2: b"0100"}} if index else {})}
    more = {"icc_profile": profile(1.8)} if known else {}
    Image.fromarray(picture(20, 30)).save(tmp_path / "a.jpg", exif=exif, **more)
    with open_image(tmp_path / "a.jpg") as source:
        assert source.metadata.icc == (profile(1.8) if known else adobe_rgb())
        assert any("Adobe RGB" in note for note in source.notes) is not known


def test_a_camera_that_says_srgb_gets_no_profile(tmp_path):
    exif = Image.Exif()
    exif[0x8769] = {0xA001: 1, 0xA005: {1: "R98"}}
    Image.fromarray(picture(20, 30)).save(tmp_path / "a.jpg", exif=exif)
    with open_image(tmp_path / "a.jpg") as source:
        assert source.metadata.icc is None


TABLE = np.rint(65535 * np.linspace(0, 1, 256) ** 1.8).astype(int).tolist()


def fractions(*numbers):
    return tuple(part for number in numbers for part in (round(10000 * number), 10000))


@pytest.mark.parametrize("tables", [1, 3, 0])
def test_a_tiff_that_states_its_colours_in_tags_keeps_them(tmp_path, tables):
    tags = [(318, 5, 2, fractions(*ADOBE[:2]), True), (319, 5, 6, fractions(*ADOBE[2:]), True)]
    if tables:
        tags.append((301, "H", 256 * tables, TABLE * tables, True))
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, picture(9, 12), photometric="rgb", metadata=None, extratags=tags)
    with open_image(path) as source:
        icc, notes = source.metadata.icc, source.notes
    np.testing.assert_allclose(primaries(icc), primaries(adobe_rgb()), atol=0.001)
    # Middle greys are as light as under the power that the table holds.
    assert abs(middle(icc) - middle(profile(1.8 if tables else 2.2))) <= 1
    assert notes == ()


def test_the_profile_of_a_tiff_goes_before_its_tags(tmp_path):
    tags = [(319, 5, 6, fractions(*ADOBE[2:]), True)]
    kind = {"photometric": "rgb", "metadata": None, "extratags": tags, "iccprofile": profile(1.8)}
    tifffile.imwrite(tmp_path / "a.tif", picture(9, 12), **kind)
    with open_image(tmp_path / "a.tif") as source:
        assert source.metadata.icc == profile(1.8)


def test_a_white_point_alone_or_impossible_colours_make_no_profile(tmp_path):
    for tags in (
        [(318, 5, 2, fractions(0.3, 0.3), True)],
        [(319, 5, 6, fractions(*[0] * 6), True)],
    ):
        kind = {"photometric": "rgb", "metadata": None, "extratags": tags}
        tifffile.imwrite(tmp_path / "a.tif", picture(9, 12), **kind)
        with open_image(tmp_path / "a.tif") as source:
            assert source.metadata.icc is None


def test_a_profile_that_is_none_is_named(tmp_path):
    kind = {"photometric": "rgb", "metadata": None, "iccprofile": b"no profile"}
    tifffile.imwrite(tmp_path / "a.tif", picture(9, 12), **kind)
    with open_image(tmp_path / "a.tif") as source:
        assert source.metadata.icc is None and "ICC profile is damaged" in source.notes[0]


@pytest.mark.parametrize(
    ("chunks", "said"),
    [
        ((chunk(b"sRGB", b"\0"),), True),
        ((chunk(b"cICP", bytes((1, 13, 0, 1))),), True),
        ((chunk(b"cICP", bytes((12, 13, 0, 1))), chunk(b"sRGB", b"\0")), False),
        ((), False),
    ],
)
def test_that_colours_are_srgb_is_kept_as_said(tmp_path, chunks, said):
    path = tmp_path / "a.png"
    write_png(path, picture(5, 6), 2, 8, False, b"".join(chunks))
    with open_image(path) as source:
        assert source.metadata.srgb is said


def test_the_same_colours_are_the_same_bytes():
    made = {srgb(), adobe_rgb(), profile(1.8), profile(1.8, primaries=None)}
    time.sleep(1.1)
    assert made == {srgb(), adobe_rgb(), profile(1.8), profile(1.8, primaries=None)}
    for icc in made:
        ImageCms.ImageCmsProfile(io.BytesIO(icc))
