"""Small networks of spandrel with random weights, and files of them."""

import warnings
from fractions import Fraction
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tierscale.models.contract.upscaler import Placement
from tierscale.models.convert import community

needs_spandrel = pytest.mark.skipif(
    find_spec("spandrel") is None,
    reason='spandrel is not installed; pip install "tierscale[community]"',
)


def network_of(architecture: str, **arguments: Any) -> Any:
    """One of spandrel's: "Compact" or "KBNet:KBNet_s", with its arguments."""
    community.import_spandrel()
    module, _, name = architecture.partition(":")
    torch.manual_seed(0)
    found = import_module(f"spandrel.architectures.{module}")
    with warnings.catch_warnings():
        # torch.meshgrid will change some day.
        warnings.simplefilter("ignore")
        return getattr(found, name or module)(**arguments).eval()


def compact(channels: int = 3, scale: int = 2) -> Any:
    """Real-ESRGAN's compact network, small."""
    return network_of(
        "Compact", num_in_ch=channels, num_out_ch=channels, num_feat=8, num_conv=2, upscale=scale
    )


def in_eights() -> Any:
    """A network of scale 2 that takes sides in multiples of 8, as spandrel says."""
    return network_of("SAFMN", dim=8, n_blocks=1, ffn_scale=2.0, upscaling_factor=2)


def span() -> Any:
    """A network that fuses its weights anew at every call."""
    return network_of("SPAN", num_in_ch=3, num_out_ch=3, feature_channels=16, upscale=2)


def swin() -> Any:
    """A network that looks at squares of 8 pixels, of which spandrel says nothing."""
    return network_of(
        "SwinIR",
        **{"window_size": 8, "upsampler": "pixelshuffle", "upscale": 2, "depths": [2]},
        **{"num_heads": [2], "embed_dim": 8, "mlp_ratio": 2.0, "img_size": 64},
    )


def saved(network: Any, path: Path) -> Path:
    """The network's weights in a file."""
    save_file({name: t.clone().contiguous() for name, t in network.state_dict().items()}, path)
    return path


def whole(x: torch.Tensor, scale: int) -> Placement:
    """Windows that are whole images."""
    return Placement(Fraction(scale), (x.shape[-2], x.shape[-1]), ((0, 0),) * len(x))
