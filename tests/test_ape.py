"""APE under the contract, on small networks with random weights; RCAN and VDSR, which it stands on;
what published names become.
"""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.reproduce import costs
from tierscale.models import registry
from tierscale.models.adaptive.ape import upscaler as ape
from tierscale.models.adaptive.ape.network import Ape
from tierscale.models.adaptive.ape.upscaler import ApeUpscaler
from tierscale.models.backbones import edsr
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
from tierscale.models.convert.adaptive import ape as upstream_ape
from tierscale.models.convert.backbones import edsr as upstream_edsr
from tierscale.models.runtime.counting import executed
from tierscale.models.runtime.linear_tail import settle
from tierscale.models.runtime.patches import SIDE, STEP, Patches
from tierscale.models.runtime.plain import PlainUpscaler
from tierscale.models.runtime.stages import feed
from tierscale.models.train.trainer import predict

pytestmark = pytest.mark.usefixtures("one_thread")

MEAN = (0.45, 0.44, 0.4)
# The third EDSR has a layer behind its last exit.
BACKBONES: dict[str, dict[str, Any]] = {
    "edsr": {"backbone": "edsr", "every": 2, "blocks": 6, "features": 8, "res_scale": 0.5},
    "edsr, odd": {"backbone": "edsr", "every": 2, "blocks": 5, "features": 8},
    "rcan": {
        "backbone": "rcan",
        "every": 1,
        "groups": 3,
        "blocks": 2,
        "features": 8,
        "reduction": 4,
    },
    "vdsr": {"backbone": "vdsr", "every": 2, "layers": 8, "features": 8},
}


def make(kind: str, scale: int = 2, residual: str | None = None) -> ApeUpscaler:
    """A small network whose regressor says something else at each exit and for each window."""
    torch.manual_seed(2)
    arguments = BACKBONES[kind]
    method = Ape(scale, **arguments)
    for module in method.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    with torch.no_grad():
        told = method(windows(6, 16, 16) - 0.4)
        method.regressor.bias -= torch.atanh(told.capacity.clamp(-0.999, 0.999)).median()
    return ApeUpscaler(method, ModelSpec("ape", scale, arguments, MEAN, residual))


def windows(count: int, height: int, width: int) -> Tensor:
    """Windows (count, 3, height, width), each of another contrast and brightness."""
    torch.manual_seed(5)
    steps = torch.linspace(0.2, 1, count).view(-1, 1, 1, 1)
    return torch.rand(count, 3, height, width) * steps + 0.5 * torch.rand(count, 3, 1, 1)


def whole(x: Tensor, scale: int = 2) -> Placement:
    return Placement(Fraction(scale), (x.shape[-2], x.shape[-1]), ((0, 0),) * len(x))


def middling(upscaler: ApeUpscaler, x: Tensor) -> float:
    """A threshold between what the regressor says, far from all of it."""
    told = upscaler.method(x - upscaler.plain.mean).capacity.flatten().sort().values
    gap = int(told[len(told) // 4 : 3 * len(told) // 4].diff().argmax()) + len(told) // 4
    return float((told[gap] + told[gap + 1]) / 2)


@pytest.mark.parametrize("kind", BACKBONES)
@pytest.mark.parametrize(
    ("size", "residual"), [((1, 1), None), ((16, 21), "bilinear"), ((32, 30), None)]
)
def test_leaving_gives_what_the_trained_form_gives_at_that_exit(
    kind: str, size: tuple[int, int], residual: str | None
) -> None:
    upscaler, x = make(kind, residual=residual), windows(4, *size)
    with torch.inference_mode():
        told = upscaler.method(x - upscaler.plain.mean)
        threshold = middling(upscaler, x)
        made = upscaler(x, whole(x), settings={"threshold": threshold})
        images = torch.stack([*told.images, told.full])
        left = (
            torch.cat([told.capacity >= threshold, torch.ones(1, len(x), dtype=torch.bool)])
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
        given = {"threshold": middling(upscaler, Patches(whole(x), 130, 135, SIDE, STEP).tiles(x))}
        image = upscaler(x, whole(x), settings=given)
        place = Placement(Fraction(2), (130, 135), ((9, 11),))
        window = upscaler(x[:, :, 9:111, 11:120], place, settings=given)
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
        given = {"threshold": middling(upscaler, x)}
        together = upscaler(x, whole(x), settings=given)
        alone = [upscaler(one, whole(one), settings=given) for one in x.split(1)]
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
def test_spent_is_what_is_executed(kind: str, residual: str | None) -> None:
    upscaler, x = make(kind, 3, residual), windows(4, 16, 21)
    with torch.inference_mode():
        given = {"threshold": middling(upscaler, x)}
    for window in x.split(1):
        macs = upscaler(window, whole(window, 3), settings=given).macs.item()
        assert macs == executed(
            lambda window=window: upscaler(window, whole(window, 3), settings=given)
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


def test_the_tables_of_the_published_code_count_convolutions_up_to_the_exit() -> None:
    """EDSR at scale 4, 32 blocks of 256 features, on 48x48 pixels: 31.54 to 115.83 billion from the
    first block to the last.
    """
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
    for exit_, told in ((0, least), (-1, most)):
        assert 0.992 < costs.ape(upscaler, 48, 48, exit_) / told < 0.998


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


def upstream_checkpoint(scale: int) -> tuple[dict[str, Tensor], dict[str, Any], Ape]:
    """An APE on EDSR as the published code would store it, for values 0..255, and the same as
    ours.
    """
    torch.manual_seed(4)
    method = Ape(scale, "edsr", 1, blocks=2, features=8, res_scale=0.1)
    growing = [f"tail.0.{2 * index}" for index in range(len(method.network.tail.steps))]  # type: ignore[arg-type, union-attr]
    theirs = [
        "head.0",
        *(f"body.{block}.body.{place}" for block in (0, 1) for place in (0, 2)),
        "body.2",
        *growing,
        "tail.1",
    ]
    ours = {f"network.{name}": tensor for name, tensor in method.network.state_dict().items()}
    tensors = {}
    for name in (f"{layer}.{part}" for layer in theirs for part in ("weight", "bias")):
        tensors[name] = ours[f"network.{upstream_edsr.own_name(name, growing)}"].clone()
    tensors["head.0.weight"] /= 255
    tensors["tail.1.weight"] *= 255
    tensors["tail.1.bias"] *= 255
    mean = torch.tensor(MEAN) * 255
    for layer, sign in (("sub_mean", -1), ("add_mean", 1)):
        tensors |= {f"{layer}.weight": torch.eye(3).view(3, 3, 1, 1), f"{layer}.bias": sign * mean}
    tensors |= {
        "regressor.2.weight": method.regressor.weight.detach(),
        "regressor.2.bias": method.regressor.bias.detach(),
    }
    config = {
        "model": "edsr_ape",
        "n_resblocks": 2,
        "n_feats": 8,
        "scale": [scale],
        "rgb_range": 255,
        "res_scale": 0.1,
        "exit_interval": 1,
    }
    return tensors, config, method


@pytest.mark.parametrize("scale", [3, 4])
def test_published_names_of_other_scales_become_ours(scale: int) -> None:
    tensors, config, method = upstream_checkpoint(scale)
    made = upstream_ape.from_upstream(tensors, config, (0.0, 0.0, 0.0))
    assert made.spec.mean == pytest.approx(MEAN)
    for name, tensor in method.state_dict().items():
        torch.testing.assert_close(made.tensors[name], tensor)
    plain = upstream_edsr.from_upstream(
        {name: t for name, t in tensors.items() if "regressor" not in name}, config, (0.0, 0.0, 0.0)
    )
    x = windows(1, 9, 9)
    with torch.inference_mode():
        found = registry.UPSCALERS["edsr"](plain, "plain")(x, whole(x, scale)).pixels
        assert torch.equal(found, ape.build(made, "ape")(x, whole(x, scale)).pixels)


def test_published_weights_that_do_not_fit_are_named_with_their_shapes() -> None:
    tensors, config, _ = upstream_checkpoint(2)
    cases: list[tuple[dict[str, Tensor], dict[str, Any], str]] = [
        (
            {**tensors, "body.0.body.0.weight": torch.zeros(4, 8, 3, 3)},
            config,
            r"'body.0.body.0.weight' of shape \(4, 8, 3, 3\)",
        ),
        (
            {**tensors, "body.7.body.0.weight": torch.zeros(8, 8, 3, 3)},
            config,
            r"'body.7.body.0.weight' of shape \(8, 8, 3, 3\)",
        ),
        (
            {name: t for name, t in tensors.items() if name != "body.2.bias"},
            config,
            r"lacks what becomes 'join.bias' of shape \(8,\)",
        ),
        (
            {**tensors, "regressor.2.bias": torch.zeros(2)},
            config,
            r"'regressor.bias' of shape \(2,\)",
        ),
        (
            {**tensors, "sub_mean.weight": torch.ones(3, 3, 1, 1)},
            config,
            r"'sub_mean.weight' of shape \(3, 3, 1, 1\) does more",
        ),
        (tensors, {**config, "scale": [2, 4]}, r"scales \[2, 4\]"),
        (tensors, {**config, "model": "swinir_ape"}, "'swinir_ape'"),
        (
            tensors,
            {name: value for name, value in config.items() if name != "n_feats"},
            "lacks 'n_feats'",
        ),
    ]
    for changed, given, message in cases:
        with pytest.raises(ValueError, match=message):
            upstream_ape.from_upstream(changed, given, (0.0, 0.0, 0.0))


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
    (whole_end, *expected), (quick_end, *given) = found
    torch.testing.assert_close(given, expected)
    assert not torch.allclose(quick_end, whole_end), "the edges differ"
    tail.eval()
    torch.testing.assert_close(tail(x), whole_end)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_vdsr_enlarges_first_as_torch_interpolates(scale: int) -> None:
    x = torch.rand(2, 3, 11, 14)
    expected = F.interpolate(x, scale_factor=scale, mode="bicubic", align_corners=False)
    torch.testing.assert_close(Vdsr(scale, 2, 4).enlarge(x), expected, atol=2e-6, rtol=0)


# cells


def in_cells(scale: int = 2, every: int = 2) -> ApeUpscaler:
    """As make("edsr"), with cells of 5 pixels."""
    upscaler = make("edsr", scale)
    arguments = {**BACKBONES["edsr"], "cell": 5, "every": every}
    method = Ape(scale, **arguments)
    method.load_state_dict(upscaler.method.state_dict())
    return ApeUpscaler(method, ModelSpec("ape", scale, arguments, MEAN))


def told_of_cells(upscaler: ApeUpscaler, x: Tensor) -> float:
    """What parts the cells of x at the first exit, far from what the regressor says of any."""
    with torch.inference_mode():
        told = upscaler.method(x - upscaler.plain.mean).capacity[0].flatten().sort().values
    gap = (
        int(told[len(told) // 4 : 3 * len(told) // 4 + 2].diff().argmax()) + len(told) // 4
        if len(told) > 1
        else 0
    )
    return float((told[gap] + told[min(gap + 1, len(told) - 1)]) / 2) - 1e-3 * (len(told) == 1)


def by_hand(upscaler: ApeUpscaler, x: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """One window, cell by cell, each block computed everywhere and kept where its cell stays: the
    image, and the exit of each pixel.
    """
    method = upscaler.method
    kept, body = method.network.enter(x - upscaler.plain.mean)
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
    return method.network.finish(kept, body) + upscaler.plain.mean, left


@pytest.mark.parametrize("size", [(5, 5), (16, 21), (40, 33)])
@pytest.mark.parametrize("every", [1, 2, 4])
def test_cells_leave_one_by_one_and_keep_their_features(size: tuple[int, int], every: int) -> None:
    upscaler, x = in_cells(every=every), windows(1, *size)
    threshold = told_of_cells(upscaler, x)
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
    given = {"threshold": middling(plain, x)}
    with torch.inference_mode():
        expected, made = plain(x, whole(x), settings=given), celled(x, whole(x), settings=given)
    assert expected.choice is not None and made.choice is not None
    assert torch.equal(made.choice, expected.choice) and torch.equal(made.macs, expected.macs)
    torch.testing.assert_close(made.pixels, expected.pixels, atol=1e-5, rtol=1e-5)


def test_cells_lie_in_the_grid_of_the_whole_image() -> None:
    """A window that begins at row 3 and column 12 sees cells cut at rows 5, 10, … of the image;
    inside, it makes what the image makes.
    """
    upscaler, x = in_cells(), windows(1, 60, 70)
    threshold = told_of_cells(upscaler, x)
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
            for t in (-1.0, told_of_cells(upscaler, x), 2.0)
        ]
        for threshold, found in zip((-1.0, 2.0), (macs[0], macs[2]), strict=True):
            assert found == executed(
                lambda t=threshold: upscaler(x, whole(x), settings={"threshold": t})
            )  # type: ignore[misc]
    assert macs[0] < macs[1] < macs[2]


def test_only_edsr_has_cells() -> None:
    with pytest.raises(ValueError, match="cells of 8 pixels cannot leave rcan"):
        Ape(2, "rcan", 1, 8, groups=2, blocks=2, features=8)
