"""An enlarging part as one convolution."""

import pytest
import torch
from torch import nn

from tierscale.models.backbones import edsr
from tierscale.models.runtime.linear_tail import settle
from tierscale.models.runtime.stages import feed

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (6, 1), (2, 2), (3, 9), (40, 33)])
def test_a_composed_end_is_the_end_up_to_all_four_edges(scale: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    tail, x = edsr.Tail(scale, 8), torch.randn(1, 8, *size)
    for module in tail.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.bias)  # type: ignore[arg-type]
    settle(tail)
    with torch.inference_mode():
        made = torch.cat(
            list(feed(tail.stream(), x.contiguous(memory_format=torch.channels_last), 3)), dim=2
        )
        torch.testing.assert_close(made, tail(x), atol=1e-5, rtol=1e-5)
        rows = tail.stream()  # a few rows at a time
        pieces = (
            [rows.push(piece, False) for piece in x.split(3, dim=2)[:-1]] if size[0] > 3 else []
        )
        pieces.append(rows.push(x.split(3, dim=2)[-1], True))
        torch.testing.assert_close(torch.cat(pieces, dim=2), made, atol=1e-5, rtol=1e-5)
    assert tail.weights is not None and tail.weights.shape == (4, 4, 3 * scale**2, 8, 5, 5)
    assert not [name for name in tail.state_dict() if "weights" in name], (
        "what is composed is not stored"
    )


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_quick_end_is_the_end_but_for_the_outermost_pixels_and_so_are_its_gradients(
    scale: int,
) -> None:
    torch.manual_seed(0)
    tail = edsr.Tail(scale, 8).double()
    for module in tail.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.bias)  # type: ignore[arg-type]
    x = torch.randn(2, 8, 9, 12, dtype=torch.float64, requires_grad=True)
    found = []
    for quick in (False, True):
        tail.quick = quick
        tail.zero_grad()
        x.grad = None
        made = tail(x)
        within = made[:, :, 3:-3, 3:-3]
        within.square().sum().backward()
        found.append([made, within, x.grad, *(parameter.grad for parameter in tail.parameters())])
    (whole_end, *expected), (quick_end, *at_once) = found
    torch.testing.assert_close(at_once, expected)
    assert not torch.allclose(quick_end, whole_end), "the edges differ"
    tail.eval()
    torch.testing.assert_close(tail(x), whole_end)
