"""Damaged training pairs fit each other, and their mixture is as stated."""

import numpy as np
import skimage.data
import torch

from tierscale.models.train.data import mixture
from tierscale.models.train.data.crops import draw
from tierscale.models.train.data.degradations import sharpened
from tierscale.models.train.data.mixture import MARGIN, Damage, damaged, random_damage
from tierscale.models.train.data.photos import photo
from tierscale.models.train.data.shrink import shrink

COFFEE = torch.from_numpy(skimage.data.coffee()).permute(2, 0, 1).contiguous()


def rng(seed=0):
    return np.random.default_rng(seed)


def test_a_seventh_is_clean_and_the_rest_is_mixed():
    mixed = [random_damage(generator) for generator in [rng(3)] for _ in range(2000)]
    clean = sum(not damage.steps for damage in mixed) / len(mixed)
    # Of six sevenths, a share escapes every damage by chance.
    assert 1 / 7 <= clean < 0.2
    assert max(len(damage.steps) for damage in mixed) == 5
    assert 0.09 < sum(damage.sharpening is not None for damage in mixed) / len(mixed) < 0.18


def test_the_coding_is_named_where_it_is_the_last_step():
    mixed = [random_damage(generator) for generator in [rng(3)] for _ in range(1000)]
    assert {damage.last is None for damage in mixed} == {True, False}
    for damage in mixed:
        codec = damage.steps[-1].keywords.get("codec") if damage.steps else None
        assert damage.last == codec


def pair(crop=24, scale=4):
    whole = photo("coffee", COFFEE[:, :384, :512], scale)
    side = crop + 2 * MARGIN
    return whole.lr[:, :side, :side], whole.hr[:, : side * scale, : side * scale]


def test_a_pair_fits_wherever_it_is_cut(monkeypatch):
    monkeypatch.setattr(mixture, "random_damage", lambda rng: Damage(()))
    for seed in range(5):
        small, large = damaged(*pair(), rng(seed))
        assert small.shape == (3, 24, 24) and large.shape == (3, 96, 96)
        again = shrink(large, 4) / 255
        assert (again - small)[:, 3:-3, 3:-3].abs().max() < 0.01


def test_the_truth_of_a_sharpened_crop_is_sharpened_alike(monkeypatch):
    radius, amount = 1.0, 1.0

    def sharpening(rng):
        return Damage((lambda levels: sharpened(levels, radius, amount),), (radius, amount))

    monkeypatch.setattr(mixture, "random_damage", sharpening)
    small, large = damaged(*pair(), rng(1))
    again = shrink(large, 4) / 255
    inner = (slice(None), slice(3, -3), slice(3, -3))
    assert (again - small)[inner].abs().mean() < 0.01
    monkeypatch.setattr(mixture, "random_damage", lambda rng: Damage(()))
    plain, _ = damaged(*pair(), rng(1))
    assert (again - plain)[inner].abs().mean() > 0.015


def test_crops_that_are_damaged_follow_from_the_seed():
    photos = [photo("coffee", COFFEE, 4)]
    one, again, other = (draw(photos, 16, 6, (7, step), (damaged, MARGIN)) for step in (1, 1, 2))
    assert one[0].shape == (6, 3, 16, 16) and one[1].shape == (6, 3, 64, 64)
    assert torch.equal(one[0], again[0]) and torch.equal(one[1], again[1])
    assert not torch.equal(one[0], other[0])
    levels = one[0] * 255
    assert torch.allclose(levels, levels.round(), atol=1e-3)
