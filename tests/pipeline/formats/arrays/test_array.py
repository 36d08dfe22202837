"""Arrays in memory as sources."""

import dask.array
import numpy as np
import pytest

from tests.pipeline.formats.pictures import picture, whole
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.registry import open_array


@pytest.mark.parametrize(
    "make", [np.asarray, lambda a: dask.array.from_array(a, chunks=7)], ids=["numpy", "dask"]
)
@pytest.mark.parametrize(
    ("axes", "channels", "colour"),
    [("cyx", 1, "grey"), ("yxc", 2, "channels"), ("yxc", 3, "rgb"), ("cyx", 4, "rgba")],
)
def test_arrays_are_sources(make, axes, channels, colour):
    array = picture(20, 30, channels)
    source = open_array(make(array if axes == "yxc" else array.transpose(2, 0, 1)), axes)
    assert source.colour == colour and source.random_access
    np.testing.assert_array_equal(whole(source), array.transpose(2, 0, 1))


def test_arrays_that_are_no_images_are_refused():
    for array, axes in (
        (np.zeros((4, 4)), "cyx"),
        (np.zeros((4, 4, 3)), "yx"),
        (np.zeros((0, 4)), "yx"),
        (np.zeros((4, 4), complex), "yx"),
    ):
        with pytest.raises(Refused):
            open_array(array, axes)
    with pytest.raises(Refused, match="object"):
        open_array(np.array([[None, None]]), "yx")
