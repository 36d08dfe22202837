"""Upstream checkpoints of AdaDSR."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models.adaptive.adadsr.small_adadsr import MEAN, make
from tierscale.models.convert.adaptive import adadsr as upstream_adadsr

pytestmark = pytest.mark.usefixtures("one_thread")


def test_upstream_names_of_scale_4_become_ours_and_what_does_not_fit_is_named() -> None:
    """The enlarging layers' own numbers do not matter, only their order."""
    method = make("edsr", 4).method
    ours = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    growing = ["up.0.0", "up.0.2"]
    layers = [
        "head.1",
        *(f"block{block}.layer{place}" for block in range(4) for place in (0, 2)),
        "body_lastconv",
        *growing,
        "tail.0",
    ]
    layers += ["predictor.layer0", *(f"predictor.layer{layer}.1" for layer in range(1, 5))]
    names = [f"{layer}.{part}" for layer in layers for part in ("weight", "bias")] + [
        f"predictor.layer{n}.0.weight" for n in range(1, 5)
    ]
    tensors = {name: ours[str(upstream_adadsr.own_name(name, growing))] for name in names}
    tensors["head.1.weight"], tensors["tail.0.weight"], tensors["tail.0.bias"] = (
        tensors["head.1.weight"] / 255,
        tensors["tail.0.weight"] * 255,
        tensors["tail.0.bias"] * 255,
    )
    for layer, sign in (("head.0", -1), ("tail.1", 1)):
        tensors |= {
            f"{layer}.weight": torch.ones(3, 1, 1, 1),
            f"{layer}.bias": sign * 255 * torch.tensor(MEAN),
        }
    config = {
        "model": "adaedsr_model",
        "n_resblocks": 4,
        "n_feats": 8,
        "scale": 4,
        "res_scale": 0.5,
        "adapter_layers": 5,
        "adapter_pos": 5,
    }
    made = upstream_adadsr.from_upstream(tensors, config, (0.0, 0.0, 0.0))
    assert made.spec.mean == pytest.approx(MEAN)
    for name, tensor in ours.items():
        torch.testing.assert_close(made.tensors[name], tensor)
    cases: list[tuple[dict[str, Tensor], dict[str, Any], str]] = [
        (
            {**tensors, "block2.layer0.bias": torch.zeros(3)},
            config,
            r"'block2.layer0.bias' of shape \(3,\) where the network has \(8,\)",
        ),
        (
            {name: t for name, t in tensors.items() if name != "up.0.2.bias"},
            config,
            r"'network.tail.grow.1.bias' of shape \(32,\)",
        ),
        ({**tensors, "side.weight": torch.zeros(2)}, config, r"'side.weight' of shape \(2,\)"),
        (tensors, {**config, "adapter_bound": 3}, "adapter_bound 3"),
        (tensors, {**config, "model": "adasan_model"}, "'adasan_model'"),
        (
            tensors,
            {name: value for name, value in config.items() if name != "adapter_pos"},
            "lacks 'adapter_pos'",
        ),
    ]
    for changed, settings, message in cases:
        with pytest.raises(ValueError, match=message):
            upstream_adadsr.from_upstream(changed, settings, (0.0, 0.0, 0.0))
