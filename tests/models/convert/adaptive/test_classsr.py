"""Upstream checkpoints of ClassSR."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.reference_file import read_reference
from tierscale.models.convert.adaptive.classsr import from_upstream

pytestmark = pytest.mark.usefixtures("one_thread")


def test_upstream_weights_that_do_not_fit_are_refused(shared: Path) -> None:
    weights = read_reference(shared / "reference" / "classsr_fsrcnn_x4.safetensors").weights
    cases: list[tuple[dict[str, Tensor], str]] = [
        (
            {name: t for name, t in weights.items() if not name.startswith("classifier")},
            "holds 'classifier', 'net1'.*but this file net1",
        ),
        (
            {**weights, "classifier.lastOut.weight": torch.zeros(2, 32)},
            r"'lastOut.weight' of shape \(2, 32\).*\(3, 32\)",
        ),
        ({**weights, "net1.entry.weight": torch.zeros(2)}, "all CARN, FSRCNN or SRResNet"),
        (
            {**weights, "net2.head_conv.0.weight": torch.zeros(9, 3, 5, 5)},
            r"'head_conv.0.weight' of shape \(9, 3, 5, 5\)",
        ),
    ]
    for broken, message in cases:
        with pytest.raises(ValueError, match=message):
            from_upstream(broken, {}, (0, 0, 0))
