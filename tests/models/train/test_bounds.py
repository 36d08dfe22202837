"""The bound on a card is the worst tile that a network makes of pictures, less a margin."""

import json
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from tierscale.models import registry, weights
from tierscale.models.fidelity import Bound, bound_of
from tierscale.models.train import measure
from tierscale.models.train.bounds import (
    KINDS,
    MARGIN,
    SCALES,
    Pictures,
    averages,
    measure_bound,
    tile_fidelities,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of one folder with two photos."""
    photos = tmp_path / "eval" / "some"
    photos.mkdir(parents=True)
    for number in (0, 1):
        part = skimage.data.coffee()[60 * number :][:288, 100:388]
        Image.fromarray(part).save(photos / f"{number}.png")
    return tmp_path / "eval"


def test_it_is_the_worst_tile_less_a_margin(folder: Path) -> None:
    upscaler, pictures = registry.load("fsrcnn-x4"), Pictures((folder / "some",))
    found = [tile_fidelities(upscaler, one, Fraction(4), 1) for one in pictures.at(Fraction(4))]
    worst = min(float(one.min()) for one in found)
    entry = measure_bound("fsrcnn-x4", {}, folder)
    assert entry["bound"] == pytest.approx(worst - MARGIN, abs=0.06)
    assert entry["tiles"] == sum(map(len, found)) == 2 and entry["block"] == 1
    assert measure_bound("fsrcnn-x4", {}, folder, most=1)["tiles"] == 1


def test_what_a_run_finds_is_what_the_bound_is_measured_by(folder: Path, tmp_path: Path) -> None:
    """The same figure as in the receipt of an image that is one tile."""
    from tests.pipeline.run.upscaling import upscale
    from tierscale.pipeline.plan.options import Options

    picture = next(Pictures((folder / "some",)).at(Fraction(4)))
    eight = (picture * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(eight).save(tmp_path / "small.png")
    summary = upscale(tmp_path / "small.png", tmp_path / "a.zarr", Options(tiers=("edsr-x4",)))
    (wanted,) = tile_fidelities(registry.load("edsr-x4"), picture, Fraction(4), 1)
    assert summary.fidelity is not None
    assert summary.fidelity.decibels == pytest.approx(wanted, abs=0.05)


def test_a_network_of_any_scale_is_measured_at_some(folder: Path) -> None:
    assert measure_bound("bicubic", {}, folder, most=1)["tiles"] >= len(SCALES)


def test_pictures_are_of_eight_bits_and_damaged_alike_each_time(folder: Path) -> None:
    pictures = Pictures((folder / "some",), most=1, kinds=KINDS)
    first, second = (list(pictures.at(Fraction(2))) for _ in range(2))
    assert len(first) == len(KINDS) and all(map(torch.equal, first, second))
    assert all(torch.equal((one * 255).round() / 255, one) for one in first)
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize(
    ("card", "wanted"),
    [
        ({"stages": [{"schedule": {"family": "clean"}}, {"schedule": {"family": "photo"}}]}, True),
        ({"stages": [{"schedule": {"rate": 1e-3}}, {"schedule": None}]}, False),
        ({}, False),
    ],
)
def test_networks_that_were_trained_on_damage_take_grain_away(card, wanted) -> None:
    assert averages(card) == wanted


def test_photo_networks_are_measured_on_damage_and_by_averages(folder: Path) -> None:
    card = {"stages": [{"schedule": {"family": "photo"}}]}
    entry = measure_bound("fsrcnn-x4", card, folder, most=1)
    assert entry["block"] == 8 and entry["tiles"] == len(KINDS)
    assert bound_of({"fidelity": entry}) == Bound(entry["bound"], 8)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["measure", *map(str, arguments)])
    return measure.main()


def test_the_command_adds_it_to_the_card_beside_somebodys_weights(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine.safetensors"
    mine.write_bytes(weights.locate("fsrcnn-x4").read_bytes())
    mine.with_suffix(".json").write_text('{"name": "mine"}')
    name = f"file:{mine}"
    assert run(monkeypatch, name, "--eval", folder, "--only", "fidelity", "--most", 1) == 0
    card = json.loads(mine.with_suffix(".json").read_text())
    assert card["name"] == "mine" and weights.card(name) == card
    assert bound_of(card) == Bound(card["fidelity"]["bound"])
    np.testing.assert_allclose(card["fidelity"]["worst"] - MARGIN, card["fidelity"]["bound"])


def test_an_unknown_network_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "edsr-x9", "--eval", folder, "--only", "fidelity") == 2
    assert "there is no upscaler 'edsr-x9'" in capsys.readouterr().err
