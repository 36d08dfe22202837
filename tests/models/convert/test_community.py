"""Networks that spandrel knows, built by it with random weights and saved.

As tiers of their own scale, channels and size rules.
"""

import sys
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tierscale.models import registry
from tierscale.models.contract.upscaler import Placement
from tierscale.models.convert import community
from tierscale.models.runtime.counting import executed
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.policies import Full
from tierscale.pipeline.run.array import enlarge_array

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(
        find_spec("spandrel") is None,
        reason='spandrel is not installed; pip install "tierscale[community]"',
    ),
]


def compact(channels: int = 3, scale: int = 2) -> Any:
    """Real-ESRGAN's compact network, small."""
    community.import_spandrel()
    from spandrel.architectures.Compact import Compact

    torch.manual_seed(0)
    return Compact(num_in_ch=channels, num_out_ch=channels, num_feat=8, num_conv=2, upscale=scale)


def in_eights() -> Any:
    """A network of scale 2 that takes sides in multiples of 8, as spandrel says."""
    community.import_spandrel()
    from spandrel.architectures.SAFMN import SAFMN

    torch.manual_seed(0)
    return SAFMN(dim=8, n_blocks=1, ffn_scale=2.0, upscaling_factor=2)


def saved(network: Any, path: Path) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, path)
    return path


def whole(x: torch.Tensor, scale: int) -> Placement:
    return Placement(Fraction(scale), (x.shape[-2], x.shape[-1]), ((0, 0),) * len(x))


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


def test_a_pickled_network_is_read_without_running_it(tmp_path: Path) -> None:
    network, x = compact(), torch.rand(1, 3, 8, 8)
    torch.save({"params_ema": network.state_dict()}, tmp_path / "n.pth")
    with torch.inference_mode():
        made = registry.load(f"file:{tmp_path / 'n.pth'}")(x, whole(x, 2)).pixels
        torch.testing.assert_close(made, network(x).clamp(0, 1))
    torch.save(
        {"params": network.state_dict(), "more": community.CommunityUpscaler}, tmp_path / "n.pth"
    )
    with pytest.raises(ValueError, match=r"cannot be read as plain tensors.*CommunityUpscaler"):
        registry.load(f"file:{tmp_path / 'n.pth'}")


def test_the_pipeline_enlarges_with_it(tmp_path: Path) -> None:
    name = f"file:{saved(compact(), tmp_path / 'n.safetensors')}"
    image = np.random.default_rng(0).integers(0, 256, (3, 70, 90), dtype=np.uint8)
    made = enlarge_array(
        image, Options(scale=Fraction(2), tiers=("bicubic", name), policy=Full(), tile=32)
    )
    assert made.pixels.shape == (3, 140, 180)
    assert made.cost > 0


def test_what_spandrel_does_not_know_or_cannot_enlarge_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "n.safetensors"
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(
        ValueError,
        match="has format None, not 'tierscale-1', and spandrel builds no network from it",
    ):
        registry.load(f"file:{path}")
    upscaler = registry.load(f"file:{saved(compact(), path)}")
    x = torch.rand(1, 3, 8, 8)
    with pytest.raises(ValueError, match="enlarges by 2, not by 4"):
        upscaler(x, whole(x, 4))
    with pytest.raises(ValueError, match="three equal channels"):
        upscaler(x[:, :1], whole(x, 2))


def test_without_spandrel_the_way_out_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(compact(), tmp_path / "n.safetensors")
    monkeypatch.setattr(community.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"install spandrel: pip install .tierscale\[community\]"):
        registry.load(f"file:{path}")


def test_a_broken_torchvision_is_no_hindrance(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As one that was built for another torch, which breaks on import."""
    for name in [
        name for name in sys.modules if name.partition(".")[0] in ("spandrel", "torchvision")
    ]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "torchvision.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert community.import_spandrel().ModelLoader
    assert "torchvision" not in sys.modules
