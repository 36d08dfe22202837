"""Each damage does what it says; degradations are read and refused."""

import numpy as np
import pytest
import skimage.data
import torch

from tierscale.models.train.data.degradations import (
    Codec,
    Grain,
    blur,
    coded,
    degrade,
    gaussian,
    grain,
    parse_degradation,
    seeded,
    sharpened,
)
from tierscale.models.train.data.shrink import shrink

COFFEE = torch.from_numpy(skimage.data.coffee()).permute(2, 0, 1).contiguous()


def picture():
    return shrink(COFFEE[:, :384, :512], 4)


def rng(seed=0):
    return np.random.default_rng(seed)


def detail(levels):
    """Mean squared difference of neighbours."""
    return (levels[..., 1:] - levels[..., :-1]).square().mean().item()


def test_kinds_are_read_in_their_order():
    assert parse_degradation("clean") == ()
    assert parse_degradation("blur1.5+grain4+jpeg60") == (("blur", 1.5), ("grain", 4), ("jpeg", 60))
    assert parse_degradation("jpeg60+grain4") == (("jpeg", 60), ("grain", 4))


@pytest.mark.parametrize(
    "text", ["", "jpeg0", "jpeg101", "jpeg5.5", "grain", "blur-1", "clean+jpeg5"]
)
def test_other_degradations_are_refused(text):
    with pytest.raises(ValueError, match="there is no degradation"):
        parse_degradation(text)


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
