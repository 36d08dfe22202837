"""RCAN, which looks at the whole window."""

import pytest
import torch

from tests.models.adaptive.ape.small_ape import MEAN, whole, windows
from tierscale.models.backbones.rcan import Rcan
from tierscale.models.contract.checkpoints import (
    ModelSpec,
)
from tierscale.models.runtime.counting import executed
from tierscale.models.runtime.plain import PlainUpscaler
from tierscale.models.train.tasks import predict

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (2, 7), (75, 60)])
def test_rcan_in_one_piece_gives_what_the_trained_form_gives(
    scale: int, size: tuple[int, int]
) -> None:
    network = Rcan(scale, groups=2, blocks=2, features=8, reduction=4)
    upscaler, x = (
        PlainUpscaler(network, ModelSpec("rcan", scale, {}, MEAN, "bilinear")),
        windows(2, *size),
    )
    assert upscaler.reach is None
    with torch.inference_mode():
        made = upscaler(x, whole(x, scale))
        torch.testing.assert_close(
            made.pixels, predict(network, x, upscaler.spec), atol=1e-5, rtol=1e-5
        )
        assert torch.equal(made.pixels[1:], upscaler(x[1:], whole(x[1:], scale)).pixels)
    assert made.macs[0].item() == executed(lambda: upscaler(x[:1], whole(x[:1], scale)))
    assert upscaler.count(*size, streamed=False) == executed(
        lambda: upscaler._enlarge(x[:1], streamed=False)
    )
