"""Each damage does what it says; training pairs fit each other; kinds are read and refused."""

import numpy as np
import pytest
import skimage.data
import torch

from tierscale.models.train import degradations
from tierscale.models.train.degradations import (
    MARGIN,
    Codec,
    Damage,
    Grain,
    blur,
    coded,
    damaged,
    degrade,
    gaussian,
    grain,
    parse_kind,
    random_damage,
    seeded,
    sharpened,
)
from tierscale.models.train.photos import draw, photo
from tierscale.models.train.shrink import shrink

COFFEE = torch.from_numpy(skimage.data.coffee()).permute(2, 0, 1).contiguous()


def picture():
    return shrink(COFFEE[:, :384, :512], 4)


def rng(seed=0):
    return np.random.default_rng(seed)


def detail(levels):
    """Mean squared difference of neighbours."""
    return (levels[..., 1:] - levels[..., :-1]).square().mean().item()


def test_kinds_are_read_in_their_order():
    assert parse_kind("clean") == ()
    assert parse_kind("blur1.5+grain4+jpeg60") == (("blur", 1.5), ("grain", 4), ("jpeg", 60))
    assert parse_kind("jpeg60+grain4") == (("jpeg", 60), ("grain", 4))


@pytest.mark.parametrize(
    "kind", ["", "jpeg0", "jpeg101", "jpeg5.5", "grain", "blur-1", "clean+jpeg5"]
)
def test_other_kinds_are_refused(kind):
    with pytest.raises(ValueError, match="there is no degradation"):
        parse_kind(kind)


def test_clean_only_rounds_to_8_bits():
    small = picture() / 255
    clean = degrade(small, "clean", rng())
    assert torch.equal(clean * 255, (small * 255).round().clamp(0, 255))


def test_grain_of_a_kind_is_grey_and_as_strong_as_it_says():
    grey = torch.full((3, 128, 128), 0.5)
    noise = (degrade(grey, "grain8", rng()) - grey) * 255
    assert torch.equal(noise[0], noise[1]) and torch.equal(noise[0], noise[2])
    assert noise.std().item() == pytest.approx(8, rel=0.03)


def test_equal_names_get_equal_grain_and_others_other_grain():
    small = picture() / 255
    one, again, other = (degrade(small, "grain8", seeded(n)) for n in ("a", "a", "b"))
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_grain_is_coloured_correlated_and_follows_the_signal():
    levels = torch.full((3, 256, 256), 128.0)
    levels[..., 128:] = 32.0
    coloured = grain(levels, Grain(8, coloured=True), rng()) - levels
    assert abs(np.corrcoef(coloured[0].ravel(), coloured[1].ravel())[0, 1]) < 0.02
    spread = (grain(levels, Grain(8, spread=0.8), rng()) - levels)[0]
    assert np.corrcoef(spread[:, 1:].ravel(), spread[:, :-1].ravel())[0, 1] > 0.3
    assert spread.std().item() == pytest.approx(8, rel=0.03)
    signal = (grain(levels, Grain(8, signal=True), rng()) - levels)[0]
    assert signal[:, :128].std().item() == pytest.approx(8 * (128 / 255) ** 0.5, rel=0.05)
    assert signal[:, 128:].std().item() == pytest.approx(8 * (32 / 255) ** 0.5, rel=0.05)


def test_blur_keeps_the_mean_and_is_narrow_across_its_direction():
    spot = torch.zeros(1, 33, 33)
    spot[0, 16, 16] = 255
    row, column = (
        (blur(spot, gaussian(1.5, 0.3, angle))[0].sum(dim=axis) > 5).sum().item()
        for angle, axis in ((0.0, 0), (0.0, 1))
    )
    assert row > column
    assert blur(spot, gaussian(1.0, 1.0, 0.0)).sum().item() == pytest.approx(255, rel=1e-4)
    # Second moment along one axis.
    blurred = blur(spot, gaussian(1.5, 1.5, 0.0))[0].sum(dim=0) / 255
    places = torch.arange(33) - 16
    assert (blurred * places.square()).sum().item() == pytest.approx(1.5**2, rel=0.03)


def test_sharpening_raises_detail_and_leaves_flat_areas():
    levels = picture()
    assert detail(sharpened(levels, 1.0, 1.0)) > 1.5 * detail(levels)
    flat = torch.full((3, 20, 20), 77.0)
    assert torch.allclose(sharpened(flat, 1.0, 1.5), flat, atol=1e-3)


@pytest.mark.parametrize("codec", ["JPEG", "WEBP"])
def test_lower_quality_is_further_from_the_picture(codec):
    levels = picture()
    far, near = (
        (coded(levels, Codec(codec, quality)) - levels).square().mean() for quality in (25, 95)
    )
    assert far > 3 * near > 0
    assert coded(levels[:1], Codec(codec, 50)).shape == levels[:1].shape


def test_colour_is_kept_at_full_resolution_where_asked():
    stripes = torch.zeros(3, 32, 32)
    stripes[0, :, ::2] = 255
    stripes[2, :, 1::2] = 255
    half, full = (coded(stripes, Codec("JPEG", 95, kept)) for kept in (False, True))
    assert (full - stripes).abs().mean() < 0.5 * (half - stripes).abs().mean()


def test_a_seventh_is_clean_and_the_rest_is_mixed():
    mixed = [random_damage(generator) for generator in [rng(3)] for _ in range(2000)]
    clean = sum(not damage.steps for damage in mixed) / len(mixed)
    # Of six sevenths, a share escapes every damage by chance.
    assert 1 / 7 <= clean < 0.2
    assert max(len(damage.steps) for damage in mixed) == 5
    assert 0.15 < sum(damage.sharpening is not None for damage in mixed) / len(mixed) < 0.3


def pair(crop=24, scale=4):
    whole = photo("coffee", COFFEE[:, :384, :512], scale)
    side = crop + 2 * MARGIN
    return whole.lr[:, :side, :side], whole.hr[:, : side * scale, : side * scale]


def test_a_pair_fits_wherever_it_is_cut(monkeypatch):
    monkeypatch.setattr(degradations, "random_damage", lambda rng: Damage(()))
    for seed in range(5):
        small, large = damaged(*pair(), rng(seed))
        assert small.shape == (3, 24, 24) and large.shape == (3, 96, 96)
        again = shrink(large, 4) / 255
        assert (again - small)[:, 3:-3, 3:-3].abs().max() < 0.01


def test_the_truth_of_a_sharpened_crop_is_sharpened_alike(monkeypatch):
    radius, amount = 1.0, 1.0

    def sharpening(rng):
        return Damage((lambda levels: sharpened(levels, radius, amount),), (radius, amount))

    monkeypatch.setattr(degradations, "random_damage", sharpening)
    small, large = damaged(*pair(), rng(1))
    again = shrink(large, 4) / 255
    inner = (slice(None), slice(3, -3), slice(3, -3))
    assert (again - small)[inner].abs().mean() < 0.01
    monkeypatch.setattr(degradations, "random_damage", lambda rng: Damage(()))
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
