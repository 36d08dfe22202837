"""Tiled equals whole, for the networks that ship; and no seam where tiers meet."""

from fractions import Fraction

import numpy as np
import pytest
import skimage.data
import torch

from tests.plans import draft_of
from tierscale.models import registry
from tierscale.models.contract.upscaler import Placement
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.policies import Budget, Full
from tierscale.pipeline.routing.costs import full_cost, planned_cost
from tierscale.pipeline.run import array
from tierscale.pipeline.run.array import enlarge_array, upscale_array
from tierscale.pipeline.run.tiers import load_tiers

COFFEE = skimage.data.coffee().transpose(2, 0, 1)


def whole(name, image, scale):
    """The network on the whole image in one piece: (c, H, W), float."""
    window = torch.from_numpy(image[None].astype(np.float32))
    return (
        registry.load(name)(window, Placement.whole(image.shape[1:], Fraction(scale)))
        .pixels[0]
        .numpy()
    )


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


@pytest.fixture
def striped(monkeypatch):
    """Tiers in a pattern that pays no heed to the picture, 0, 1, 2 along every diagonal.

    The scout would put borders where they show least.
    """

    def route(scored, timings):
        return np.add.outer(*map(np.arange, scored.grid.tiles)) % 3

    monkeypatch.setattr(array, "route", route)


def steps(image, blend):
    """Mean step across borders of tiers, over the mean step one input pixel beside them.

    Within an input pixel the steps of any enlargement differ by phase: bicubic alone, untiled, has
    steps at the edges of input pixels that are 1.15 times those one output pixel beside. So the
    pixel beside is an input pixel, where the phase is the same.
    """
    made = enlarge_array(
        image, Options(tiers=("bicubic", "fsrcnn-x4", "carn-x4"), tile=32, blend=blend)
    )
    assert set(made.plan.routes.ravel().tolist()) == {0, 1, 2}
    across, beside = [], []
    for pixels, routes in (
        (made.pixels.astype(float), made.plan.routes),
        (made.pixels.astype(float).transpose(0, 2, 1), made.plan.routes.T),
    ):
        for row, column in np.argwhere(routes[:, 1:] != routes[:, :-1]):
            edge = 128 * (column + 1)
            step = np.abs(
                np.diff(pixels[:, row * 128 : row * 128 + 128, edge - 5 : edge + 5], axis=2)
            ).mean(axis=(0, 1))
            across.append(step[4])
            beside.extend((step[0], step[8]))
    assert len(across) >= 20
    return np.mean(across) / np.mean(beside)


def test_no_seam_where_tiers_meet(striped):
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
