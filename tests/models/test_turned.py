"""NAME+8: equal whichever way up its input lies, at the cost it says, and better than NAME."""

from fractions import Fraction

import pytest
import skimage.data
import torch

from tierscale.models import registry
from tierscale.models.contract.metrics import psnr
from tierscale.models.contract.upscaler import Placement
from tierscale.models.runtime.bicubic import Bicubic
from tierscale.models.train.data.shrink import shrink
from tierscale.models.turned import Turned, turn, turn_back, turn_placement

COFFEE = torch.from_numpy(skimage.data.coffee()).permute(2, 0, 1)[:, :256, :320].contiguous()


def small():
    return shrink(COFFEE, 4)[None] / 255


def whole(pixels):
    return Placement.whole((pixels.shape[-2], pixels.shape[-1]), Fraction(4))


def enlarged(upscaler, pixels):
    return upscaler(pixels, whole(pixels)).pixels


@pytest.mark.parametrize("way", range(8))
def test_a_turn_is_undone(way):
    pixels = small()
    assert torch.equal(turn_back(turn(pixels, way), way), pixels)
    assert way == 0 or not torch.equal(turn(pixels, way), pixels)


def test_the_eight_ways_differ():
    pixels = torch.arange(6.0).reshape(1, 1, 2, 3)
    found = {
        (turned.shape, tuple(turned.flatten())) for turned in (turn(pixels, w) for w in range(8))
    }
    assert len(found) == 8


@pytest.mark.parametrize("way", range(8))
def test_the_result_is_equal_whichever_way_up_the_input_lies(way):
    upscaler, pixels = registry.load("fsrcnn-x4+8"), small()
    turned = turn_back(enlarged(upscaler, turn(pixels, way)), way)
    assert torch.allclose(turned, enlarged(upscaler, pixels), atol=1e-5)


@pytest.mark.parametrize("way", range(8))
def test_a_window_is_placed_where_its_pixels_are_in_the_turned_image(way):
    pixels, (top, left), (height, width) = small(), (5, 30), (20, 31)
    window = pixels[..., top : top + height, left : left + width]
    place = Placement(Fraction(4), (pixels.shape[-2], pixels.shape[-1]), ((top, left),))
    turned = turn_placement(place, (height, width), way)
    image, part = turn(pixels, way), turn(window, way)
    (y, x), (h, w) = turned.origins[0], part.shape[-2:]
    assert turned.size == tuple(image.shape[-2:])
    assert torch.equal(image[..., y : y + h, x : x + w], part)


@pytest.mark.parametrize("count", [2, 4, 8])
def test_cost_counts_each_run(count):
    plain, turned = registry.load("fsrcnn-x4"), registry.load(f"fsrcnn-x4+{count}")
    scale, pixels = Fraction(4), small()
    assert turned.cost(scale) == count * plain.cost(scale)
    assert turned.memory(scale) > plain.memory(scale) and turned.reach == plain.reach
    executed = [upscaler(pixels, whole(pixels)).macs for upscaler in (plain, turned)]
    assert torch.equal(executed[1], count * executed[0])


def test_it_is_better_than_one_run():
    hr, pixels = COFFEE / 255, small()
    one, two, eight = (
        psnr(enlarged(registry.load(f"edsr-x4{turns}"), pixels)[0], hr, 4)
        for turns in ("", "+2", "+8")
    )
    assert one + 0.03 < eight and one < two < eight


def test_other_counts_and_scales_are_refused():
    with pytest.raises(ValueError, match=r"\+3 is not a number of turns; give one of \+2"):
        registry.load("edsr-x4+3")
    turned = Turned(Bicubic(), 8)
    assert Fraction(4) in turned.scales and Fraction(5, 2) not in turned.scales
    with pytest.raises(ValueError, match="whole numbers, not by 5/2"):
        turned(small(), Placement.whole((64, 80), Fraction(5, 2)))


def test_it_is_another_tier_than_the_network_alone():
    assert registry.digest("edsr-x4+8") == registry.digest("edsr-x4")
    assert registry.tier_key("edsr-x4+8") != registry.tier_key("edsr-x4")


def test_a_file_may_be_called_so(tmp_path):
    path = tmp_path / "a.safetensors+8"
    path.write_bytes(registry.locate("fsrcnn-x4").read_bytes())
    assert registry.locate(f"file:{path}") == path
    assert isinstance(registry.load(f"file:{path}+2"), Turned)
    assert not isinstance(registry.load(f"file:{path}"), Turned)
