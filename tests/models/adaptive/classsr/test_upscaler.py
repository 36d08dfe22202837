"""ClassSR under the contract, on small networks with random weights.

Tiles of the whole image's grid, each through its own branch.
"""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from torch import Tensor, nn

from tierscale.models import registry
from tierscale.models.adaptive.classsr.network import ClassSr
from tierscale.models.adaptive.classsr.upscaler import ClassSrUpscaler, build
from tierscale.models.contract.checkpoints import Checkpoint, ModelSpec, write_checkpoint
from tierscale.models.contract.efforts import Efforts
from tierscale.models.contract.upscaler import Placement
from tierscale.models.runtime import patches as cut
from tierscale.models.runtime.counting import executed
from tierscale.models.runtime.patches import SIDE, STEP, Patches, blend_weights, starts
from tierscale.models.runtime.plain import PlainUpscaler
from tierscale.models.runtime.resample import multiply_adds, resample
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.policies import Full
from tierscale.pipeline.run.array import enlarge_array

pytestmark = pytest.mark.usefixtures("one_thread")


MEAN = (0.45, 0.44, 0.4)


BRANCHES: dict[str, list[dict[str, Any]]] = {
    "fsrcnn": [{"features": d, "narrow": 4, "mapping": 2} for d in (4, 6, 8)],
    "carn": [{"features": 4, "groups": 1}, {"features": 8, "groups": 2}],
    "srresnet": [{"features": 4, "blocks": 1}, {"features": 6, "blocks": 1}],
}


def make(branch: str = "fsrcnn", scale: int = 2, residual: str | None = None) -> ClassSrUpscaler:
    """A small network with random weights whose classes all occur on noise of different
    strength.
    """
    torch.manual_seed(4)
    arguments = {"branch": branch, "branches": BRANCHES[branch]}
    network = ClassSr(scale, branch, BRANCHES[branch])
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
    with torch.no_grad():
        tiles = (
            photo(320, 320)
            .unfold(2, 32, 32)
            .unfold(3, 32, 32)[0]
            .permute(1, 2, 0, 3, 4)
            .flatten(0, 1)
        )
        logits = network.classifier(tiles)
        assert network.classifier.tell.bias is not None
        network.classifier.tell.bias -= logits.median(dim=0).values
    return build(
        Checkpoint(ModelSpec("classsr", scale, arguments, MEAN, residual), network.state_dict()),
        "test",
    )


def photo(height: int, width: int) -> Tensor:
    """Noise that grows from left to right."""
    return 0.5 + torch.randn(
        1, 3, height, width, generator=torch.Generator().manual_seed(7)
    ) * torch.linspace(0.02, 0.3, width)


def whole(x: Tensor, scale: int = 2) -> Placement:
    return Placement(Fraction(scale), (x.shape[-2], x.shape[-1]), ((0, 0),) * len(x))


@pytest.mark.parametrize(
    ("branch", "residual"), [("fsrcnn", None), ("carn", "bilinear"), ("srresnet", "bilinear")]
)
def test_each_tile_is_what_its_branch_makes_of_it_in_the_trained_form(
    branch: str, residual: str | None
) -> None:
    upscaler, x = make(branch, residual=residual), photo(60, 88)
    with torch.inference_mode():
        made = upscaler(x, whole(x), settings={"bias": 0.0})
        window = Patches(whole(x), 60, 88, SIDE, STEP)
        wanted, tiles = torch.zeros_like(made.pixels), window.tiles(x)
        classes = upscaler.classifier(tiles).argmax(dim=1)
        assert len(set(classes.tolist())) > 1, "this test is about a choice"
        for index, tile in enumerate(tiles):
            plain = upscaler.branches[int(classes[index])]
            enlarged = plain.network(tile[None] - plain.mean)[0]
            enlarged += (
                plain.mean
                if residual is None
                else resample(tile[None], whole(tile[None]), residual)[0]
            )
            window.add(wanted, index, enlarged)
    torch.testing.assert_close(made.pixels, wanted, atol=1e-4, rtol=1e-4)
    assert made.choice is not None and made.choice.shape == (1, 60, 88)
    assert set(made.choice.unique().tolist()) == set(classes.tolist())


def test_a_branch_that_no_tile_is_sent_through_never_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    upscaler, x, ran = make(), photo(88, 88), list[int]()
    enlarge = upscaler.enlarge
    monkeypatch.setattr(
        upscaler, "enlarge", lambda tiles, branch: ran.append(branch) or enlarge(tiles, branch)
    )
    for bias, wanted in ((-1e6, {0}), (1e6, {2}), (float("inf"), {2})):
        ran.clear()
        upscaler(x, whole(x), settings={"bias": bias})
        assert set(ran) == wanted


def test_macs_are_those_executed_and_more_bias_never_costs_less() -> None:
    upscaler, x = make(), photo(150, 117)
    macs = []
    for bias in (-1e6, -1.0, 0.0, 1.0, 1e6):
        made = upscaler(x, whole(x), settings={"bias": bias})
        macs.append(made.macs.item())
        assert macs[-1] == executed(
            lambda bias=bias: upscaler(x, whole(x), settings={"bias": bias})
        )  # type: ignore[misc]
    assert macs == sorted(macs) and macs[0] < macs[2] < macs[-1]
    assert upscaler(x, whole(x)).macs.item() == macs[-1]
    inner = Placement(Fraction(2), (500, 500), ((100, 100),))
    residual = multiply_adds(3, 117, 300, 234, "bilinear")
    assert upscaler(x, inner).macs.item() == executed(lambda: upscaler(x, inner)) + residual


def test_a_window_gives_the_same_bits_alone_and_in_a_batch() -> None:
    upscaler, x = make(), torch.cat([photo(70, 90), 1 - photo(70, 90), photo(70, 90).flip(3)])
    place = Placement(Fraction(2), (300, 300), ((0, 0), (17, 110), (230, 210)))
    with torch.inference_mode():
        together = upscaler(x, place, settings={"bias": 0.0})
        for index, origin in enumerate(place.origins):
            alone = upscaler(
                x[index : index + 1],
                Placement(place.scale, place.size, (origin,)),
                settings={"bias": 0.0},
            )
            assert torch.equal(alone.pixels[0], together.pixels[index])
            assert alone.macs[0] == together.macs[index]


@pytest.mark.parametrize("origin", [(0, 0), (40, 33), (110, 60), (90, 95)])
def test_a_window_holds_what_the_whole_image_has_there(origin: tuple[int, int]) -> None:
    """Nothing outside the reach matters, and the decisions are the same."""
    upscaler, x = make(), photo(200, 190)
    height, width = 90, 95
    rows, columns = (
        slice(start, start + length) for start, length in zip(origin, (height, width), strict=True)
    )
    assert upscaler.reach == 31
    with torch.inference_mode():
        image = upscaler(x, whole(x), settings={"bias": 0.0})
        window = upscaler(
            x[:, :, rows, columns],
            Placement(Fraction(2), (200, 190), (origin,)),
            settings={"bias": 0.0},
        )
    common = [
        slice(0 if start == 0 else 31, length if start + length == all_of else length - 31)
        for start, length, all_of in zip(origin, (height, width), (200, 190), strict=True)
    ]
    hr = [slice(2 * part.start, 2 * part.stop) for part in common]
    torch.testing.assert_close(
        window.pixels[:, :, hr[0], hr[1]],
        image.pixels[:, :, 2 * rows.start :, 2 * columns.start :][:, :, hr[0], hr[1]],
        atol=1e-6,
        rtol=0,
    )
    assert image.choice is not None and window.choice is not None
    assert torch.equal(
        window.choice[:, common[0], common[1]],
        image.choice[:, rows, columns][:, common[0], common[1]],
    )


def test_a_window_without_a_whole_tile_is_context_only() -> None:
    upscaler, x = make(), photo(20, 20)
    made = upscaler(x, Placement(Fraction(2), (500, 500), ((100, 100),)))
    assert made.choice is not None and made.choice.eq(ClassSrUpscaler.NONE).all()
    torch.testing.assert_close(made.pixels, resample(x, whole(x), "bilinear"))


@pytest.mark.parametrize("tile", [40, 56, 72])
def test_tiled_equals_whole(tile: int, tmp_path: Path) -> None:
    upscaler = make()
    network = ClassSr(2, "fsrcnn", BRANCHES["fsrcnn"])
    network.classifier.load_state_dict(upscaler.classifier.state_dict())
    for own, branch in zip(network.branches, upscaler.branches, strict=True):
        own.load_state_dict(branch.network.state_dict())
    path, image = tmp_path / "c.safetensors", photo(171, 133)[0].numpy()
    arguments = {"branch": "fsrcnn", "branches": BRANCHES["fsrcnn"]}
    write_checkpoint(
        path, Checkpoint(ModelSpec("classsr", 2, arguments, MEAN), network.state_dict())
    )
    options = Options(
        scale=Fraction(2),
        tiers=(f"file:{path}",),
        policy=Full(),
        tile=tile,
        value_range=(0.0, 1.0),
    )
    found = enlarge_array(image, options).pixels
    with torch.inference_mode():
        wanted = (
            upscaler(torch.from_numpy(image[None]), whole(torch.from_numpy(image[None])))
            .pixels[0]
            .numpy()
        )
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_tiles_do_not_show_where_one_network_makes_them_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Steps in overlaps, over those one input pixel beside.

    Are at most 1.05 times what the whole image has there anyway.
    """
    plain = registry.load("fsrcnn-x4")
    assert isinstance(plain, PlainUpscaler)
    network = ClassSr(4, "fsrcnn", [plain.spec.arguments] * 2)
    for branch in network.branches:
        branch.load_state_dict(plain.network.state_dict())
    upscaler = ClassSrUpscaler(network, plain.spec)
    x = (
        torch.from_numpy(skimage.data.coffee()[100:260, 150:360].copy())
        .permute(2, 0, 1)[None]
        .float()
        / 255
    )

    def steps(pixels: Tensor) -> Tensor:
        """By place in the overlap, from its first line between input pixels to its last."""
        places = [
            range(4 * start, 4 * (start + SIDE - STEP) + 1, 4)
            for start in starts(0, 210, 210, SIDE, STEP)[1:-1]
        ]
        taken = torch.tensor(
            [
                [
                    pixels[0, :, :, at - 5 : at + 5].diff(dim=2).abs().mean(dim=(0, 1)).tolist()
                    for at in one
                ]
                for one in places
            ]
        )
        return taken[..., 4].mean(dim=0) / taken[..., [0, 8]].mean(dim=(0, 2))

    def averaged(first: list[int], side: int, length: int, scale: int) -> Tensor:
        inside = torch.stack([blend_weights([start], side, length, scale)[0] for start in first])
        return inside / inside.sum(dim=0).clamp(min=1)

    with torch.inference_mode():
        there_anyway = steps(plain(x, whole(x, 4)).pixels)
        assert (steps(upscaler(x, whole(x, 4)).pixels) / there_anyway).max() <= 1.05
        monkeypatch.setattr(cut, "blend_weights", averaged)
        assert (steps(upscaler(x, whole(x, 4)).pixels) / there_anyway).max() > 1.05, (
            "a plain average shows"
        )


def test_the_trained_form_mixes_branches_by_probability() -> None:
    torch.manual_seed(0)
    network, tiles = ClassSr(2, "fsrcnn", BRANCHES["fsrcnn"]), torch.rand(2, 3, 32, 32)
    logits, mixed = network(tiles, tiles - 0.5)
    shares = torch.softmax(logits, dim=1)
    wanted = sum(
        shares[:, i, None, None, None] * branch(tiles - 0.5)
        for i, branch in enumerate(network.branches)
    )
    torch.testing.assert_close(mixed, wanted)
    mixed.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_effort_turns_the_bias() -> None:
    upscaler, x = make(), photo(64, 64)
    upscaler.efforts = Efforts("bias", (-4.0, 0.0, 4.0), (0.3, 0.6, 1.0), "", {})
    assert torch.equal(
        upscaler(x, whole(x), 0.6).pixels, upscaler(x, whole(x), settings={"bias": 0.0}).pixels
    )
    assert upscaler.cost(Fraction(2), 0.5) == pytest.approx(0.5 * upscaler.cost(Fraction(2)))
    assert list(upscaler.calibration_grid) == sorted(upscaler.calibration_grid)


def test_bad_requests_are_refused() -> None:
    upscaler, x = make(), torch.rand(1, 3, 40, 40)
    with pytest.raises(ValueError, match="enlarges by 2, not by 4"):
        upscaler(x, whole(x, 4))
    with pytest.raises(ValueError, match=r"\(1, 1, 40, 40\).*three equal channels"):
        upscaler(x[:, :1], whole(x))
    with pytest.raises(
        ValueError, match=r"effort of 0.5 was not measured; run tierscale models calibrate"
    ):
        upscaler(x, whole(x), 0.5)
    with pytest.raises(ValueError, match="no branch 'vdsr'; known are carn, fsrcnn, srresnet"):
        ClassSr(2, "vdsr")
    with pytest.raises(ValueError, match="two or more branches, not 1"):
        ClassSr(2, "fsrcnn", BRANCHES["fsrcnn"][:1])
    with pytest.raises(ValueError, match="cannot be built"):
        build(Checkpoint(ModelSpec("classsr", 2, {"colour": 1}), {}), "test")
