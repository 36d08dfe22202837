"""The contract, on every plain network."""

import pytest
import torch
from torch import nn

from tests.models.plain_networks import NETWORKS, make, whole
from tierscale.models.backbones.carn import Carn
from tierscale.models.backbones.fsrcnn import Fsrcnn
from tierscale.models.runtime import resample
from tierscale.models.runtime.counting import executed
from tierscale.models.runtime.stream import bands
from tierscale.models.train.tasks import predict

pytestmark = pytest.mark.usefixtures("one_thread")


ALL = [(kind, scale) for kind in NETWORKS for scale in (2, 3, 4)]


@pytest.mark.parametrize(("kind", "scale"), ALL)
@pytest.mark.parametrize("size", [(1, 1), (2, 7), (9, 5), (75, 110)])
def test_fed_by_rows_a_network_gives_what_it_gives_at_once(
    kind: str, scale: int, size: tuple[int, int]
) -> None:
    upscaler, x = make(kind, scale), torch.rand(2, 3, *size)
    with torch.inference_mode():
        made = upscaler(x, whole(x, scale))
        expected = predict(upscaler.network, x, upscaler.spec)
    assert made.pixels.shape == (2, 3, size[0] * scale, size[1] * scale)
    assert made.pixels.dtype == x.dtype
    torch.testing.assert_close(made.pixels, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_window_gives_the_same_bits_alone_and_in_a_batch(kind: str) -> None:
    upscaler, x = make(kind, 4), torch.rand(3, 3, 20, 31)
    with torch.inference_mode():
        together = upscaler(x, whole(x, 4)).pixels
        alone = torch.cat([upscaler(x[i : i + 1], whole(x[:1], 4)).pixels for i in range(3)])
    assert torch.equal(together, alone)


@pytest.mark.parametrize(("kind", "scale"), ALL)
@pytest.mark.parametrize("residual", [None, "bicubic"])
def test_nothing_beyond_reach_matters_and_the_last_pixel_within_does(
    kind: str, scale: int, residual: str | None
) -> None:
    upscaler, side = make(kind, scale, residual), 61
    assert upscaler.reach is not None
    x, middle = torch.rand(1, 3, side, side), side // 2
    seen = []
    with torch.inference_mode():
        before = upscaler(x, whole(x, scale)).pixels
        for far in (upscaler.reach, upscaler.reach + 1):
            changed = False
            for dim, sign in ((2, 1), (2, -1), (3, 1), (3, -1)):
                y = x.clone()
                y.select(dim, middle + sign * far).add_(100)
                after = upscaler(y, whole(y, scale)).pixels
                difference = (after - before).narrow(dim, middle * scale, scale).abs().max().item()
                changed = changed or difference > 0
            seen.append(changed)
    assert seen == [True, False]


@pytest.mark.parametrize(("kind", "scale"), ALL)
def test_macs_are_those_executed(kind: str, scale: int) -> None:
    upscaler, x = make(kind, scale), torch.rand(1, 3, 90, 70)
    macs = upscaler(x, whole(x, scale)).macs
    assert macs.tolist() == [executed(lambda: upscaler(x, whole(x, scale)))]
    assert macs.dtype == torch.float64


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_batch_at_once_as_on_a_gpu_gives_the_same(kind: str) -> None:
    upscaler, x = make(kind, 4), torch.rand(2, 3, 30, 26)
    with torch.inference_mode():
        at_once, streamed = (
            upscaler._enlarge(x, streamed=False),
            upscaler._enlarge(x, streamed=True),
        )
        torch.testing.assert_close(at_once, streamed, atol=1e-5, rtol=1e-5)
        assert upscaler.count(30, 26, streamed=False) == executed(
            lambda: upscaler._enlarge(x[:1], streamed=False)
        )


def test_the_residual_is_the_enlargement_that_resample_makes() -> None:
    for kernel in ("bilinear", "bicubic"):
        for scale in (2, 3, 4):
            upscaler, x = make("fsrcnn", scale, kernel), torch.rand(1, 3, 13, 9)
            nn.init.zeros_(upscaler.network.enlarge.weight)  # type: ignore[arg-type, union-attr]
            made = upscaler(x, whole(x, scale)).pixels
            torch.testing.assert_close(
                made, resample.resample(x, whole(x, scale), kernel), atol=2e-6, rtol=0
            )


def test_batch_norm_folds_away() -> None:
    torch.manual_seed(0)
    network = Carn(2, 8, 2, norm=True)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(tensor)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
    x = torch.rand(1, 3, 12, 12)
    with torch.inference_mode():
        torch.testing.assert_close(network.eval().fold()(x), network(x), atol=1e-4, rtol=1e-4)


def test_bands_cover_all_rows_once() -> None:
    for height, width, reach in ((1, 1, 21), (30, 5000, 7), (562, 562, 21), (100, 3, 0)):
        spans = list(bands(height, width, reach))
        assert [row for start, stop in spans for row in range(start, stop)] == list(range(height))
        assert all(stop > start for start, stop in spans)


def test_another_scale_or_a_grey_is_refused() -> None:
    upscaler, x = make("fsrcnn", 4), torch.rand(1, 3, 8, 8)
    with pytest.raises(ValueError, match="enlarges by 4, not by 3"):
        upscaler(x, whole(x, 3))
    with pytest.raises(ValueError, match=r"\(1, 1, 8, 8\).*three equal channels"):
        upscaler(x[:, :1], whole(x, 4))
    with pytest.raises(ValueError, match="not 5"):
        Fsrcnn(5)
    with pytest.raises(ValueError, match="not 8"):
        Carn(8)
