"""Networks in bfloat16: near float32, the same however windows are cut, decided as in float32."""

import copy
from fractions import Fraction

import numpy as np
import pytest
import skimage.data
import torch

from tests.models.plain_networks import NETWORKS, make, whole
from tierscale.models import registry
from tierscale.models.contract.modules import dtype_of
from tierscale.models.contract.upscaler import Placement

pytestmark = pytest.mark.usefixtures("one_thread")

DETAIL = [kind for kind in NETWORKS if kind != "vdsr"]
QUICK = ("fsrcnn-x4", "edsr-x4")
SLOW = ("carn-x4", "edsr64-x4", "classsr-carn-x4@0.6", "ape-edsr-x4", "adaedsr-x4@0.5")
ANY = "anysr-edsr"


def picture(height, width):
    """A part of a photo, (1, 3, height, width), 0..1."""
    part = skimage.data.astronaut()[40 : 40 + height, 150 : 150 + width]
    return torch.from_numpy(np.ascontiguousarray(part.transpose(2, 0, 1)))[None] / 255


def levels(pixels):
    return (pixels.clamp(0, 1) * 255).round()


@pytest.mark.parametrize("kind", DETAIL)
def test_weights_and_maps_are_bfloat16_and_windows_and_pixels_are_not(kind):
    upscaler, x = make(kind, 4), torch.rand(1, 3, 30, 26)
    exact = upscaler(x, whole(x, 4)).pixels
    lowered = copy.deepcopy(upscaler).to_bfloat16()
    assert lowered.has_bfloat16 and dtype_of(lowered.network) == torch.bfloat16
    assert lowered.mean.dtype == lowered.weight.dtype == torch.float32
    with torch.inference_mode():
        made = lowered(x, whole(x, 4)).pixels
        at_once = lowered._enlarge(x, streamed=False)
    assert made.dtype == at_once.dtype == torch.float32
    size = exact.std().item()
    assert 0 < (made - exact).abs().max() < 0.1 * size
    assert (at_once - exact).abs().max() < 0.1 * size


@pytest.mark.parametrize(("kind", "residual"), [("vdsr", "bilinear"), ("edsr", None)])
def test_a_network_that_makes_the_whole_picture_stays_float32(kind, residual):
    upscaler, x = make(kind, 4, residual), torch.rand(1, 3, 12, 12)
    before = upscaler(x, whole(x, 4)).pixels
    assert not upscaler.has_bfloat16
    assert torch.equal(upscaler.to_bfloat16()(x, whole(x, 4)).pixels, before)


@pytest.mark.parametrize("kind", DETAIL)
def test_a_window_gives_the_same_bits_alone_and_in_a_batch(kind):
    upscaler, x = make(kind, 4).to_bfloat16(), torch.rand(2, 3, 20, 31)
    with torch.inference_mode():
        together = upscaler(x, whole(x, 4)).pixels
        alone = torch.cat([upscaler(x[i : i + 1], whole(x[:1], 4)).pixels for i in range(2)])
    assert torch.equal(together, alone)


@pytest.mark.parametrize(
    "name", [*QUICK, ANY, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_a_zoo_network_is_near_float32_and_decides_as_it(name):
    network, effort = registry.parse_tier(name)
    exact = registry.load(network)
    lowered = registry.load_weights(network, bfloat16=True).upscaler
    x = picture(96, 120)
    place, share = Placement.whole((96, 120), Fraction(4)), float(effort or 1)
    with torch.inference_mode():
        one, other = exact(x, place, share), lowered(x, place, share)
    apart = (levels(one.pixels) - levels(other.pixels)).abs()
    assert apart.max() <= 4 and (apart > 1).float().mean() <= 1e-4
    assert not torch.equal(one.pixels, other.pixels)
    if one.choice is not None and other.choice is not None and not name.startswith("adaedsr"):
        assert torch.equal(one.choice, other.choice)


@pytest.mark.parametrize("name", [*QUICK, pytest.param("carn-x4", marks=pytest.mark.slow)])
def test_tiled_equals_whole(name):
    upscaler = registry.load_weights(name, bfloat16=True).upscaler
    x, scale = picture(150, 90), Fraction(4)
    top = 75 + upscaler.reach
    with torch.inference_mode():
        whole_image = upscaler(x, Placement.whole((150, 90), scale)).pixels[:, :, :300]
        tile = upscaler(x[:, :, :top], Placement(scale, (150, 90), ((0, 0),))).pixels[:, :, :300]
    apart = (levels(whole_image) - levels(tile)).abs()
    assert apart.max() <= 2 and (apart > 1).float().mean() <= 1e-4


@pytest.mark.parametrize("name", ["pcsr-fsrcnn-x4", "ape-edsr-x4"])
def test_where_features_decide_hard_they_are_float32(name):
    x, place = picture(40, 40), Placement.whole((40, 40), Fraction(4))
    exact = registry.load(name)
    lowered = registry.load_weights(name, bfloat16=True).upscaler
    assert lowered.has_bfloat16 == (name == "ape-edsr-x4")
    assert torch.equal(exact(x, place, 0.6).pixels, lowered(x, place, 0.6).pixels)


def test_turned_and_mixed_networks_are_lowered_too():
    for name in ("fsrcnn-x4+2", "edsr-x4*0.5+edsr-x4-photo*0.5"):
        assert registry.load_weights(name, bfloat16=True).upscaler.has_bfloat16
    kept = registry.load("fsrcnn-x4")
    assert dtype_of(kept.network) == torch.float32


def test_a_plain_network_lists_its_multiply_adds_alike_in_both():
    exact, lowered = make("edsr", 4), make("edsr", 4).to_bfloat16()
    assert exact.count(40, 50) == lowered.count(40, 50)
