"""What a plan tells the policies, and what it then says of itself."""

import json
import re
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from tests.command import tierscale
from tierscale.jobs.cli.options import TimeType
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.registry import open_array
from tierscale.pipeline.output import kept_scores as scores
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.value_range import ValueRange
from tierscale.pipeline.routing import routes as choosing
from tierscale.pipeline.routing.costs import full_cost, planned_cost
from tierscale.pipeline.routing.routes import TierTimings, TimeLimit
from tierscale.pipeline.run import draft as prepare
from tierscale.pipeline.run.array import enlarge_array

TIERS = ("bicubic", "fsrcnn-x4")


def plan_of(policy, size=(200, 330), **more):
    image = open_array(np.zeros((*size, 3), np.uint8), "yxc")
    return prepare.draft_of(image, Options(tiers=TIERS, policy=policy, tile=32, **more), "cpu")[0]


def scores_of(plan, seed=0):
    rng = np.random.default_rng(seed)
    base = np.exp(rng.normal(-8, 1.5, plan.grid.tiles)).astype(np.float32).reshape(-1, 1)
    return np.concatenate([base, base * rng.uniform(0.4, 1, base.shape).astype(np.float32)], axis=1)


def test_areas_are_those_of_the_cores():
    plan = plan_of("dearest")
    wanted = [
        plan.grid.core(row, column).area
        for row in range(plan.grid.tiles[0])
        for column in range(plan.grid.tiles[1])
    ]
    assert choosing.areas(plan).tolist() == wanted and sum(wanted) == 200 * 330


@pytest.mark.parametrize(
    ("policy", "more"), [("budget", {"budget": 0.5}), ("quality", {"lose": 0.3}), ("adaptive", {})]
)
def test_a_score_that_is_no_number_is_refused_and_names_the_tile(policy, more):
    plan = plan_of(policy, **more)
    found = scores_of(plan)
    found[plan.grid.tiles[1] + 2, 0] = np.nan
    with pytest.raises(Refused, match=r"tile \(row 1, column 2\)"):
        choosing.route(plan, found)


def test_quality_stays_within_what_may_be_lost_and_saves():
    plan = plan_of("quality", lose=0.2)
    found = scores_of(plan)
    routes = choosing.route(plan, found)
    assert 0 < choosing.lost(plan, found, routes) <= 0.2 + 1e-6
    assert planned_cost(plan, routes) < 0.9 * full_cost(plan)


def test_a_quality_out_of_reach_is_said_to_be_all_dearest():
    plan = plan_of("quality", lose=0.0)
    routes = choosing.route(plan, scores_of(plan))
    assert (routes == 1).all()
    assert "within 0 dB of fsrcnn-x4" in choosing.remarks(replace(plan, routes=routes))[0]
    assert choosing.remarks(replace(plan_of("dearest"), routes=routes)) == []


@pytest.mark.parametrize("left", [0.2, 0.5, 0.8])
def test_a_deadline_is_met_by_the_speeds_that_were_measured(left):
    plan = plan_of("deadline", deadline=60.0)
    found, speeds = scores_of(plan), (1e-7, 2e-5)
    routes = choosing.route(plan, found, TierTimings(TimeLimit(lambda: left, workers=2), speeds))
    timed = tuple(replace(tier, cost=speed) for tier, speed in zip(plan.tiers, speeds, strict=True))
    seconds = planned_cost(replace(plan, tiers=timed), routes) / 2
    step = 2e-5 * (32 + 2 * plan.halo) ** 2 / 2
    assert left - choosing.beside(plan) - step < seconds <= left - choosing.beside(plan)


def test_a_deadline_that_is_over_is_refused_or_in_an_archive_met_as_far_as_can_be():
    plan, speeds = plan_of("deadline", deadline=60.0), (1e-7, 2e-5)
    with pytest.raises(
        Refused, match="0 seconds are too few: the cheapest tier everywhere takes about"
    ):
        choosing.route(plan, scores_of(plan), TierTimings(TimeLimit(lambda: 0.0, 1), speeds))
    assert not choosing.route(
        plan, scores_of(plan), TierTimings(TimeLimit(lambda: 0.0, 1, late=True), speeds)
    ).any()


def test_speeds_that_do_not_rise_do_no_harm():
    plan = plan_of("deadline", deadline=60.0)
    assert (
        choosing.route(plan, scores_of(plan), TierTimings(TimeLimit(lambda: 50.0, 1), (2e-5, 1e-5)))
        == 1
    ).all()


def test_the_curve_falls_from_the_cheapest_to_nothing_lost():
    plan = plan_of("adaptive")
    curve = choosing.curve(plan, scores_of(plan), (0.001, 0.2, 0.5, 1.0))
    shares, losses = zip(*curve, strict=True)
    assert len(curve) == 4, "a budget below the cheapest tier has no place on it"
    assert list(shares) == sorted(shares) and list(losses) == sorted(losses, reverse=True)
    assert losses[-1] == pytest.approx(0, abs=1e-6) and shares[-1] == pytest.approx(1)


def test_scores_are_kept_for_their_draft_and_for_any_budget(tmp_path):
    plan = plan_of("budget", budget=0.5)
    done = replace(plan, levels=ValueRange(0.0, 255.0, 0.0, 255.0, float("nan")), given=({}, {}))
    scores.keep(tmp_path, done, scores_of(plan))
    found = scores.kept(tmp_path, plan_of("budget", budget=0.3))
    assert (
        found is not None
        and found[0].levels.high == 255
        and np.isnan(found[0].levels.nodata)
        and found[0].given == ({}, {})
    )
    np.testing.assert_array_equal(found[1], scores_of(plan))
    assert scores.kept(tmp_path, plan_of("budget", size=(200, 340), budget=0.5)) is None
    assert scores.kept(tmp_path / "nowhere", plan) is None
    (tmp_path / scores.NAME).write_bytes(b"torn")
    assert scores.kept(tmp_path, plan) is None


def test_an_array_is_enlarged_within_a_deadline():
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    made = enlarge_array(
        pixels, Options(tiers=TIERS, policy="deadline", deadline=30.0, tile=16), "yxc"
    )
    assert made.plan.routes is not None and made.pixels.shape == (3, 240, 320)
    with pytest.raises(Refused, match="too few"):
        enlarge_array(
            pixels, Options(tiers=TIERS, policy="deadline", deadline=1e-5, tile=16), "yxc"
        )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("6h", 21600), ("90m", 5400), ("1h30m", 5400), ("45s", 45), ("45", 45), ("0.5h", 1800)],
)
def test_times_as_people_write_them(text, seconds):
    assert TimeType().convert(text, None, None) == seconds


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--policy", "quality"), ("--lose", "0.02")),
        (("--lose", "-1"), ("--lose", "-1")),
        (("--policy", "deadline"), ("--deadline", "6h")),
        (("--deadline", "soon"), ("'soon'", "90m")),
        (("--deadline", "0s"), ("--deadline",)),
    ],
)
def test_policies_that_lack_what_they_need(capsys, tmp_path, options, words):
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "a.png")
    code, _, err = tierscale(
        capsys,
        "plan",
        tmp_path / "a.png",
        tmp_path / "o.zarr",
        "--ray",
        "none",
        "--tiers",
        ",".join(TIERS),
        *options,
    )
    assert code == 2 and len(err.strip().splitlines()) == 1
    for word in words:
        assert word in err


@pytest.mark.parametrize(
    ("options", "policy"), [(("--lose", "0.05"), "quality"), (("--deadline", "5m"), "deadline")]
)
def test_the_command_takes_quality_and_time(capsys, tmp_path, options, policy):
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    line = (
        tmp_path / "a.png",
        tmp_path / "o.zarr",
        "--ray",
        "none",
        "--workers",
        1,
        "--tiers",
        ",".join(TIERS),
        "--tile",
        16,
        "--json",
    )
    code, _, err = tierscale(capsys, "upscale", *line, *options)
    assert code == 0, err
    assert (
        json.loads((tmp_path / "o.zarr.tierscale" / "plan.json").read_text())["policy"]["name"]
        == policy
    )
    assert tierscale(capsys, "upscale", *line, *options)[0] == 0, (
        "the same command goes on, whatever the time"
    )
    assert re.search(r'"written": 0', tierscale(capsys, "upscale", *line, *options)[1])


def test_the_scale_of_areas_is_exact_at_fractions():
    image = open_array(np.zeros((50, 61, 3), np.uint8), "yxc")
    plan = prepare.draft_of(
        image, Options(scale=Fraction(5, 2), tiers=("bicubic",), policy="dearest", tile=15), "cpu"
    )[0]
    assert choosing.areas(plan).sum() == 50 * 61
