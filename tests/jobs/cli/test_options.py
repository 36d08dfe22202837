"""Policies as people ask for them: by name, by their number, by the names of version 0.1."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.command import tierscale
from tierscale.jobs.cli.options import TimeType

TIERS = ("--tiers", "bicubic,fsrcnn-x4")


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("6h", 21600), ("90m", 5400), ("1h30m", 5400), ("45s", 45), ("45", 45), ("0.5h", 1800)],
)
def test_times_as_people_write_them(text, seconds):
    assert TimeType().convert(text, None, None) == seconds


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--policy", "max-loss"), ("max-loss", "--max-loss and a number")),
        (("--policy", "quality"), ("--max-loss and a number",)),
        (("--lose", "-1"), ("-1 dB", "--max-loss 0.02")),
        (("--policy", "deadline"), ("--deadline and a number",)),
        (("--deadline", "soon"), ("'soon'", "90m")),
        (("--deadline", "0s"), ("--deadline",)),
        (("--budget", "0.5", "--policy", "full"), ("--budget", "ignored by full")),
    ],
)
def test_policies_that_lack_what_they_need(capsys, photo, tmp_path, options, words):
    code, _, err = tierscale(
        capsys, "plan", photo, tmp_path / "o.zarr", "--ray", "none", *TIERS, *options
    )
    assert code == 2 and len(err.strip().splitlines()) == 1
    for word in words:
        assert word in err


@pytest.mark.parametrize(
    ("options", "policy"),
    [
        (("--max-loss", "0.05"), {"name": "max-loss", "db": 0.05}),
        (("--lose", "0.05", "--policy", "quality"), {"name": "max-loss", "db": 0.05}),
        (("--deadline", "5m"), {"name": "deadline", "seconds": 300.0}),
        (("--policy", "dearest"), {"name": "full"}),
        (("--policy", "cheapest"), {"name": "light"}),
    ],
)
def test_the_command_takes_policies_and_goes_on_when_it_is_given_again(
    capsys, photo, tmp_path, options, policy
):
    line = (photo, tmp_path / "o.zarr", "--ray", "none", "--workers", 1, *TIERS, "--tile", 16)
    code, _, err = tierscale(capsys, "upscale", *line, "--json", *options)
    assert code == 0, err
    stored = json.loads((tmp_path / "o.zarr.tierscale/plan.json").read_text())
    assert stored["policy"] == policy
    code, out, err = tierscale(capsys, "upscale", *line, "--json", *options)
    assert code == 0 and json.loads(out)["shards"]["written"] == 0, err
