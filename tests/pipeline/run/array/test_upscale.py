"""The pipeline on an array in memory: any axes, any way to ask, and what is refused."""

import dask.array as da
import numpy as np
import pytest

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.policies import Budget, Deadline
from tierscale.pipeline.run.array import enlarge_array, upscale_array

TIERS = ("bicubic", "fsrcnn-x4")


def noise(*shape):
    return np.random.default_rng(0).integers(1, 255, shape).astype(np.uint8)


@pytest.mark.parametrize(
    ("axes", "shape", "wanted"),
    [
        ("cyx", (3, 40, 50), (3, 80, 100)),
        ("yxc", (40, 50, 3), (80, 100, 3)),
        ("yx", (40, 50), (80, 100)),
    ],
)
def test_axes_come_back_as_they_were(smear, axes, shape, wanted):
    out = upscale_array(noise(*shape), 2, tiers=["smear"], axes=axes)
    assert out.shape == wanted and out.dtype == np.uint8


def test_an_output_is_taken_as_a_dask_array(made):
    lazy = da.from_zarr(f"{made}/1")
    assert lazy.shape == (3, 600, 680)
    found = upscale_array(lazy[:, :50, :60], 2, tiers=["bicubic"])
    wanted = upscale_array(lazy[:, :50, :60].compute(), 2, tiers=["bicubic"])
    assert found.shape == (3, 100, 120)
    np.testing.assert_array_equal(found, wanted)


def test_tiers_are_a_list_or_one_text_and_scales_any_number():
    assert upscale_array(np.zeros((9, 8), np.uint8), tiers="bicubic, fsrcnn-x4").shape == (36, 32)
    assert upscale_array(np.zeros((9, 9), np.uint8), 7 / 3, tiers="bicubic").shape == (21, 21)


def test_a_policy_is_an_object_or_its_name_and_number():
    image = noise(3, 70, 60)
    made = [
        upscale_array(image, tiers=TIERS, tile=16, **policy)
        for policy in (
            {"policy": Budget(0.5)},
            {"policy": "budget", "budget": 0.5},
            {"budget": 0.5},
        )
    ]
    np.testing.assert_array_equal(made[0], made[1])
    np.testing.assert_array_equal(made[0], made[2])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"budget": 0.5, "threshold": 0.1},
            "threshold belongs to policy threshold and would be ignored by budget",
        ),
        (
            {"policy": "light", "budget": 0.5},
            "budget belongs to policy budget and would be ignored by light",
        ),
        ({"axes": "xy"}, "axes 'xy' are not known; choose one of"),
        (
            {"policy": Budget(0.5), "budget": 0.3},
            "budget would be ignored beside the policy budget 0.5; leave one of the two out",
        ),
        ({"budget": 1.5}, "a budget of 1.5"),
    ],
)
def test_what_would_be_ignored_or_cannot_be_is_refused(more, message):
    with pytest.raises(ValueError, match=message):
        upscale_array(np.zeros((3, 9, 8), np.uint8), **more)


@pytest.mark.parametrize("scale", [float("nan"), "one", 0])
def test_a_scale_that_is_none_is_refused(scale):
    with pytest.raises(Refused, match="scale"):
        upscale_array(np.zeros((9, 8), np.uint8), scale)


def test_a_type_that_no_image_has_is_refused():
    with pytest.raises(Refused, match="int64"):
        upscale_array([[0, 1], [2, 3]])


def test_an_array_is_enlarged_within_a_deadline():
    pixels = noise(60, 80, 3)
    made = enlarge_array(pixels, Options(tiers=TIERS, policy=Deadline(30.0), tile=16), "yxc")
    assert made.plan.routes.any() and made.pixels.shape == (3, 240, 320)
    with pytest.raises(Refused, match="too few"):
        enlarge_array(pixels, Options(tiers=TIERS, policy=Deadline(1e-5), tile=16), "yxc")
