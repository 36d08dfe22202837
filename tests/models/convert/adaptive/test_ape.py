"""Upstream checkpoints of APE."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models.adaptive.ape.small_ape import MEAN, whole, windows
from tierscale.models import registry
from tierscale.models.adaptive.ape import upscaler as ape
from tierscale.models.adaptive.ape.network import Ape
from tierscale.models.convert.adaptive import ape as upstream_ape
from tierscale.models.convert.backbones import edsr as upstream_edsr

pytestmark = pytest.mark.usefixtures("one_thread")


def upstream_checkpoint(scale: int) -> tuple[dict[str, Tensor], dict[str, Any], Ape]:
    """An APE on EDSR as the upstream code would store it, for values 0..255.

    And the same as ours.
    """
    torch.manual_seed(4)
    method = Ape(scale, "edsr", 1, blocks=2, features=8, res_scale=0.1)
    growing = [f"tail.0.{2 * index}" for index in range(len(method.network.tail.steps))]  # type: ignore[arg-type, union-attr]
    theirs = [
        "head.0",
        *(f"body.{block}.body.{place}" for block in (0, 1) for place in (0, 2)),
        "body.2",
        *growing,
        "tail.1",
    ]
    ours = {f"network.{name}": tensor for name, tensor in method.network.state_dict().items()}
    tensors = {}
    for name in (f"{layer}.{part}" for layer in theirs for part in ("weight", "bias")):
        tensors[name] = ours[f"network.{upstream_edsr.own_name(name, growing)}"].clone()
    tensors["head.0.weight"] /= 255
    tensors["tail.1.weight"] *= 255
    tensors["tail.1.bias"] *= 255
    mean = torch.tensor(MEAN) * 255
    for layer, sign in (("sub_mean", -1), ("add_mean", 1)):
        tensors |= {f"{layer}.weight": torch.eye(3).view(3, 3, 1, 1), f"{layer}.bias": sign * mean}
    tensors |= {
        "regressor.2.weight": method.regressor.weight.detach(),
        "regressor.2.bias": method.regressor.bias.detach(),
    }
    config = {
        "model": "edsr_ape",
        "n_resblocks": 2,
        "n_feats": 8,
        "scale": [scale],
        "rgb_range": 255,
        "res_scale": 0.1,
        "exit_interval": 1,
    }
    return tensors, config, method


@pytest.mark.parametrize("scale", [3, 4])
def test_upstream_names_of_other_scales_become_ours(scale: int) -> None:
    tensors, config, method = upstream_checkpoint(scale)
    made = upstream_ape.from_upstream(tensors, config, (0.0, 0.0, 0.0))
    assert made.spec.mean == pytest.approx(MEAN)
    for name, tensor in method.state_dict().items():
        torch.testing.assert_close(made.tensors[name], tensor)
    plain = upstream_edsr.from_upstream(
        {name: t for name, t in tensors.items() if "regressor" not in name}, config, (0.0, 0.0, 0.0)
    )
    x = windows(1, 9, 9)
    with torch.inference_mode():
        found = registry.UPSCALERS["edsr"](plain, "plain")(x, whole(x, scale)).pixels
        assert torch.equal(found, ape.build(made, "ape")(x, whole(x, scale)).pixels)


def test_upstream_weights_that_do_not_fit_are_named_with_their_shapes() -> None:
    tensors, config, _ = upstream_checkpoint(2)
    cases: list[tuple[dict[str, Tensor], dict[str, Any], str]] = [
        (
            {**tensors, "body.0.body.0.weight": torch.zeros(4, 8, 3, 3)},
            config,
            r"'body.0.body.0.weight' of shape \(4, 8, 3, 3\)",
        ),
        (
            {**tensors, "body.7.body.0.weight": torch.zeros(8, 8, 3, 3)},
            config,
            r"'body.7.body.0.weight' of shape \(8, 8, 3, 3\)",
        ),
        (
            {name: t for name, t in tensors.items() if name != "body.2.bias"},
            config,
            r"lacks what becomes 'join.bias' of shape \(8,\)",
        ),
        (
            {**tensors, "regressor.2.bias": torch.zeros(2)},
            config,
            r"'regressor.bias' of shape \(2,\)",
        ),
        (
            {**tensors, "sub_mean.weight": torch.ones(3, 3, 1, 1)},
            config,
            r"'sub_mean.weight' of shape \(3, 3, 1, 1\) does more",
        ),
        (tensors, {**config, "scale": [2, 4]}, r"scales \[2, 4\]"),
        (tensors, {**config, "model": "swinir_ape"}, "'swinir_ape'"),
        (
            tensors,
            {name: value for name, value in config.items() if name != "n_feats"},
            "lacks 'n_feats'",
        ),
    ]
    for changed, settings, message in cases:
        with pytest.raises(ValueError, match=message):
            upstream_ape.from_upstream(changed, settings, (0.0, 0.0, 0.0))
