"""Why an output came out as it did: where the compute went, and the maps."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.pipeline.output.conftest import OPTIONS
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.output import explain, tile_table
from tierscale.pipeline.output.receipts import Folder


def test_what_each_tier_took_adds_up(command, output, tmp_path):
    code, out, err = command("explain", output, "--json", "--png", tmp_path / "maps.png")
    assert code == 0, err
    content, table = json.loads(out), tile_table.read(Folder(str(output)).path)
    light, full = content["tiers"]
    assert light["tiles"] + full["tiles"] == table.num_rows == 5 * 7
    cost = pytest.approx(sum(table["cost"].to_pylist()))
    assert light["cost"] + full["cost"] == cost and content["cost"] == cost
    assert 0 <= light["saved"] < full["saved"] < 1
    assert content["lost"] > 0 and content["halo"] > 0 and 0 < content["share"] <= 0.5
    assert content["shards"] == {"done": 2, "total": 2} and content["asked"] == 0.5
    assert content["files"] == {"explain": str(tmp_path / "maps.png")}
    with Image.open(tmp_path / "maps.png") as picture:
        colours = np.unique(np.asarray(picture).reshape(-1, 3), axis=0)
        assert picture.width > 960 and len(colours) > 100


def test_the_text_names_tiers_and_calls_the_last_one_full(command, output, tmp_path):
    code, out, _ = command("explain", output, "--png", tmp_path / "own.png")
    assert code == 0 and (tmp_path / "own.png").exists()
    assert "fsrcnn-x4" in out and "dB below the full tier" in out and "dearest" not in out


def test_one_tier_for_all_is_explained_too(command, photo, tmp_path):
    output = tmp_path / "full.zarr"
    assert command("upscale", photo, output, *OPTIONS, "--policy", "full")[0] == 0
    explanation = explain.explain(str(output))
    assert explanation.scores == "none" and explanation.lost is None
    assert [use.saved for use in explanation.tiers] == [None, None]
    assert [use.tiles for use in explanation.tiers] == [0, 35]
    assert explain.draw(str(output)).width > 0


def test_an_unfinished_output_is_explained_as_planned(command, photo, tmp_path):
    output = tmp_path / "half.zarr"
    assert command("upscale", photo, output, *OPTIONS, "--budget", "0.5")[0] == 0
    folder = Folder(str(output))
    unfinished = tile_table.to_parquet(folder.plan(), tile_table.read_scores(folder.path, 2))
    (folder.path / tile_table.NAME).write_bytes(unfinished)  # as it is before the run is closed
    next((folder.path / "receipts/0").iterdir()).unlink()
    code, out, _ = command("explain", output)
    assert code == 0 and "unfinished: 1 of 2" in out and "policy budget 0.5" in out
    assert " 0 multiply-adds" not in out
    grey = np.asarray(explain.draw(str(output)).convert("L"))
    assert grey[:300, :300].mean() > 60, "the map of what is not written yet is not black"


def test_an_image_that_is_easy_all_over_looks_easy(command, tmp_path):
    Image.new("RGB", (100, 100), (90, 90, 90)).save(tmp_path / "flat.png")
    output = tmp_path / "flat.zarr"
    assert command("upscale", tmp_path / "flat.png", output, *OPTIONS, "--budget", "0.5")[0] == 0
    assert [use.tiles for use in explain.explain(str(output)).tiers][1:] == [0]
    picture = np.asarray(explain.draw(str(output))).astype(int)
    height, width = picture.shape[:2]
    colour = picture[height // 3, 3 * width // 4]
    assert colour[2] > colour[0] and colour[2] > colour[1] and colour.sum() < 300, "dark blue"


def test_what_is_no_output_of_ours_is_refused(command, photo, tmp_path):
    code, _, err = command("explain", photo)
    assert code == 2 and "coffee.png" in err
    code, _, err = command("explain", tmp_path / "none.zarr", "--png", tmp_path / "x.jpg")
    assert code == 2 and "x.jpg" in err


def test_an_output_without_its_array_is_refused(command, photo, tmp_path):
    output = tmp_path / "gone.zarr"
    assert command("upscale", photo, output, *OPTIONS, "--policy", "light")[0] == 0
    output.rename(tmp_path / "elsewhere")
    with pytest.raises(Refused, match="not there any more"):
        explain.draw(str(output))


def test_a_plan_draws_the_curve_of_its_image(command, photo, tmp_path):
    line = ("plan", photo, tmp_path / "o.zarr", *OPTIONS)
    curve = tmp_path / "curve.png"
    code, out, err = command(*line, "--budget", "0.4", "--curve", curve, "--json")
    assert code == 0, err
    content = json.loads(out)
    shares, losses = zip(*content["curve"], strict=True)
    assert list(shares) == sorted(shares) and list(losses) == sorted(losses, reverse=True)
    assert losses[-1] == pytest.approx(0, abs=1e-4)
    assert losses[-1] <= content["lost"] <= losses[0]
    with Image.open(content["files"]["curve"]) as picture:
        assert picture.format == "PNG" and picture.size == (960, 600)
    assert [path.name for path in tmp_path.iterdir()] == ["curve.png"]
    code, out, _ = command(*line)
    assert code == 0 and "predicted loss against the full tier" in out


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--policy", "full", "--curve", "other.png"), "scores no tiles"),
        (("--curve", "other.svg"), "does not end in .png"),
        (("--curve", "nowhere/curve.png"), "there is no folder"),
    ],
)
def test_a_curve_that_cannot_be_drawn_is_refused_before_any_work(
    command, photo, tmp_path, options, reason
):
    *start, name = options
    code, _, err = command("plan", photo, tmp_path / "o.zarr", *OPTIONS, *start, tmp_path / name)
    assert code == 2 and reason in err and not list(tmp_path.iterdir())
