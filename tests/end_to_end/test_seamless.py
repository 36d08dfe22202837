"""Tiled equals whole, for the networks that ship; and no seam where tiers meet."""

from fractions import Fraction

import numpy as np
import pytest

from tests.end_to_end.seams import COFFEE, steps, whole
from tests.plans import draft_of
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.policies import Budget, Full
from tierscale.pipeline.routing.costs import full_cost, planned_cost
from tierscale.pipeline.run.array import enlarge_array, upscale_array
from tierscale.pipeline.run.tiers import load_tiers


@pytest.mark.parametrize(
    ("name", "scale", "tile", "size"),
    [
        ("bicubic", "4", 32, (201, 157)),
        ("bicubic", "27/10", 32, (201, 157)),
        ("bicubic", "3/2", 48, (130, 163)),
        ("fsrcnn-x4", "4", 32, (201, 157)),
        ("fsrcnn-x4", "4", 50, (97, 301)),
        ("fsrcnn-x3", "3", 40, (119, 158)),
        ("fsrcnn-x2", "2", 64, (157, 201)),
        ("carn-x4", "4", 32, (133, 101)),
        ("carn-x4", "4", 72, (151, 91)),
    ],
)
def test_tiled_equals_whole(name, scale, tile, size):
    image = COFFEE[:, 60 : 60 + size[0], 90 : 90 + size[1]]
    unit = image.astype(np.float32) / 255
    wanted = whole(name, unit, scale)
    options = Options(
        scale=Fraction(scale), tiers=(name,), policy=Full(), tile=tile, value_range=(0.0, 1.0)
    )
    found = enlarge_array(unit, options).pixels
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    eight = upscale_array(image, scale, tiers=[name], policy="full", tile=tile)
    different = eight != np.clip(np.rint(wanted * 255), 0, 255).astype(np.uint8)
    assert different.mean() <= 1e-5
    assert np.abs(eight.astype(int) - np.clip(np.rint(wanted * 255), 0, 255)).max() <= 1


def test_no_seam_where_tiers_meet():
    """At most 1.05 times; a hard edge between tiers would not pass."""
    image = COFFEE[:, :256, :320]
    assert steps(image, 4) <= 1.05
    assert steps(image, 0) > 1.05


@pytest.mark.parametrize(
    "size", [(2048, 1024), (1293, 1293), (653, 653), (700, 900), (769, 807), (5000, 5000)]
)
def test_windows_share_their_halos(size):
    """CARN everywhere at the default tile costs at most 1.3 times the image in one piece."""
    tiers = load_tiers(("bicubic", "carn-x4"), Fraction(4))
    draft = draft_of(size, tiers, tile=128)
    assert full_cost(draft) <= 1.3 * tiers[-1].cost * size[0] * size[1]


@pytest.mark.parametrize("share", [0.2, 0.6])
def test_executed_cost_is_planned_cost_and_within_the_budget(share):
    options = Options(tiers=("bicubic", "fsrcnn-x4", "carn-x4"), policy=Budget(share), tile=32)
    made = enlarge_array(COFFEE[:, :200, :300], options)
    full = full_cost(made.plan)
    assert made.cost == pytest.approx(planned_cost(made.plan, made.plan.routes), rel=1e-6)
    assert made.cost <= share * full
    step = made.plan.tiers[-1].cost * (32 + 50) ** 2
    assert made.cost >= share * full - max(0.01 * full, step)
