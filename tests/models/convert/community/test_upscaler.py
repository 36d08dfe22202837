"""Networks that spandrel knows as tiers of their own scale, channels and size rules."""

from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models.convert.community.networks import (
    compact,
    in_eights,
    needs_spandrel,
    network_of,
    saved,
    span,
    swin,
    whole,
)
from tierscale.models import registry
from tierscale.models.convert import community
from tierscale.models.runtime.counting import executed
from tierscale.pipeline.errors import Damaged
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.policies import Full
from tierscale.pipeline.run.array import enlarge_array

pytestmark = [pytest.mark.usefixtures("one_thread"), needs_spandrel]


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("scale", [2, 4])
def test_a_network_of_spandrel_becomes_a_tier_of_its_own_scale_and_channels(
    channels: int, scale: int, tmp_path: Path
) -> None:
    network = compact(channels, scale)
    upscaler = registry.load(f"file:{saved(network, tmp_path / 'n.safetensors')}")
    assert (upscaler.scales, upscaler.reach, upscaler.control) == (
        frozenset({Fraction(scale)}),
        None,
        None,
    )
    assert upscaler.parameters == sum(parameter.numel() for parameter in network.parameters())
    x = torch.rand(2, 3, 9, 14)
    with torch.inference_mode():
        made = upscaler(x, whole(x, scale))
        padded = {
            1: x.reshape(6, 1, 9, 14),
            3: x,
            4: torch.cat([x, torch.ones(2, 1, 9, 14)], dim=1),
        }[channels]
        wanted = network(padded).reshape(2, -1, 9 * scale, 14 * scale)[:, :3].clamp(0, 1)
        alone = upscaler(x[1:], whole(x[1:], scale)).pixels
    torch.testing.assert_close(made.pixels, wanted, atol=1e-5, rtol=1e-5)
    assert torch.equal(alone[0], made.pixels[1])
    assert made.macs.tolist() == [executed(lambda: network(padded[: len(padded) // 2]))] * 2
    assert upscaler.cost(Fraction(scale)) == pytest.approx(made.macs[0].item() / (9 * 14))
    assert upscaler.memory(Fraction(scale)) > 24 * scale**2


@pytest.mark.parametrize("size", [(8, 12), (9, 13), (1, 2), (3, 30)])
def test_size_rules_are_kept_by_filling_up_and_cutting_off(
    size: tuple[int, int], tmp_path: Path
) -> None:
    upscaler = registry.load(f"file:{saved(in_eights(), tmp_path / 'n.safetensors')}")
    assert isinstance(upscaler, community.CommunityUpscaler)
    assert upscaler.descriptor.size_requirements.multiple_of == 8
    x = torch.rand(1, 3, *size)
    with torch.inference_mode():
        made = upscaler(x, whole(x, 2))
    assert made.pixels.shape == (1, 3, 2 * size[0], 2 * size[1])
    assert made.macs.item() == upscaler.count(-(-size[0] // 8) * 8, -(-size[1] // 8) * 8)


def test_the_pipeline_enlarges_with_it(tmp_path: Path) -> None:
    name = f"file:{saved(compact(), tmp_path / 'n.safetensors')}"
    image = np.random.default_rng(0).integers(0, 256, (3, 70, 90), dtype=np.uint8)
    made = enlarge_array(
        image, Options(scale=Fraction(2), tiers=("bicubic", name), policy=Full(), tile=32)
    )
    assert made.pixels.shape == (3, 140, 180)
    assert made.cost > 0


@pytest.mark.parametrize("blend", [0, 4])
@pytest.mark.parametrize("make", [swin, in_eights])
def test_tiles_are_as_in_the_whole_image_whatever_its_size(make, blend, tmp_path):
    """Windows begin on the network's own grid, also where they end with the image."""
    name = f"file:{saved(make(), tmp_path / 'n.safetensors')}"
    image = np.random.default_rng(0).random((3, 143, 167), np.float32)
    made = enlarge_array(
        image, Options(scale=Fraction(2), tiers=(name,), policy=Full(), tile=16, blend=blend)
    )
    x = torch.from_numpy(image[None])
    with torch.inference_mode():
        wanted = registry.load(name)(x, whole(x, 2)).pixels[0].numpy()
    assert np.abs(made.pixels - wanted).max() < 0.01 / 255


def test_threads_do_not_share_a_network_that_changes_itself(tmp_path):
    upscaler = registry.load(f"file:{saved(span(), tmp_path / 'n.safetensors')}")
    x = torch.rand(1, 3, 24, 24)

    def pixels(_):
        with torch.inference_mode():
            return upscaler(x, whole(x, 2)).pixels.numpy().tobytes()

    with ThreadPoolExecutor(4) as threads:
        assert len(set(threads.map(pixels, range(40)))) == 1
    ours, theirs = upscaler._network(), ThreadPoolExecutor(1).submit(upscaler._network).result()
    assert ours is not theirs and ours is upscaler._network()
    plain = registry.load(f"file:{saved(compact(), tmp_path / 'm.safetensors')}")
    assert plain._network() is plain.descriptor


def test_a_grey_window_runs_a_network_of_one_channel_once(tmp_path):
    upscaler = registry.load(f"file:{saved(compact(1), tmp_path / 'n.safetensors')}")
    grey = torch.rand(1, 1, 9, 9).expand(-1, 3, -1, -1).contiguous()
    x = torch.cat([grey, torch.rand(1, 3, 9, 9)])
    with torch.inference_mode():
        both = upscaler(x, whole(x, 2))
    assert both.macs.tolist() == [upscaler.count(9, 9) / 3, upscaler.count(9, 9)]
    assert torch.equal(both.pixels[0, 0], both.pixels[0, 2])


def test_windows_are_not_changed_by_a_network_that_writes_to_them(tmp_path):
    network = network_of(
        "RCAN", scale=2, n_resgroups=1, n_resblocks=1, n_feats=8, reduction=2, norm=True
    )
    upscaler = registry.load(f"file:{saved(network, tmp_path / 'n.safetensors')}")
    x = torch.rand(1, 3, 12, 12)
    before = x.clone()
    with torch.inference_mode():
        upscaler(x, whole(x, 2))
    assert torch.equal(x, before)


def test_a_network_that_is_called_in_its_own_way_is_counted(tmp_path):
    """DRUNet is given a map of noise beside the picture."""
    network = network_of("DRUNet", nc=[16, 32, 64, 64], nb=2, in_nc=4, out_nc=3)
    upscaler = registry.load(f"file:{saved(network, tmp_path / 'n.safetensors')}")
    x = torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        assert upscaler(x, whole(x, 1)).macs.item() == upscaler.count(16, 16) > 0


def test_values_that_are_no_numbers_end_the_run_with_the_tier_named(tmp_path):
    network = compact()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1e30)
    name = f"file:{saved(network, tmp_path / 'n.safetensors')}"
    image = np.full((3, 20, 20), 200, np.uint8)
    with pytest.raises(Damaged, match=r"n\.safetensors made values that are no finite numbers"):
        enlarge_array(image, Options(scale=Fraction(2), tiers=(name,), policy=Full()))
