"""AnySR under the contract, on small networks with random weights.

Narrow runs, any scale, windows on their own.
"""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tierscale.models import registry
from tierscale.models.adaptive.anysr.gate import with_scale
from tierscale.models.adaptive.anysr.network import AnySr, width_by_scale
from tierscale.models.adaptive.anysr.slim_edsr import tap_sums
from tierscale.models.adaptive.anysr.upscaler import AnySrUpscaler, build
from tierscale.models.contract.checkpoints import Checkpoint, ModelSpec, write_checkpoint
from tierscale.models.contract.upscaler import Placement
from tierscale.models.runtime.counting import executed
from tierscale.models.runtime.nearest import axes
from tierscale.models.runtime.resample import multiply_adds, resample
from tierscale.models.train.calibrate import Sampling, calibrate

pytestmark = pytest.mark.usefixtures("one_thread")


MEAN = (0.7, 0.6, 0.5)


ENCODERS: dict[str, dict[str, int]] = {
    "edsr": {"blocks": 3, "features": 24},
    "rdn": {"blocks": 2, "features": 8, "growth": 16},
}


HEADS: dict[str, dict[str, Any]] = {"srno": {"width": 16, "heads": 4}, "liif": {"hidden": [16, 12]}}


def make(encoder: str = "edsr", head: str = "srno") -> tuple[AnySr, AnySrUpscaler]:
    """A small network whose random weights are large enough that every channel can be seen in the
    result.
    """
    torch.manual_seed(2)
    arguments = {
        "encoder": encoder,
        "encoder_arguments": ENCODERS[encoder],
        "head": head,
        "head_arguments": HEADS[head],
    }
    network = AnySr(**arguments).eval()  # type: ignore[arg-type]
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
            nn.init.normal_(module.bias, std=0.1)  # type: ignore[arg-type]
    checkpoint = Checkpoint(
        ModelSpec("anysr", 0, arguments, MEAN, "bilinear"), network.state_dict()
    )
    return network, build(checkpoint, "test")


def whole(x: Tensor, scale: Fraction) -> Placement:
    return Placement(scale, (x.shape[-2], x.shape[-1]), ((0, 0),) * len(x))


@pytest.mark.parametrize(("encoder", "head"), [("edsr", "srno"), ("edsr", "liif"), ("rdn", "srno")])
@pytest.mark.parametrize(
    ("size", "scale"), [((97, 60), Fraction(2)), ((1, 1), Fraction(4)), ((3, 40), Fraction(27, 10))]
)
@pytest.mark.parametrize("width", [0.5, 0.83, 1.0])
def test_the_trained_form_and_the_run_form_are_one_function(
    encoder: str, head: str, size: tuple[int, int], scale: Fraction, width: float
) -> None:
    network, upscaler = make(encoder, head)
    x = torch.rand(1, 3, *size)
    with torch.inference_mode():
        made = upscaler(x, whole(x, scale), settings={"width": width})
        rows, columns = axes(whole(x, scale), 0, *size)
        wanted = resample(x, whole(x, scale), "bilinear") + network(
            x - torch.tensor(MEAN).view(3, 1, 1), rows, columns, scale, width
        )
        counted = executed(lambda: upscaler(x, whole(x, scale), settings={"width": width}))
    torch.testing.assert_close(made.pixels, wanted, atol=1e-5 * float(wanted.abs().max()), rtol=0)
    residual = multiply_adds(3, size[1], *made.pixels.shape[2:], "bilinear")
    assert made.macs.tolist() == [counted + residual]
    assert made.choice is not None and made.choice.tolist() == pytest.approx([width])


@pytest.mark.parametrize("encoder", ENCODERS)
def test_channels_that_are_left_out_are_not_read(encoder: str) -> None:
    network, _ = make(encoder)
    x, scale = torch.rand(1, 3, 8, 8), Fraction(2)
    before = network.encoder(x, scale, 0.5)
    with torch.no_grad():
        for name, weight in network.encoder.named_parameters():
            if "blocks" in name and "first.weight" in name:
                weight[12:] = float("nan")
            if "layers.4.weight" in name or "layers.6.weight" in name:
                weight[8:] = float("nan")
    assert torch.equal(network.encoder(x, scale, 0.5), before)
    assert not torch.equal(network.encoder(x, scale, 0.6), before)


def test_a_window_gives_the_same_bits_alone_and_in_a_batch() -> None:
    _, upscaler = make()
    x, place = (
        torch.rand(3, 3, 20, 30),
        Placement(Fraction(5, 2), (100, 100), ((0, 0), (21, 40), (50, 69))),
    )
    with torch.inference_mode():
        together = upscaler(x, place, settings={"width": 0.7}).pixels
        for index, origin in enumerate(place.origins):
            alone = upscaler(
                x[index : index + 1],
                Placement(place.scale, place.size, (origin,)),
                settings={"width": 0.7},
            ).pixels
            assert torch.equal(alone[0], together[index])


def test_more_effort_never_costs_less_and_the_encoder_costs_what_was_asked() -> None:
    _, upscaler = make()
    x, scale = torch.rand(1, 3, 16, 16), Fraction(4)
    assert upscaler.efforts is not None and upscaler.efforts.floor > 0.4
    full, macs = upscaler.encoder.cost(256, 1.0), []
    for effort in (0.0, 0.3, 0.6, 0.8, 0.9, 1.0):
        made = upscaler(x, whole(x, scale), effort)
        macs.append(made.macs.item())
        assert made.choice is not None
        share = upscaler.encoder.cost(256, upscaler.width(effort)) / full
        assert (
            max(effort, upscaler.efforts.floor) - 0.10
            <= share
            <= max(effort, upscaler.efforts.floor) + 0.05
        )
    assert macs == sorted(macs)
    assert macs[-1] == upscaler(x, whole(x, scale), settings={"width": 1.0}).macs.item()
    assert upscaler.cost(scale, 0.5) < upscaler.cost(scale)


def test_effort_one_is_the_full_network_at_every_scale() -> None:
    _, upscaler = make()
    x = torch.rand(1, 3, 9, 9)
    assert torch.equal(
        upscaler(x, whole(x, Fraction(3, 2))).pixels,
        upscaler(x, whole(x, Fraction(3, 2)), settings={"width": 1.0}).pixels,
    )


def test_the_papers_widths() -> None:
    scales = [Fraction(tenths, 10) for tenths in range(10, 45)]
    assert [width_by_scale("edsr", scale) for scale in scales] == [1.0] + [0.5] * 7 + [0.7] * 8 + [
        0.9
    ] * 7 + [1.0] * 12
    assert width_by_scale("rdn", Fraction(2)) == 0.8
    assert width_by_scale("edsr", Fraction(3, 2) + Fraction(1, 100)) == 1.0


def test_the_scale_is_appended_behind_each_full_run_and_turned_at_odd_tenths() -> None:
    features = torch.arange(37.0)[None]
    scaled = with_scale(features, Fraction(2))[0].tolist()
    assert scaled == [*range(16), 2.0, 2.0, *range(16, 32), 2.0, 2.0, *range(32, 37)]
    assert with_scale(features, Fraction(27, 10))[0, 16].item() == pytest.approx(-2.7)
    assert with_scale(features, Fraction(9, 4))[0, 16].item() == pytest.approx(2.25)
    # The upstream code decides in float32, which is the same for all scales it was trained for.
    for tenths in range(11, 41):
        odd = bool((torch.tensor(tenths / 10) * 10 % 2 == 1).item())
        assert (with_scale(features, Fraction(tenths, 10))[0, 16] < 0) == odd


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 4)])
def test_what_taps_see_tells_the_mean_of_a_convolution(size: tuple[int, int]) -> None:
    layer, x = nn.Conv2d(4, 6, 3, padding=1), torch.randn(2, 4, *size)
    assert layer.bias is not None
    mean = (
        torch.einsum("ncij,kcij->nk", tap_sums(x, x.sum(dim=(2, 3))), layer.weight)
        / (size[0] * size[1])
        + layer.bias
    )
    torch.testing.assert_close(mean, layer(x).mean(dim=(2, 3)), atol=1e-5, rtol=1e-5)


def test_a_file_comes_back_with_a_counted_table_and_no_measuring(tmp_path: Path) -> None:
    network, upscaler = make()
    arguments = {
        "encoder": "edsr",
        "encoder_arguments": ENCODERS["edsr"],
        "head": "srno",
        "head_arguments": HEADS["srno"],
    }
    path = tmp_path / "any.safetensors"
    write_checkpoint(
        path, Checkpoint(ModelSpec("anysr", 0, arguments, MEAN, "bilinear"), network.state_dict())
    )
    again, x = registry.load(f"file:{path}"), torch.rand(1, 3, 9, 12)
    assert again.scales is None and again.reach is None and again.control == "width"
    assert again.efforts == upscaler.efforts
    place = whole(x, Fraction(5, 2))
    assert torch.equal(again(x, place, 0.7).pixels, upscaler(x, place, 0.7).pixels)
    written = calibrate(f"file:{path}", Sampling(tmp_path))
    assert written == replace(upscaler.counted, weights=registry.digest(f"file:{path}"))
    assert registry.load(f"file:{path}").efforts == written


def test_bad_requests_are_refused() -> None:
    _, upscaler = make()
    x = torch.rand(1, 3, 8, 8)
    with pytest.raises(ValueError, match=r"\(1, 1, 8, 8\).*three equal channels"):
        upscaler(x[:, :1], whole(x, Fraction(2)))
    with pytest.raises(ValueError, match=r"effort of 1.5 is not a share"):
        upscaler(x, whole(x, Fraction(2)), 1.5)
    with pytest.raises(ValueError, match="width of 0 is not a share"):
        upscaler(x, whole(x, Fraction(2)), settings={"width": 0.0})
    with pytest.raises(ValueError, match="no encoder 'vdsr'; known are edsr, rdn"):
        AnySr("vdsr")
    with pytest.raises(ValueError, match="no head 'mlp'"):
        AnySr(head="mlp")
    with pytest.raises(ValueError, match="cannot be built"):
        build(Checkpoint(ModelSpec("anysr", 0, {"encoder_arguments": {"colour": 1}}), {}), "test")


@pytest.mark.parametrize("encoder", ["edsr", "rdn"])
def test_the_effort_of_a_scale_stands_for_the_papers_width_exactly(encoder: str) -> None:
    _, upscaler = make(encoder)
    for scale in (*(Fraction(tenths, 10) for tenths in range(10, 45)), Fraction(8, 3)):
        effort = upscaler.effort_by_scale(scale)
        assert upscaler.width(effort) == width_by_scale(encoder, scale)
        assert upscaler.cost(scale, effort) <= upscaler.cost(scale)
