"""A small picture, how it is enlarged in these tests, and the result that all ways must give."""

import pytest
import skimage.data

from tierscale.pipeline.run.array import upscale_array

# Small tiles of two tiers, in sixteen shards, the last ones clipped by the image.
HOW = {"tiers": "bicubic,fsrcnn-x4", "tile": 16, "budget": 0.5, "axes": "yxc"}


@pytest.fixture(scope="package")
def picture():
    """Pixels (h, w, 3)."""
    return skimage.data.coffee()[:210, :250].copy()


@pytest.fixture(scope="package")
def enlarged(picture):
    """What numpy gives for the picture; tests only read it."""
    return upscale_array(picture, 4, **HOW)
