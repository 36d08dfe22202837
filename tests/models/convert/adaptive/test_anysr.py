"""Upstream checkpoints of AnySR."""

from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.reference_file import read_reference
from tierscale.models.adaptive.anysr.upscaler import build
from tierscale.models.contract.upscaler import Placement
from tierscale.models.convert.adaptive.anysr import from_upstream

pytestmark = pytest.mark.usefixtures("one_thread")


def whole(x: Tensor, scale: Fraction) -> Placement:
    return Placement(scale, (x.shape[-2], x.shape[-1]), ((0, 0),) * len(x))


def test_upstream_weights_run_as_published(shared: Path) -> None:
    reference = read_reference(shared / "reference" / "anysr_edsr_b2f64_srno_w64.safetensors")
    upscaler = build(from_upstream(reference.weights, reference.config, reference.mean), "upstream")
    lr = reference.inputs["a.lr"]
    with torch.inference_mode():
        for name, scale, width in (("a.s2.e0", 2, 0.7), ("a.s2.e1", 2, 1.0), ("a.s4.e0", 4, 1.0)):
            made = upscaler(lr, whole(lr, Fraction(scale)), settings={"width": width}).pixels
            torch.testing.assert_close(made, reference.outputs[f"{name}.sr"], atol=2e-5, rtol=0)
    with pytest.raises(ValueError, match=r"needs 'encoder.head.0.weight'"):
        from_upstream({"conv00.weight": torch.zeros(1)}, {}, (0, 0, 0))
    broken = {**reference.weights, "encoder.body.0.conv1.weight": torch.zeros(3, 64, 3, 3)}
    with pytest.raises(
        ValueError, match=r"'body.0.conv1.weight' of shape \(3, 64, 3, 3\).*\(64, 64, 3, 3\)"
    ):
        from_upstream(broken, reference.config, reference.mean)
