"""Evidence: where the compute went, the pictures, and the curve that a plan draws."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import skimage.data
from PIL import Image

from tests.commands import tierscale
from tierscale.pipeline.errors import Interrupted, Refused
from tierscale.pipeline.output import chart, explain
from tierscale.pipeline.output.chart import Line
from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.output.report import tinted
from tierscale.pipeline.plan.plan import Options
from tierscale.pipeline.run.pool import LocalPool
from tierscale.pipeline.run.run import Request, Run

TIERS = "bicubic,fsrcnn-x4"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explain")
    Image.fromarray(skimage.data.coffee()[:150, :200]).save(folder / "a.png")
    return folder


def upscaled(capsys, made, name, *options):
    line = (
        made / "a.png",
        made / name,
        "--ray",
        "none",
        "--workers",
        1,
        "--tile",
        32,
        "--tiers",
        TIERS,
    )
    code, _, err = tierscale(capsys, "upscale", *line, *options)
    assert code == 0, err
    return made / name


def test_what_each_tier_took_adds_up(capsys, made):
    output = upscaled(capsys, made, "budget.zarr", "--budget", "0.5")
    code, out, err = tierscale(capsys, "explain", output, "--json")
    assert code == 0, err
    told, table = json.loads(out), pq.read_table(Folder(str(output)).path / "tiles.parquet")
    assert sum(tier["tiles"] for tier in told["tiers"]) == table.num_rows == 5 * 7
    assert (
        sum(tier["cost"] for tier in told["tiers"])
        == pytest.approx(told["cost"])
        == pytest.approx(sum(table["cost"].to_pylist()))
    )
    assert (
        0 <= told["tiers"][0]["saved"] < told["tiers"][1]["saved"] < 1
        and told["lost"] > 0
        and told["halo"] > 0
    )
    with Image.open(told["files"]["explain"]) as picture:
        assert (
            picture.size[0] > 960
            and len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 100
        )
    code, out, _ = tierscale(capsys, "explain", output, "--png", made / "own.png")
    assert code == 0 and "fsrcnn-x4" in out and "dB below" in out and (made / "own.png").exists()


def test_one_tier_for_all_is_explained_too(capsys, made):
    told = explain.explain(str(upscaled(capsys, made, "dearest.zarr", "--policy", "dearest")))
    assert (
        told["scores"] == "none"
        and told["lost"] is None
        and {tier["saved"] for tier in told["tiers"]} == {None}
    )
    assert [tier["tiles"] for tier in told["tiers"]] == [0, 35]
    assert explain.draw(told["output"]).width > 0


def test_an_unfinished_output_is_told_as_planned(capsys, made, tmp_path):
    output = tmp_path / "half.zarr"
    request = Request(
        str(made / "a.png"),
        str(output),
        Options(tiers=("bicubic", "fsrcnn-x4"), tile=16, policy="budget", budget=0.5),
    )
    with LocalPool(1) as pool:
        run = Run(request, pool)
        run.progress = lambda stage, done, total: (
            run.stop.set() if stage == "enlarge" and done else None
        )
        with pytest.raises(Interrupted):
            run.carry_out()
    code, out, _ = tierscale(capsys, "explain", output)
    assert (
        code == 0
        and "unfinished" in out
        and "policy budget 0.5" in out
        and " 0 multiply-adds" not in out
    )
    assert np.asarray(explain.draw(str(output)).convert("L"))[:300, :300].mean() > 60, (
        "the map of what is not there yet is not black"
    )


def test_colours_of_the_maps_are_those_of_their_legends():
    colours = np.full((1, 3, 3), (240, 168, 48), np.float32)
    dark, middle, light = tinted(np.array([[0.0, 127.5, 255.0]]), colours)[0].astype(float)
    assert np.allclose(middle, colours[0, 0], atol=2) and dark.sum() < middle.sum() < light.sum()
    assert np.allclose(dark / dark.max(), middle / middle.max(), atol=0.02), "the same hue"


def test_an_image_that_is_easy_all_over_looks_easy(capsys, tmp_path):
    Image.new("RGB", (100, 100), (90, 90, 90)).save(tmp_path / "flat.png")
    output = tmp_path / "flat.zarr"
    assert (
        tierscale(
            capsys,
            "upscale",
            tmp_path / "flat.png",
            output,
            "--ray",
            "none",
            "--tile",
            32,
            "--budget",
            "0.5",
        )[0]
        == 0
    )
    told = explain.explain(str(output))
    assert [tier["tiles"] for tier in told["tiers"]][1:] == [
        0,
        0,
    ], "nothing is bought where nothing can be saved"
    colour = np.asarray(explain.draw(str(output)))[100, -100]
    assert np.abs(colour.astype(float) - explain.RAMP[0]).max() < 40


def test_what_is_no_output_of_ours_is_refused(capsys, made):
    code, _, err = tierscale(capsys, "explain", made / "a.png")
    assert code == 2 and "a.png" in err
    code, _, err = tierscale(capsys, "explain", made / "none.zarr", "--png", made / "x.jpg")
    assert code == 2 and "x.jpg" in err


def test_a_plan_draws_the_curve_of_its_image(capsys, made):
    line = (
        "plan",
        made / "a.png",
        made / "o.zarr",
        "--ray",
        "none",
        "--tile",
        32,
        "--tiers",
        TIERS,
    )
    code, out, err = tierscale(
        capsys, *line, "--budget", "0.4", "--curve", made / "curve.png", "--json"
    )
    assert code == 0, err
    told = json.loads(out)
    shares, losses = zip(*told["curve"], strict=True)
    assert (
        list(shares) == sorted(shares)
        and list(losses) == sorted(losses, reverse=True)
        and losses[-1] == pytest.approx(0, abs=1e-4)
    )
    assert losses[-1] <= told["lost"] <= losses[0]
    with Image.open(told["files"]["curve"]) as picture:
        assert picture.size == chart.SIZE
    assert not (made / "o.zarr").exists() and not (made / "o.zarr.tierscale").exists()
    code, out, _ = tierscale(capsys, *line)
    assert code == 0 and "predicted loss against the full tier" in out
    code, _, err = tierscale(capsys, *line, "--policy", "dearest", "--curve", made / "other.png")
    assert code == 2 and not (made / "other.png").exists()
    assert tierscale(capsys, *line, "--curve", made / "other.svg")[0] == 2
    code, _, err = tierscale(capsys, *line, "--curve", made / "nowhere/curve.png")
    assert code == 2 and "there is no folder" in err and not (made / "nowhere").exists()


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([0.0, 1.0], [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        ([3.0], None),
        ([-0.3, 0.0], [-0.3, -0.25, -0.2, -0.15, -0.1, -0.05, 0.0]),
        ([0.0, 0.0], None),
    ],
)
def test_ticks_are_round_and_hold_all_values(values, wanted):
    found = chart.ticks(values)
    assert found[0] <= min(values) and found[-1] >= max(values) and 2 <= len(found) <= 12
    if wanted is not None and len(wanted) == len(found):
        assert found == pytest.approx(wanted)


def test_a_chart_of_one_point_can_be_drawn():
    assert (
        chart.chart("t", "x", "y", [Line("a", [(1.0, 2.0)], dots=True, names=["here"])]).size
        == chart.SIZE
    )


def test_an_output_without_its_array_is_refused(tmp_path, capsys, made):
    output = upscaled(capsys, made, "gone.zarr", "--policy", "cheapest")
    output.rename(tmp_path / "elsewhere")
    with pytest.raises(Refused, match="not there any more"):
        explain.draw(str(output))
