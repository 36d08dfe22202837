"""PSNR and SSIM over a folder, for every policy, and images that fail."""

import json

import numpy as np
import pytest
import skimage.data
from PIL import Image

from tests.commands import check_refusal, tierscale


def test_evaluate_measures_by_the_protocol(capsys, tmp_path):
    Image.fromarray(skimage.data.coffee()[:131, :123]).save(tmp_path / "colour.png")
    Image.fromarray(skimage.data.camera()[:100, :100]).save(tmp_path / "grey.png")
    code, out, err = tierscale(
        capsys,
        "evaluate",
        "--hr",
        tmp_path,
        "--tiers",
        "bicubic,fsrcnn-x4",
        "--policy",
        "full",
        "--json",
    )
    assert code == 0, err
    found = json.loads(out)
    assert found["protocol"] == "rgb, shave=scale, float lr" and {
        image["name"] for image in found["images"]
    } == {"colour.png", "grey.png"}
    coloured = next(image for image in found["images"] if image["name"] == "colour.png")
    assert found["mean"]["psnr"] == coloured["psnr"] > 20 and coloured[
        "cost_share"
    ] == pytest.approx(1, rel=1e-3)
    check_refusal(tierscale(capsys, "evaluate", "--hr", tmp_path / "none"), 2, "there is no folder")
    (tmp_path / "empty").mkdir()
    check_refusal(tierscale(capsys, "evaluate", "--hr", tmp_path / "empty"), 2, "holds no images")


def test_evaluate_takes_images_of_one_or_three_colours(capsys, tmp_path):
    np.save(tmp_path / "five.npy", np.zeros((5, 64, 64), np.uint8))
    code, out, _ = tierscale(capsys, "evaluate", "--hr", tmp_path, "--tiers", "bicubic", "--json")
    assert code == 1 and "five.npy holds 5 channels" in json.loads(out)["images"][0]["error"]


def test_evaluate_lists_what_fails_and_goes_on(capsys, image, tmp_path):
    (tmp_path / "a broken.png").write_bytes(image.read_bytes()[:200])
    Image.fromarray(np.zeros((3, 3, 3), np.uint8)).save(tmp_path / "small.png")
    command = ("evaluate", "--hr", tmp_path, "--tiers", "bicubic", "--scale", "4")
    code, out, err = tierscale(capsys, *command, "--json")
    found = json.loads(out)
    assert (code, found["status"]) == (1, "failed") and "2 of 3 images failed" in found["error"]
    assert err == "tierscale: 2 of 3 images failed\n"
    broken, good, small = found["images"]
    assert (
        "a broken.png" in broken["error"]
        and broken["psnr"] is None
        and small["psnr"] is None
        and "0x0" in small["error"]
    )
    assert good["error"] is None and found["mean"]["psnr"] == good["psnr"] > 0
    code, out, _ = tierscale(capsys, *command)
    assert code == 1 and "a broken.png" in out and "failed: " in out


@pytest.mark.parametrize(
    "policy",
    [
        ("--max-loss", "0.05"),
        ("--policy", "max-loss", "--max-loss", "0.05"),
        ("--deadline", "60s"),
        ("--budget", "0.5"),
        ("--policy", "adaptive"),
        ("--policy", "light"),
    ],
    ids=" ".join,
)
def test_every_policy_can_be_evaluated(capsys, tmp_path, policy):
    Image.fromarray(skimage.data.coffee()[:96, :128]).save(tmp_path / "coffee.png")
    line = ("evaluate", "--hr", tmp_path, "--tiers", "bicubic,fsrcnn-x4", "--tile", "8")
    code, out, err = tierscale(capsys, *line, *policy, "--json")
    assert code == 0, err
    (found,) = json.loads(out)["images"]
    assert 20 < found["psnr"] < 60 and 0 < found["cost_share"] <= 1 + 1e-9


def test_a_larger_loss_may_cost_less_and_a_deadline_that_cannot_be_met_fails(capsys, tmp_path):
    Image.fromarray(skimage.data.coffee()[:96, :128]).save(tmp_path / "coffee.png")
    line = ("evaluate", "--hr", tmp_path, "--tiers", "bicubic,fsrcnn-x4", "--tile", "8", "--json")

    def cost(loss):
        code, out, err = tierscale(capsys, *line, "--max-loss", loss)
        assert code == 0, err
        return json.loads(out)["images"][0]["cost_share"]

    assert cost(3) < cost(0)
    code, out, _ = tierscale(capsys, *line, "--deadline", "0.0001s")
    assert code == 1 and "too few" in json.loads(out)["images"][0]["error"]


def test_evaluate_damages_the_small_images_first(capsys, tmp_path):
    Image.fromarray(skimage.data.coffee()[:128, :128]).save(tmp_path / "colour.png")
    Image.fromarray(skimage.data.camera()[:128, :128]).save(tmp_path / "grey.png")
    command = ("evaluate", "--hr", tmp_path, "--tiers", "bicubic", "--json")

    def figures(*more):
        code, out, err = tierscale(capsys, *command, *more)
        assert code == 0, err
        return json.loads(out)

    plain, clean, coded, both = (
        figures(*more)
        for more in (
            (),
            ("--degrade", "clean"),
            ("--degrade", "jpeg30"),
            ("--degrade", "grain8+jpeg30"),
        )
    )
    assert clean["mean"]["psnr"] == pytest.approx(plain["mean"]["psnr"], abs=0.05)
    assert clean["mean"]["psnr"] - 0.3 > coded["mean"]["psnr"] > both["mean"]["psnr"]
    for found in (plain, coded):
        colour, grey = found["images"]
        assert colour["bicubic"] == pytest.approx(colour["psnr"], abs=1e-4)
        assert found["mean"]["psnr"] == colour["psnr"]
        assert found["mean_all"]["psnr"] == pytest.approx((colour["psnr"] + grey["psnr"]) / 2)
    assert figures("--degrade", "grain8+jpeg30")["mean_all"]["psnr"] == both["mean_all"]["psnr"]
    check_refusal(tierscale(capsys, *command[:-1], "--degrade", "jpg5"), 2, "no degradation 'jpg5'")
