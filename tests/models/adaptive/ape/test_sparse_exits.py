"""APE whose cells leave one by one."""

from fractions import Fraction

import pytest
import torch
from torch import Tensor

from tests.models.adaptive.ape.small_ape import BACKBONES, MEAN, make, middling, whole, windows
from tierscale.models.adaptive.ape.network import Ape
from tierscale.models.adaptive.ape.upscaler import ApeUpscaler
from tierscale.models.contract.checkpoints import (
    ModelSpec,
)
from tierscale.models.contract.upscaler import Placement
from tierscale.models.runtime.counting import executed

pytestmark = pytest.mark.usefixtures("one_thread")


# cells


def in_cells(scale: int = 2, every: int = 2) -> ApeUpscaler:
    """As make("edsr"), with cells of 5 pixels."""
    upscaler = make("edsr", scale)
    arguments = {**BACKBONES["edsr"], "cell": 5, "every": every}
    method = Ape(scale, **arguments)
    method.load_state_dict(upscaler.method.state_dict())
    return ApeUpscaler(method, ModelSpec("ape", scale, arguments, MEAN))


def capacity_of_cells(upscaler: ApeUpscaler, x: Tensor) -> float:
    """What parts the cells of x at the first exit, far from what the regressor says of any."""
    with torch.inference_mode():
        capacity = upscaler.method(x - upscaler.plain.mean).capacity[0].flatten().sort().values
    gap = (
        int(capacity[len(capacity) // 4 : 3 * len(capacity) // 4 + 2].diff().argmax())
        + len(capacity) // 4
        if len(capacity) > 1
        else 0
    )
    return float((capacity[gap] + capacity[min(gap + 1, len(capacity) - 1)]) / 2) - 1e-3 * (
        len(capacity) == 1
    )


def by_hand(upscaler: ApeUpscaler, x: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """One window, cell by cell, each block computed everywhere and kept where its cell stays.

    The image, and the exit of each pixel.
    """
    method = upscaler.method
    entered, body = method.network.enter(x - upscaler.plain.mean)
    left = torch.full(x.shape[2:], -1)
    for index in range(method.exits):
        for block in method.interval(index):
            body = torch.where(left < 0, block(body), body)
        for y in range(0, x.shape[2], 5):
            for column in range(0, x.shape[3], 5):
                at = (slice(y, y + 5), slice(column, column + 5))
                if (
                    left[at][0, 0] < 0
                    and method.tell(body[(..., *at)].mean(dim=(2, 3))) >= threshold
                ):
                    left[at] = index
    for block in method.interval(method.exits):
        body = torch.where(left < 0, block(body), body)
    return method.network.finish(entered, body) + upscaler.plain.mean, left


@pytest.mark.parametrize("size", [(5, 5), (16, 21), (40, 33)])
@pytest.mark.parametrize("every", [1, 2, 4])
def test_cells_leave_one_by_one_and_keep_their_features(size: tuple[int, int], every: int) -> None:
    upscaler, x = in_cells(every=every), windows(1, *size)
    threshold = capacity_of_cells(upscaler, x)
    with torch.inference_mode():
        made = upscaler(x, whole(x), settings={"threshold": threshold})
        expected, left = by_hand(upscaler, x, threshold)
    assert made.choice is not None and torch.equal(made.choice[0], left)
    assert size == (5, 5) or len(left.unique()) > 1, "cells leave at different exits"
    torch.testing.assert_close(made.pixels, expected, atol=1e-4, rtol=1e-4)


def test_one_cell_as_large_as_the_window_leaves_as_the_window_does() -> None:
    plain, x = make("edsr"), windows(3, 16, 16)
    method = Ape(2, **{**BACKBONES["edsr"], "cell": 16})
    method.load_state_dict(plain.method.state_dict())
    celled = ApeUpscaler(method, plain.spec)
    settings = {"threshold": middling(plain, x)}
    with torch.inference_mode():
        expected, made = (
            plain(x, whole(x), settings=settings),
            celled(x, whole(x), settings=settings),
        )
    assert expected.choice is not None and made.choice is not None
    assert torch.equal(made.choice, expected.choice) and torch.equal(made.macs, expected.macs)
    torch.testing.assert_close(made.pixels, expected.pixels, atol=1e-5, rtol=1e-5)


def test_cells_lie_in_the_grid_of_the_whole_image() -> None:
    """A window that begins at row 3 and column 12 sees cells cut at rows 5, 10, … of the image.

    Inside, it makes what the image makes.
    """
    upscaler, x = in_cells(), windows(1, 60, 70)
    threshold = capacity_of_cells(upscaler, x)
    with torch.inference_mode():
        image = upscaler(x, whole(x), settings={"threshold": threshold})
        place = Placement(Fraction(2), (60, 70), ((3, 12),))
        window = upscaler(x[:, :, 3:58, 12:67], place, settings={"threshold": threshold})
    assert image.choice is not None and window.choice is not None
    inside = (slice(0, 1), slice(22, 33), slice(22, 33))
    assert torch.equal(window.choice[inside], image.choice[:, 25:36, 34:45])
    torch.testing.assert_close(
        window.pixels[:, :, 44:66, 44:66], image.pixels[:, :, 50:72, 68:90], atol=1e-4, rtol=1e-4
    )


def test_work_of_cells_that_left_is_not_done() -> None:
    upscaler, x = in_cells(), windows(1, 40, 40)
    upscaler.network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    with torch.inference_mode():
        macs = [
            upscaler(x, whole(x), settings={"threshold": t}).macs.item()
            for t in (-1.0, capacity_of_cells(upscaler, x), 2.0)
        ]
        for threshold, found in zip((-1.0, 2.0), (macs[0], macs[2]), strict=True):
            assert found == executed(
                lambda t=threshold: upscaler(x, whole(x), settings={"threshold": t})
            )  # type: ignore[misc]
    assert macs[0] < macs[1] < macs[2]


def test_only_edsr_has_cells() -> None:
    with pytest.raises(ValueError, match="cells of 8 pixels cannot leave rcan"):
        Ape(2, "rcan", 1, 8, groups=2, blocks=2, features=8)
