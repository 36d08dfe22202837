"""The list of networks, and checkpoints that cannot be read or written."""

import json

from tests.commands import check_refusal, tierscale
from tierscale.models import registry as models


def test_models_lists_what_can_be_a_tier(capsys):
    code, out, _ = tierscale(capsys, "models", "--json")
    names = {entry["name"] for entry in json.loads(out)["models"]}
    assert code == 0 and {"bicubic", "fsrcnn-x4", "carn-x4"} <= names
    assert {"name", "scales", "parameters", "reach", "cost_per_pixel", "psnr"} <= set(
        json.loads(out)["models"][0]
    )
    assert "carn-x4" in tierscale(capsys, "models")[1]


def test_what_cannot_be_read_or_written_is_one_sentence_in_every_command(capsys, image, tmp_path):
    lost = tmp_path / "none" / "x.safetensors"
    weights = models.locate("fsrcnn-x4")
    check_refusal(
        tierscale(
            capsys, "plan", image, tmp_path / "b.zarr", "--curve", image / "c.png", "--ray", "none"
        ),
        2,
        "no folder",
        "a.png",
    )
    check_refusal(
        tierscale(capsys, "models", "convert", weights, "--method", "fsrcnn", "-o", lost), 2
    )
    (tmp_path / "empty.pth").touch()
    check_refusal(
        tierscale(
            capsys,
            "models",
            "convert",
            tmp_path / "empty.pth",
            "--method",
            "edsr",
            "-o",
            tmp_path / "x.safetensors",
        ),
        2,
        "empty.pth",
    )
