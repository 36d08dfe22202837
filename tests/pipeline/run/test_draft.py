"""Paths that cannot be an output, and what a draft is told of its request."""

import numpy as np
import pytest

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.registry import open_array
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.policies import Adaptive, Budget, Full, MaxLoss
from tierscale.pipeline.run.draft import check_paths, inspect_image

TIERS = ("bicubic", "fsrcnn-x4")


def inspected(options, device="cpu"):
    return inspect_image(open_array(np.zeros((50, 60, 3), np.uint8), "yxc"), options, device)


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
        (Budget(0.5), TIERS, "scout"),
        (MaxLoss(0.1), TIERS, "scout"),
        (Budget(0.5), ("bicubic", "pcsr-carn-x4@0.6"), "detail"),
    ],
)
def test_tiles_are_scored_by_a_scout_where_a_policy_asks_and_one_is_known(policy, tiers, scoring):
    found = inspected(Options(tiers=tiers, policy=policy))
    assert found.draft.scoring == scoring
    assert (found.draft.scout is not None) is (scoring == "scout")
    assert any("plain detail" in note for note in found.source.notes) is (scoring == "detail")


def test_a_policy_that_compares_errors_needs_a_scout():
    with pytest.raises(Refused, match=r"no scout knows bicubic, pcsr-carn-x4@0.6; use --budget"):
        inspected(Options(tiers=("bicubic", "pcsr-carn-x4@0.6"), policy=MaxLoss(0.1)))


def test_the_batch_is_that_of_the_device():
    assert inspected(Options(tiers=TIERS)).draft.batch == (1, 1)
    assert inspected(Options(tiers=TIERS), "cuda").draft.batch == (4, 4)
    with pytest.raises(Refused, match="the workers run on cuda, and cpu was asked for"):
        inspected(Options(tiers=TIERS, device="cpu"), "cuda")


def test_a_tile_is_rounded_up_to_output_pixels():
    options = Options(tiers=("bicubic",), scale=Options().scale * 27 / 40, tile=128)
    assert inspected(options).draft.tile == 130
