"""Colours and depth of an AVIF."""

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from tests.pipeline.formats.pictures import picture
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.registry import open_image


def test_more_than_8_bits_are_refused_not_cut(tmp_path):
    pixels = (picture(32, 32).astype(np.uint16) * 4).astype(np.uint16)
    (tmp_path / "a.avif").write_bytes(imagecodecs.avif_encode(pixels, bitspersample=10))
    with pytest.raises(Refused, match="more than 8 bits"):
        open_image(tmp_path / "a.avif")


def save(path, code):
    """An AVIF of 8 bits that states these code points."""
    Image.fromarray(picture(32, 32)).save(path, icc_profile=b"")
    data = bytearray(path.read_bytes())
    at = data.index(b"colrnclx") + 8
    data[at : at + 4] = code[0].to_bytes(2, "big") + code[1].to_bytes(2, "big")
    path.write_bytes(data)


def test_code_points_become_a_profile_or_are_refused(tmp_path):
    path = tmp_path / "a.avif"
    for code, profiled in (((1, 13), False), ((12, 13), True)):
        save(path, code)
        with open_image(path) as source:
            assert (source.metadata.icc is not None) is profiled
    save(path, (9, 16))
    with pytest.raises(Refused, match="transfer 16"):
        open_image(path)
