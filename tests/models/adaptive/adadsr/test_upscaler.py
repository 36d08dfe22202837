"""AdaDSR under the contract, on small networks with random weights.

What it skips, how far it looks, and what upstream names become.
"""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from unittest import mock

import pytest
import torch

from tests.models.adaptive.adadsr.small_adadsr import BACKBONES, make, photo, whole
from tierscale.models import registry
from tierscale.models.adaptive.adadsr import upscaler as adadsr
from tierscale.models.adaptive.adadsr.network import Adadsr
from tierscale.models.adaptive.adadsr.upscaler import AdadsrUpscaler
from tierscale.models.contract.checkpoints import (
    Checkpoint,
    ModelSpec,
    digest_file,
    write_checkpoint,
)
from tierscale.models.contract.efforts import Efforts, write_efforts
from tierscale.models.contract.upscaler import Placement
from tierscale.models.runtime.counting import executed
from tierscale.models.runtime.plain import PlainUpscaler
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.policies import Full
from tierscale.pipeline.run.array import enlarge_array

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("kind", BACKBONES)
@pytest.mark.parametrize(
    ("size", "residual"),
    [((1, 1), None), ((7, 5), None), ((30, 26), "bilinear"), ((75, 61), None), ((64, 64), None)],
)
@pytest.mark.parametrize("depth", [0.0, 2.0, 9.0])
def test_skipping_gives_what_the_trained_form_gives(
    kind: str, size: tuple[int, int], residual: str | None, depth: float
) -> None:
    upscaler, x = make(kind, residual=residual), photo(2, *size)
    with torch.inference_mode():
        made = upscaler(x, whole(x), settings={"depth": depth})
        image, depths = upscaler.method(x - upscaler.plain.mean, torch.full((2,), depth))
        expected = upscaler.plain.complete(image, x)
    assert made.choice is not None
    torch.testing.assert_close(made.choice, depths, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(made.pixels, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", BACKBONES)
def test_some_blocks_are_skipped_at_some_places_and_none_of_that_is_computed(kind: str) -> None:
    upscaler, x = make(kind, residual="bicubic"), photo(1, 64, 48)
    with torch.inference_mode():
        full = upscaler(x, whole(x)).macs.item()
    macs = []
    for depth in (0.0, 0.5, 1.0, 2.0, 4.0):
        settings = {"depth": depth}
        macs.append(upscaler(x, whole(x), settings=settings).macs.item())
        assert macs[-1] == executed(
            lambda settings=settings: upscaler(x, whole(x), settings=settings)
        )
    if kind != "rcan":
        assert all(less <= more for less, more in pairwise(macs))
        assert len(set(macs)) == 5 and macs[0] < 0.6 * full


@pytest.mark.parametrize("kind", BACKBONES)
def test_a_window_gives_the_same_bits_alone_and_in_a_batch(kind: str) -> None:
    upscaler, x = make(kind), photo(3, 30, 26)
    with torch.inference_mode():
        together = upscaler(x, whole(x), settings={"depth": 2.0})
        alone = [upscaler(one, whole(one), settings={"depth": 2.0}) for one in x.split(1)]
    assert torch.equal(together.pixels, torch.cat([made.pixels for made in alone]))
    assert together.macs.tolist() == [made.macs.item() for made in alone]


@pytest.mark.parametrize("kind", BACKBONES)
def test_full_effort_is_the_network_without_the_predictor(kind: str) -> None:
    upscaler, x = make(kind), photo(2, 30, 26)
    plain = PlainUpscaler(upscaler.method.network, upscaler.spec)
    with (
        torch.inference_mode(),
        mock.patch.object(upscaler.method.predictor, "forward", side_effect=AssertionError),
    ):
        made, expected = upscaler(x, whole(x)), plain(x, whole(x))
    assert torch.equal(made.pixels, expected.pixels) and torch.equal(made.macs, expected.macs)
    assert made.choice is not None and made.choice.shape == (2, len(upscaler.method.groups), 30, 26)
    assert made.choice.unique().tolist() == [upscaler.method.depth]
    assert upscaler.cost(Fraction(2)) == pytest.approx(made.macs[0].item() / (30 * 26), rel=0.02)
    with torch.inference_mode():
        every = upscaler(x, whole(x), settings={"depth": 1e6})
    if kind == "edsr":  # a depth of exactly 0 stays 0
        predicted = (every.choice > 0).float().mean()  # type: ignore[operator]
        assert (
            every.macs[0] <= made.macs[0] + upscaler.method.predictor.cost * 30 * 26
            and 0 < predicted < 1
        )


def test_cells_share_their_mean_depth_wherever_a_window_begins() -> None:
    cells, x = make("edsr, cells"), photo(1, 40, 48)
    alone = AdadsrUpscaler(Adadsr(2, **BACKBONES["edsr"]), cells.spec)
    alone.method.load_state_dict(cells.method.state_dict())
    with torch.inference_mode():
        shared, own = (
            cells(x, whole(x), settings={"depth": 2.0}),
            alone(x, whole(x), settings={"depth": 2.0}),
        )
        window = cells(
            x[:, :, 3:, 5:], Placement(Fraction(2), (40, 48), ((3, 5),)), settings={"depth": 2.0}
        )
    assert shared.choice is not None and own.choice is not None and window.choice is not None
    torch.testing.assert_close(
        shared.choice[:, :, 8:16, 40:48], own.choice[:, :, 8:16, 40:48].mean().expand(1, 1, 8, 8)
    )
    assert len(shared.choice.unique()) <= 30 < len(own.choice.unique())
    torch.testing.assert_close(window.choice[:, :, 21:, 19:], shared.choice[:, :, 24:, 24:])
    assert shared.macs < own.macs


@pytest.mark.parametrize("cell", [None, 8])
@pytest.mark.parametrize("layers", [1, 5])
@pytest.mark.parametrize("scale", [2, 4])
def test_nothing_beyond_reach_matters_and_the_last_pixel_within_does(
    layers: int, scale: int, cell: int | None
) -> None:
    upscaler, side = (
        make("edsr", scale, "bilinear", blocks=2, predictor_layers=layers, cell=cell),
        61,
    )
    assert upscaler.reach is not None and make("rcan").reach is None
    x, middle, seen = photo(1, side, side), side // 2, []
    with torch.inference_mode():
        before = upscaler(x, whole(x, scale), settings={"depth": 2.0}).pixels
        for far in (upscaler.reach, upscaler.reach + 1):
            changed = False
            for dim, sign, step in [
                (dim, sign, step) for dim in (2, 3) for sign in (1, -1) for step in (-100, 100)
            ]:
                y = x.clone()
                y.select(dim, middle + sign * far).add_(step)
                after = upscaler(y, whole(y, scale), settings={"depth": 2.0}).pixels
                changed = changed or bool(
                    ((after - before).narrow(dim, middle * scale, scale) != 0).any()
                )
            seen.append(changed)
    # How far a cell reaches depends on where in it a pixel lies; that nothing beyond matters is
    # promised of all of them.
    assert not seen[1] and (seen[0] or cell is not None)


@pytest.mark.parametrize("kind", ["edsr", "edsr, cells"])
@pytest.mark.parametrize("tile", [24, 40, 56])
def test_tiled_equals_whole(tile: int, kind: str, tmp_path: Path) -> None:
    """As a tier at less than full effort, over tiles of several sizes, through the pipeline."""
    upscaler, path, image = make(kind), tmp_path / "a.safetensors", photo(1, 97, 131)
    write_checkpoint(path, Checkpoint(upscaler.spec, upscaler.method.state_dict()))
    write_efforts(path, Efforts("depth", (1.0, 4.0), (0.2, 1.0), digest_file(path), {}))
    with torch.inference_mode():
        expected = upscaler(image, whole(image), settings={"depth": 2.5})
    assert expected.choice is not None and 0.2 < (expected.choice > 1).float().mean() < 0.8
    options = Options(
        scale=Fraction(2),
        tiers=(f"file:{path}@0.6",),
        policy=Full(),
        tile=tile,
        value_range=(0.0, 1.0),
    )
    found = enlarge_array(image[0].numpy(), options).pixels
    torch.testing.assert_close(torch.from_numpy(found), expected.pixels[0], atol=1e-5, rtol=0)


def test_weights_come_back_with_their_table(tmp_path: Path) -> None:
    upscaler, x, path = make("rcan"), photo(1, 16, 16), tmp_path / "a.safetensors"
    write_checkpoint(path, Checkpoint(upscaler.spec, upscaler.method.state_dict()))
    with pytest.raises(
        ValueError,
        match=(
            r"a.safetensors costs at an effort of 0.5 was not measured; run tierscale models"
            r" calibrate"
        ),
    ):
        registry.load(f"file:{path}")(x, whole(x), 0.5)
    write_efforts(path, Efforts("depth", (0.5, 4.0), (0.4, 1.0), digest_file(path), {}))
    again = registry.load(f"file:{path}")
    with torch.inference_mode():
        assert torch.equal(
            again(x, whole(x), 0.2).pixels, upscaler(x, whole(x), settings={"depth": 0.5}).pixels
        )


def test_what_cannot_work_is_refused() -> None:
    upscaler, x = make("edsr"), photo(1, 8, 8)
    with pytest.raises(ValueError, match="given k, but knows only depth"):
        upscaler(x, whole(x), settings={"k": 0})
    with pytest.raises(ValueError, match="a depth of -1 blocks"):
        upscaler(x, whole(x), settings={"depth": -1.0})
    with pytest.raises(ValueError, match=r"effort of -0.5 is not a share"):
        upscaler(x, whole(x), -0.5)
    with pytest.raises(ValueError, match="enlarges by 2, not by 4"):
        upscaler(x, whole(x, 4))
    with pytest.raises(ValueError, match=r"\(1, 1, 8, 8\).*three equal channels"):
        upscaler(x[:, :1], whole(x))
    with pytest.raises(ValueError, match="not on 'carn'"):
        Adadsr(2, "carn")
    with pytest.raises(ValueError, match="5 layers has no place 6"):
        Adadsr(2, "edsr", budget_place=6, blocks=1, features=8)
    with pytest.raises(ValueError, match="cannot be built"):
        adadsr.build(Checkpoint(ModelSpec("adadsr", 2, {"samplers": 3}), {}), "a")
