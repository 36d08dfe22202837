"""Fitting the judge of kinds: what is measured on a damaged tile, and that fitting learns it."""

import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import skimage.data
import torch

from tierscale.models import registry
from tierscale.models.kind import SIDE, read_kind_network
from tierscale.models.train import kinds
from tierscale.models.train.data.degradations import Codec, Grain, coded, grain
from tierscale.models.train.data.mixture import Damage
from tierscale.models.train.data.photos import photo
from tierscale.models.train.data.shrink import shrink
from tierscale.models.train.kinds import OTHERS, fit, measured, random_kind, sample

COFFEE = torch.from_numpy(skimage.data.coffee()).permute(2, 0, 1).contiguous()


def photos():
    return [photo("coffee", COFFEE, 4)]


def families():
    return [registry.load(name) for name in ("edsr-x4", "fsrcnn-x4")]


def noisy(levels, rng):
    sigma = float(rng.choice([0.0, 12.0]))
    steps = (lambda levels: grain(levels, Grain(sigma), rng),)
    return Damage(steps if sigma else (), grain=sigma)


def test_what_is_measured_is_the_error_inside_the_rim():
    truth = COFFEE[:, : 4 * SIDE, : 4 * SIDE] / 255
    bicubic, edsr, fsrcnn = measured(shrink(truth, 4), truth, families(), 4)
    assert bicubic > fsrcnn > edsr > 0


def test_a_sample_follows_from_its_seed_and_says_what_was_done(monkeypatch):
    monkeypatch.setattr(kinds, "random_kind", noisy)
    drawn = [sample(photos(), families(), (3, index)) for index in range(6)]
    again = sample(photos(), families(), (3, 0))
    assert torch.equal(again.tile, drawn[0].tile) and torch.equal(again.target, drawn[0].target)
    assert {round(one.target[1].item(), 3) for one in drawn} == {0.0, round(12 / 15, 3)}
    assert all(one.tile.shape == (3, SIDE, SIDE) for one in drawn)


@pytest.mark.parametrize("other", OTHERS, ids=lambda other: other.__name__)
def test_other_kinds_keep_the_size_and_change_the_picture(other):
    levels = shrink(COFFEE[:, :320, :320], 4)
    changed = other(levels, np.random.default_rng(1)).apply(levels)
    assert changed.shape == levels.shape and (changed - levels).abs().mean() > 0.5


def test_a_quarter_is_clean_and_a_quarter_of_other_kinds():
    rng, levels = np.random.default_rng(2), torch.zeros(3, 96, 96)
    drawn = [random_kind(levels, rng) for _ in range(1000)]
    assert 0.28 < sum(not damage.steps for damage in drawn) / 1000 < 0.42


@pytest.mark.slow
def test_fitting_tells_grain_from_none(monkeypatch):
    monkeypatch.setattr(kinds, "random_kind", noisy)
    drawn = [sample(photos(), families(), (1, index)) for index in range(96)]
    network = fit(drawn, 4, epochs=8, seed=0)
    tests = [sample(photos(), families(), (2, index)) for index in range(24)]
    with torch.inference_mode():
        tiles = torch.stack([one.tile for one in tests]).float() / 255
        found = network(tiles, torch.zeros(len(tests), 2))[:, 1]
    known = torch.stack([one.target for one in tests])[:, 1]
    assert found[known > 0.5].min() > found[known < 0.5].max()


def pressed(levels, rng):
    codec = Codec(str(rng.choice(["JPEG", "WEBP"])), 40)
    return Damage((partial(coded, codec=codec),), quality=40, last=codec)


def test_a_sample_knows_the_jpeg_that_it_would_be_read_from(monkeypatch):
    monkeypatch.setattr(kinds, "random_kind", pressed)
    drawn = [sample(photos(), families(), (3, index)) for index in range(8)]
    assert {one.quality for one in drawn} == {40, None}


@pytest.mark.slow
def test_the_command_writes_a_network(tmp_path):
    from PIL import Image

    (tmp_path / "hr").mkdir()
    Image.fromarray(skimage.data.coffee()).save(tmp_path / "hr" / "coffee.png")
    out = tmp_path / "kind.safetensors"
    names = ("--clean", "edsr-x4", "--photo", "fsrcnn-x4", "--samples", "33", "--epochs", "1")
    command = (sys.executable, "-m", "tierscale.models.train.kinds", "--hr", tmp_path / "hr")
    done = subprocess.run([*command, *names, "--out", out], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert read_kind_network(out).scale == 4
