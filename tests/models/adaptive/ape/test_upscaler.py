"""APE under the contract, on small networks with random weights.

RCAN and VDSR, which it stands on; what upstream names become.
"""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch import nn

from tests.models.adaptive.ape.small_ape import BACKBONES, make, middling, whole, windows
from tierscale.models import registry
from tierscale.models.adaptive.ape import upscaler as ape
from tierscale.models.adaptive.ape.network import Ape
from tierscale.models.adaptive.ape.upscaler import ApeUpscaler
from tierscale.models.backbones.rcan import Rcan
from tierscale.models.backbones.vdsr import Vdsr
from tierscale.models.contract.checkpoints import (
    Checkpoint,
    ModelSpec,
    digest_file,
    write_checkpoint,
)
from tierscale.models.contract.efforts import Efforts, write_efforts
from tierscale.models.contract.upscaler import Placement
from tierscale.models.runtime.counting import executed
from tierscale.models.runtime.patches import SIDE, STEP, Patches
from tierscale.models.runtime.plain import PlainUpscaler

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("kind", BACKBONES)
@pytest.mark.parametrize(
    ("size", "residual"), [((1, 1), None), ((16, 21), "bilinear"), ((32, 30), None)]
)
def test_leaving_gives_what_the_trained_form_gives_at_that_exit(
    kind: str, size: tuple[int, int], residual: str | None
) -> None:
    upscaler, x = make(kind, residual=residual), windows(4, *size)
    with torch.inference_mode():
        exits = upscaler.method(x - upscaler.plain.mean)
        threshold = middling(upscaler, x)
        made = upscaler(x, whole(x), settings={"threshold": threshold})
        images = torch.stack([*exits.images, exits.full])
        left = (
            torch.cat([exits.capacity >= threshold, torch.ones(1, len(x), dtype=torch.bool)])
            .int()
            .argmax(dim=0)
        )
        expected = upscaler.plain.complete(images[left, torch.arange(len(x))], x)
    assert made.choice is not None and (made.choice == made.choice[:, :1, :1]).all(), (
        "an image this small is one patch"
    )
    assert made.choice[:, 0, 0].tolist() == [
        -1 if index == upscaler.method.exits else index for index in left.tolist()
    ]
    torch.testing.assert_close(made.pixels, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", BACKBONES)
def test_patches_of_an_image_leave_one_by_one(kind: str) -> None:
    """As if each were an image of its own; where two overlap, one fades into the other."""
    upscaler, x = (
        make(kind, residual="bilinear"),
        torch.cat([windows(3, 40, 25)[i : i + 1] for i in range(3)], dim=3),
    )
    with torch.inference_mode():
        patches = {(y, x0): x[:, :, y : y + 32, x0 : x0 + 32] for y in (0, 8) for x0 in (0, 28, 43)}
        threshold = middling(upscaler, torch.cat(list(patches.values())))
        made = upscaler(x, whole(x), settings={"threshold": threshold})
        alone = {
            place: upscaler(patch, whole(patch), settings={"threshold": threshold})
            for place, patch in patches.items()
        }
    exits = {place: one.choice[0, 0, 0].item() for place, one in alone.items()}  # type: ignore[index]
    assert made.choice is not None and len(set(exits.values())) > 1
    assert made.macs.item() == sum(one.macs.item() for one in alone.values())
    # Rows up to 19 are nearer to the first patches, columns 33 to 40 lie in the middle ones alone.
    assert made.choice[0, 4, 36] == exits[0, 28] and made.choice[0, 38, 36] == exits[8, 28]
    torch.testing.assert_close(
        made.pixels[:, :, :24, 66:80], alone[0, 28].pixels[:, :, :24, 10:24], atol=1e-5, rtol=1e-5
    )
    between = torch.stack(
        [alone[0, 28].pixels[:, :, 39, 10:24], alone[8, 28].pixels[:, :, 23, 10:24]]
    )
    low, high = between.amin(dim=0) - 1e-4, between.amax(dim=0) + 1e-4
    assert ((made.pixels[:, :, 39, 66:80] >= low) & (made.pixels[:, :, 39, 66:80] <= high)).all()


@pytest.mark.parametrize("kind", ["edsr", "vdsr"])
def test_a_window_makes_of_its_middle_what_the_image_does(kind: str) -> None:
    upscaler, x = make(kind), torch.cat([windows(3, 130, 45)[i : i + 1] for i in range(3)], dim=3)
    assert upscaler.reach == 31
    with torch.inference_mode():
        settings = {
            "threshold": middling(upscaler, Patches(whole(x), 130, 135, SIDE, STEP).tiles(x))
        }
        image = upscaler(x, whole(x), settings=settings)
        place = Placement(Fraction(2), (130, 135), ((9, 11),))
        window = upscaler(x[:, :, 9:111, 11:120], place, settings=settings)
    assert image.choice is not None and window.choice is not None and len(image.choice.unique()) > 1
    assert (window.choice[0, :5, 0] == ApeUpscaler.NONE).any() and torch.equal(
        window.choice[0, 31:71, 31:78], image.choice[0, 40:80, 42:89]
    )
    torch.testing.assert_close(
        window.pixels[:, :, 62:142, 62:156],
        image.pixels[:, :, 80:160, 84:178],
        atol=1e-5,
        rtol=1e-5,
    )


def test_layers_run_by_rows_give_what_they_give_at_once() -> None:
    """Also over features that are overwritten."""
    upscaler, x = make("edsr"), windows(1, 75, 70)
    layers = upscaler.method.interval(0)
    with torch.inference_mode():
        _, body = upscaler.network.enter(x.contiguous(memory_format=torch.channels_last))
        expected = nn.Sequential(*layers)(body)
        torch.testing.assert_close(
            upscaler._advance(layers, body, body), expected, atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize("kind", BACKBONES)
def test_a_window_gives_the_same_bits_alone_and_in_a_batch(kind: str) -> None:
    upscaler, x = make(kind), windows(4, 16, 21)
    with torch.inference_mode():
        settings = {"threshold": middling(upscaler, x)}
        together = upscaler(x, whole(x), settings=settings)
        alone = [upscaler(one, whole(one), settings=settings) for one in x.split(1)]
    assert torch.equal(together.pixels, torch.cat([made.pixels for made in alone]))
    assert together.macs.tolist() == [made.macs.item() for made in alone]
    assert len(set(together.macs.tolist())) > 1, "the windows leave at different exits"


@pytest.mark.parametrize("kind", BACKBONES)
def test_a_batch_that_shrinks_gives_what_each_patch_gives(kind: str) -> None:
    upscaler, x = make(kind), windows(5, 16, 21)
    with torch.inference_mode():
        for threshold in (-1.0, middling(upscaler, x), 2.0):
            pixels, left = upscaler.patches(x, threshold)
            alone = [upscaler.patches(one, threshold) for one in x.split(1)]
            assert left.tolist() == [exits.item() for _, exits in alone]
            torch.testing.assert_close(
                pixels, torch.cat([one for one, _ in alone]), atol=1e-4, rtol=1e-4
            )


@pytest.mark.parametrize("kind", BACKBONES)
@pytest.mark.parametrize("residual", [None, "bicubic"])
def test_macs_are_those_executed(kind: str, residual: str | None) -> None:
    upscaler, x = make(kind, 3, residual), windows(4, 16, 21)
    with torch.inference_mode():
        settings = {"threshold": middling(upscaler, x)}
    for window in x.split(1):
        macs = upscaler(window, whole(window, 3), settings=settings).macs.item()
        assert macs == executed(
            lambda window=window: upscaler(window, whole(window, 3), settings=settings)
        )  # type: ignore[misc]


@pytest.mark.parametrize("kind", BACKBONES)
def test_layers_behind_the_exit_are_not_touched(kind: str) -> None:
    upscaler, x = make(kind), windows(2, 16, 21)
    every = upscaler.method.every
    upscaler.method.layers = [*upscaler.method.layers[:every], *[nn.Identity()] * every]
    for layer in upscaler.method.layers[every:]:
        layer.forward = layer.stream = mock.Mock(side_effect=RuntimeError("touched"))
    with torch.inference_mode():
        upscaler(x, whole(x), settings={"threshold": -1.0})
        with pytest.raises(RuntimeError, match="touched"):
            upscaler(x, whole(x), settings={"threshold": 2.0})


@pytest.mark.parametrize("kind", BACKBONES)
def test_full_effort_is_the_network_and_a_higher_threshold_never_costs_less(kind: str) -> None:
    upscaler, x = make(kind), windows(4, 16, 21)
    plain = PlainUpscaler(upscaler.network, upscaler.spec)
    with torch.inference_mode():
        full, expected = upscaler(x, whole(x)), plain(x, whole(x))
        macs = [
            upscaler(x, whole(x), settings={"threshold": threshold}).macs
            for threshold in upscaler.calibration_grid
        ]
    assert torch.equal(full.pixels, expected.pixels) and torch.equal(full.macs, expected.macs)
    assert (
        full.choice is not None and full.choice.shape == (4, 16, 21) and (full.choice == -1).all()
    )
    for less, more in pairwise(macs):
        assert (less <= more).all()
    assert (macs[0] < full.macs).all() and (macs[-1] > full.macs).all(), (
        "at the end only the regressor's work is added"
    )
    assert upscaler.cost(Fraction(2)) == pytest.approx(full.macs[0].item() / (16 * 21), rel=0.02)


def test_weights_come_back_with_their_table(tmp_path: Path) -> None:
    upscaler, x, path = make("edsr"), windows(2, 16, 16), tmp_path / "a.safetensors"
    write_checkpoint(path, Checkpoint(upscaler.spec, upscaler.method.state_dict()))
    again = registry.load(f"file:{path}")
    with pytest.raises(
        ValueError,
        match=(
            r"a.safetensors costs at an effort of 0.5 was not measured; run tierscale models"
            r" calibrate"
        ),
    ):
        again(x, whole(x), 0.5)
    write_efforts(path, Efforts("threshold", (-1.0, 2.0), (0.6, 1.0), digest_file(path), {}))
    again = registry.load(f"file:{path}")
    with torch.inference_mode():
        made = again(x, whole(x), 0.3)
        assert torch.equal(made.pixels, upscaler(x, whole(x), settings={"threshold": -1.0}).pixels)
    assert made.choice is not None and not made.choice.any()
    assert again.cost(Fraction(2), 0.3) == pytest.approx(0.6 * again.cost(Fraction(2)))


def test_what_cannot_work_is_refused(tmp_path: Path) -> None:
    upscaler, x = make("edsr"), windows(1, 8, 8)
    with pytest.raises(ValueError, match="given k, but knows only threshold"):
        upscaler(x, whole(x), settings={"k": 0})
    with pytest.raises(ValueError, match=r"effort of 1.5 is not a share"):
        upscaler(x, whole(x), 1.5)
    with pytest.raises(ValueError, match="enlarges by 2, not by 3"):
        upscaler(x, whole(x, 3))
    with pytest.raises(ValueError, match=r"\(1, 1, 8, 8\).*three equal channels"):
        upscaler(x[:, :1], whole(x))
    with pytest.raises(ValueError, match="not on 'srcnn'"):
        Ape(2, "srcnn")
    with pytest.raises(ValueError, match="an exit every 9 of 6 layers"):
        Ape(2, "edsr", 9, blocks=6, features=8)
    tensors = dict(upscaler.method.state_dict())
    with pytest.raises(ValueError, match="cannot be built"):
        ape.build(Checkpoint(ModelSpec("ape", 2, {"groups": 3}), tensors), "a")
    with pytest.raises(ValueError, match=r"a lacks 'regressor.bias' of shape \(1,\)"):
        ape.build(
            Checkpoint(
                upscaler.spec,
                {name: t for name, t in tensors.items() if name != "regressor.bias"},
            ),
            "a",
        )
    for made, message in (
        (lambda: Rcan(5), "not 5"),
        (lambda: Rcan(2, reduction=0), "reduced 0 times"),
        (lambda: Vdsr(2, 1), "1 layers"),
    ):
        with pytest.raises(ValueError, match=message):
            made()
