"""Costs as the papers' own counters tell them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.reproduce import costs
from tests.models.adaptive.adadsr.small_adadsr import make
from tests.models.adaptive.ape.small_ape import MEAN
from tests.reference_file import read_reference
from tierscale.models.adaptive.ape.network import Ape
from tierscale.models.adaptive.ape.upscaler import ApeUpscaler
from tierscale.models.adaptive.classsr.network import ClassSr
from tierscale.models.adaptive.classsr.upscaler import ClassSrUpscaler
from tierscale.models.adaptive.pcsr.upscaler import build
from tierscale.models.contract.checkpoints import (
    ModelSpec,
)
from tierscale.models.convert.adaptive.pcsr import from_upstream

pytestmark = pytest.mark.usefixtures("one_thread")


def test_adadsrs_counter_does_not_widen_where_the_first_convolution_is_needed() -> None:
    upscaler = make("edsr", residual="bilinear")
    depths = torch.zeros(1, 16, 16)
    residual = 3 * 4 * 9 * 256  # bilinear, 3x3 taps for each of four phases
    nothing = costs.adadsr(upscaler, depths)
    depths[0, 5, 5] = 1.5
    assert costs.adadsr(upscaler, depths) - nothing == 2 * 2 * 9 * 8 * 8, (
        "one place, two blocks, two convolutions each"
    )
    full = costs.adadsr(upscaler, torch.full((1, 16, 16), 9.0))
    assert (
        full + residual
        == upscaler.plain.count(16, 16, streamed=False) + upscaler.method.predictor.cost * 256
    )


def test_the_tables_of_the_papers_count_convolutions_up_to_the_exit() -> None:
    """EDSR at scale 4, 32 blocks of 256 features, 48x48 pixels: 31.54 to 115.83 billion."""
    with torch.device("meta"):
        method = Ape(4, "edsr", 1, blocks=32, features=256)
    upscaler = ApeUpscaler(method, ModelSpec("ape", 4, {}, MEAN))
    assert costs.ape(upscaler, 48, 48, 0) == pytest.approx(31.54e9, rel=1e-3)
    assert costs.ape(upscaler, 48, 48, -1) == pytest.approx(115.83e9, rel=1e-3)
    assert upscaler.macs(48, 48, 1, streamed=False) == costs.ape(upscaler, 48, 48, 1) + 2 * 256


@pytest.mark.parametrize(
    ("arguments", "least", "most"),
    [
        (
            {"backbone": "rcan", "every": 1, "groups": 10, "blocks": 20, "features": 64},
            5.35e9,
            36.77e9,
        ),
        ({"backbone": "vdsr", "every": 1, "layers": 20, "features": 64}, 1.50e9, 24.68e9),
    ],
)
def test_the_tables_of_other_backbones_are_a_little_higher(
    arguments: dict[str, Any], least: float, most: float
) -> None:
    with torch.device("meta"):
        upscaler = ApeUpscaler(Ape(4, **arguments), ModelSpec("ape", 4, {}, MEAN))
    for exit_, published in ((0, least), (-1, most)):
        assert 0.992 < costs.ape(upscaler, 48, 48, exit_) / published < 0.998


def test_classsrs_counter_and_its_errors() -> None:
    """The paper's millions of operations for a tile.

    141, 304 and 468 by FSRCNN, 7.4 by the classifier; 380, 770 and 1150 by CARN.
    """
    network = ClassSr(4, "fsrcnn", [{"features": d} for d in (16, 36, 56)])
    upscaler = ClassSrUpscaler(network, ModelSpec("classsr", 4))
    counts = [costs.classsr(upscaler, torch.tensor([index])) / 1e6 for index in range(3)]
    assert counts == pytest.approx([141 + 7.4, 304 + 7.4, 468 + 7.4], abs=1)
    assert costs.classsr(upscaler, torch.tensor([[0, 2]])) == pytest.approx(
        (counts[0] + counts[2]) * 1e6
    )
    network = ClassSr(4, "carn", [{"features": nf} for nf in (36, 52, 64)])
    upscaler = ClassSrUpscaler(network, ModelSpec("classsr", 4))
    assert [
        costs.classsr(upscaler, torch.tensor([index])) / 1e9 for index in range(3)
    ] == pytest.approx([0.38, 0.77, 1.15], abs=0.01)


def test_pcsrs_counter_tells_the_papers_figures(shared: Path) -> None:
    reference = read_reference(shared / "reference" / "pcsr_carn_x4.safetensors")
    upscaler = build(
        from_upstream(reference.weights, reference.config, reference.mean), "pcsr-carn-x4"
    )
    heavy = torch.ones(768, 1024, dtype=torch.uint8)
    found = [costs.pcsr(upscaler, heavy, 192, 256), costs.pcsr(upscaler, heavy * 0, 192, 256)]
    assert [cost / 1e9 for cost in found] == pytest.approx([56.70, 27.12], rel=1e-3)
    assert upscaler.encoder_operations * 192 * 256 == pytest.approx(22.93e9, rel=1e-3)
