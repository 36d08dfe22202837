"""Paths that cannot be an output, and what a draft is told of its request."""

import numpy as np
import pytest

from tierscale.models import registry
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.registry import open_array
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.policies import Adaptive, Budget, Deadline, Full, MaxLoss, Threshold
from tierscale.pipeline.plan.precision import Hardware
from tierscale.pipeline.plan.tiers import Weights
from tierscale.pipeline.run.draft import check_paths, inspect_image

TIERS = ("bicubic", "fsrcnn-x4")


def inspected(options, device="cpu", bfloat16=None):
    image = open_array(np.zeros((50, 60, 3), np.uint8), "yxc")
    return inspect_image(image, options, Hardware(device, bfloat16))


@pytest.mark.parametrize(
    ("source", "output", "message"),
    [
        ("a.png", "a.tif", "does not end in .zarr"),
        ("a.zarr", "a.zarr", "lies inside the source"),
        ("a.zarr", "a.zarr/out.zarr", "lies inside the source"),
        ("a.zarr/0.png", "a.zarr", "lies inside the output"),
        ("a.zarr.tierscale/x.png", "a.zarr", "belongs to the output"),
    ],
)
def test_an_output_that_is_or_holds_its_source_is_refused(tmp_path, source, output, message):
    with pytest.raises(Refused, match=message):
        check_paths(str(tmp_path / source), str(tmp_path / output))
    check_paths(str(tmp_path / "in/a.png"), str(tmp_path / "out.zarr"))


@pytest.mark.parametrize(
    ("policy", "tiers", "scoring"),
    [
        (Full(), TIERS, "none"),
        (Adaptive(), TIERS[:1], "none"),
        (Budget(0.5), TIERS, "energy"),
        (Budget(0.5), ("bicubic", "edsr64-x4"), "difference"),
        (Threshold(1e-5), ("bicubic", "fsrcnn-x4", "edsr64-x4"), "difference"),
        (Budget(0.5), ("bicubic", "pcsr-carn-x4@0.6"), "energy"),
    ],
)
def test_tiles_are_scored_by_a_network_that_is_light_enough(policy, tiers, scoring):
    found = inspected(Options(tiers=tiers, policy=policy))
    assert found.draft.scoring == scoring
    wanted = Weights("fsrcnn-x4", registry.digest("fsrcnn-x4"))
    assert found.draft.scorer == (wanted if scoring == "difference" else None)


def test_a_loss_that_no_card_knows_is_refused():
    many = Options(tiers=("bicubic", "pcsr-carn-x4@0.6"), policy=MaxLoss(0.1), tile=8)
    with pytest.raises(Refused, match=r"bicubic, pcsr-carn-x4@0.6 lose was not measured; use"):
        inspected(many)


@pytest.mark.parametrize("policy", [None, MaxLoss(0.1), Deadline(60.0)])
def test_few_tiles_are_not_told_apart(policy):
    found = inspected(Options(policy=policy) if policy else Options())
    assert found.draft.policy == Full() and found.draft.scoring == "none"
    assert any("too few to tell apart" in note for note in found.choices)
    kept = inspected(Options(policy=Budget(0.5)))
    assert kept.draft.policy == Budget(0.5)


def test_where_nobody_asked_and_no_card_knows_the_loss_it_is_full():
    found = inspected(Options(tiers=("bicubic", "pcsr-carn-x4@0.6"), tile=8))
    assert found.draft.policy == Full()
    assert any("was not measured; --budget" in note for note in found.choices)


def test_the_batch_is_that_of_the_device():
    assert inspected(Options(tiers=TIERS)).draft.batch == (1, 1)
    assert inspected(Options(tiers=TIERS), "cuda").draft.batch == (4, 4)
    with pytest.raises(Refused, match="the workers run on cuda, and cpu was asked for"):
        inspected(Options(tiers=TIERS, device="cpu"), "cuda")


def test_a_tile_is_rounded_up_to_output_pixels():
    options = Options(tiers=("bicubic",), scale=Options().scale * 27 / 40, tile=128)
    assert inspected(options).draft.tile == 130
