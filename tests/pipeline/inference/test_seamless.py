"""Tiled equals whole, for the networks that ship; and no seam where tiers meet."""

from fractions import Fraction
from unittest import mock

import numpy as np
import pytest
import skimage.data
import torch

from tierscale.models import registry as models
from tierscale.models.contract.upscaler import Placement
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.routing import costs
from tierscale.pipeline.routing import routes as choosing
from tierscale.pipeline.run import draft as prepare
from tierscale.pipeline.run.array import enlarge_array, upscale_array

COFFEE = skimage.data.coffee().transpose(2, 0, 1)


def whole(name, image, scale):
    """The network on the whole image in one piece: (c, H, W), float."""
    window = torch.from_numpy(image[None].astype(np.float32))
    return (
        models.load(name)(window, Placement.whole(image.shape[1:], Fraction(scale)))
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
        scale=Fraction(scale), tiers=(name,), policy="dearest", tile=tile, value_range=(0.0, 1.0)
    )
    found = enlarge_array(unit, options).pixels
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    eight = upscale_array(image, scale, tiers=[name], policy="dearest", tile=tile)
    different = eight != np.clip(np.rint(wanted * 255), 0, 255).astype(np.uint8)
    assert different.mean() <= 1e-5
    assert np.abs(eight.astype(int) - np.clip(np.rint(wanted * 255), 0, 255)).max() <= 1


def steps(image, blend):
    """Mean step across borders of tiers, and the mean step one input pixel beside them.

    Within an input pixel the steps of any enlargement differ by phase: bicubic alone, untiled, has
    steps at the edges of input pixels that are 1.15 times those one output pixel beside. So the
    pixel beside is an input pixel, where the phase is the same.
    """
    # Tiers in a pattern that pays no heed to the picture: the scout would put borders where they
    # show least.
    with mock.patch.object(
        choosing,
        "route",
        lambda plan, scores, time: np.add.outer(*map(np.arange, plan.grid.tiles)) % 3,
    ):
        made = enlarge_array(
            image, Options(tiers=("bicubic", "fsrcnn-x4", "carn-x4"), tile=32, blend=blend)
        )
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


def test_no_seam_where_tiers_meet():
    """At most 1.05 times; a hard edge between tiers would not pass."""
    image = COFFEE[:, :256, :320]
    assert steps(image, 4) <= 1.05
    assert steps(image, 0) > 1.05


@pytest.mark.parametrize(
    "size", [(2048, 1024), (1293, 1293), (653, 653), (700, 900), (769, 807), (5000, 5000)]
)
def test_windows_share_their_halos(size):
    """All-dearest CARN at the default tile costs at most 1.3 times the whole image in one piece."""
    tiers = prepare.load_tiers(("bicubic", "carn-x4"), Fraction(4))
    grid = prepare.Plan(
        source={"uri": ""}, shape=(3, *size), dtype="uint8", colour="rgb", alpha=None, scale=Fraction(4), tile=128, blend=4, tiers=tiers,
        policy={}, device="cpu", threads=1, batch=(1, 1), scores="scout",
    )  # fmt: skip
    assert costs.full_cost(grid) <= 1.3 * tiers[-1].cost * size[0] * size[1]


def test_executed_cost_is_planned_cost_and_within_the_budget():
    for budget in (0.2, 0.6):
        made = enlarge_array(
            COFFEE[:, :200, :300],
            Options(
                tiers=("bicubic", "fsrcnn-x4", "carn-x4"), policy="budget", budget=budget, tile=32
            ),
        )
        dearest = costs.full_cost(made.plan)
        assert made.cost == pytest.approx(costs.planned_cost(made.plan, made.plan.routes), rel=1e-6)
        assert made.cost <= budget * dearest
        step = made.plan.tiers[-1].cost * (32 + 50) ** 2
        assert made.cost >= budget * dearest - max(0.01 * dearest, step)
