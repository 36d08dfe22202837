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


def test_models_says_what_is_known_of_one(capsys, tmp_path):
    file = f"file:{models.locate('fsrcnn-x4')}"
    for name in ("fsrcnn-x4", file):
        code, out, _ = tierscale(capsys, "models", name, "--json")
        found = json.loads(out)["model"]
        assert code == 0 and found["name"] == name and found["scales"] == ["4"]
        assert found["cost_per_pixel"] > 1000 and found["bytes_per_pixel"] > 100
    lines = tierscale(capsys, "models", "edsr-x4")[1]
    assert "scale            x4" in lines and "PSNR on Set14" in lines
    check_refusal(tierscale(capsys, "models", "esdr-x4"), 2, "there is no upscaler 'esdr-x4'")
    (tmp_path / "x.pth").write_bytes(b"GGUF")
    check_refusal(tierscale(capsys, "models", f"file:{tmp_path / 'x.pth'}"), 2, "a GGUF file")


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
