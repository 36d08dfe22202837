"""The contract, on every plain network and bicubic; weights in files; names."""

import json
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tierscale.models import registry
from tierscale.models.backbones.carn import Carn
from tierscale.models.backbones.edsr import Edsr
from tierscale.models.backbones.fsrcnn import Fsrcnn
from tierscale.models.backbones.rdn import Rdn
from tierscale.models.backbones.srresnet import Srresnet
from tierscale.models.backbones.vdsr import Vdsr
from tierscale.models.contract.checkpoints import (
    Checkpoint,
    ModelSpec,
    read_checkpoint,
    write_checkpoint,
)
from tierscale.models.contract.efforts import table_path
from tierscale.models.contract.metrics import psnr, ssim
from tierscale.models.contract.upscaler import Placement, Upscaler
from tierscale.models.runtime import resample
from tierscale.models.runtime.bicubic import Bicubic
from tierscale.models.runtime.counting import executed
from tierscale.models.runtime.plain import PlainUpscaler
from tierscale.models.runtime.stream import RowNetwork, bands
from tierscale.models.train.trainer import predict

MEAN = (0.45, 0.44, 0.4)
NETWORKS: dict[str, tuple[type[RowNetwork], dict[str, int]]] = {
    "fsrcnn": (Fsrcnn, {"features": 8, "narrow": 4, "mapping": 2}),
    "carn": (Carn, {"features": 8, "groups": 2}),
    "edsr": (Edsr, {"blocks": 2, "features": 8, "res_scale": 0.5}),
    "vdsr": (Vdsr, {"layers": 5, "features": 8}),
    "srresnet": (Srresnet, {"blocks": 2, "features": 8}),
    "rdn": (Rdn, {"blocks": 2, "features": 8, "growth": 4, "layers": 3}),
}


pytestmark = pytest.mark.usefixtures("one_thread")


def make(kind: str, scale: int, residual: str | None = "bilinear") -> PlainUpscaler:
    """A small network whose random weights are large enough that every pixel it reads can be seen
    in the result.
    """
    torch.manual_seed(1)
    cls, arguments = NETWORKS[kind]
    network = cls(scale=scale, **arguments)  # type: ignore[arg-type]
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    if isinstance(network, Fsrcnn):
        nn.init.normal_(network.enlarge.weight, std=0.1)
    if isinstance(
        network, Rdn
    ):  # its dense blocks add up to results of 30, whose rounding is more than the tests allow
        nn.init.normal_(network.tail.exit.weight, std=0.01)
    return PlainUpscaler(network, ModelSpec(kind, scale, dict(arguments), MEAN, residual))


def whole(x: torch.Tensor, scale: int) -> Placement:
    return Placement(Fraction(scale), (x.shape[-2], x.shape[-1]), ((0, 0),) * len(x))


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
def test_spent_is_what_is_executed(kind: str, scale: int) -> None:
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


def test_weights_come_back_with_what_to_build(tmp_path: Path) -> None:
    upscaler, x, path = make("carn", 2), torch.rand(1, 3, 10, 10), tmp_path / "a.safetensors"
    write_checkpoint(path, Checkpoint(upscaler.spec, upscaler.network.state_dict()))
    again = registry.load(f"file:{path}")
    assert read_checkpoint(path).spec == upscaler.spec
    assert torch.equal(again(x, whole(x, 2)).pixels, upscaler(x, whole(x, 2)).pixels)
    assert len(registry.digest(f"file:{path}")) == 64


def test_damaged_weights_are_refused_by_name_and_shape(tmp_path: Path) -> None:
    upscaler, path = make("fsrcnn", 2), tmp_path / "a.safetensors"
    tensors = dict(upscaler.network.state_dict())
    cases = [
        ({**tensors, "enlarge.bias": torch.zeros(4)}, r"'enlarge.bias' of shape \(4,\).*\(3,\)"),
        (
            {name: t for name, t in tensors.items() if name != "enlarge.bias"},
            "lacks 'enlarge.bias'",
        ),
        ({**tensors, "extra": torch.zeros(2)}, r"'extra' of shape \(2,\)"),
    ]
    for changed, message in cases:
        write_checkpoint(path, Checkpoint(upscaler.spec, changed))
        with pytest.raises(ValueError, match=message):
            registry.load(f"file:{path}")
    write_checkpoint(path, Checkpoint(ModelSpec("fsrcnn", 2, {"colour": 1}), tensors))
    with pytest.raises(ValueError, match="cannot be built"):
        registry.load(f"file:{path}")
    write_checkpoint(path, Checkpoint(ModelSpec("waifu", 2), tensors))
    with pytest.raises(ValueError, match="asks for a network 'waifu'"):
        registry.load(f"file:{path}")


def test_files_that_are_no_checkpoints_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(ValueError, match="there is no file"):
        registry.load(f"file:{path}")
    path.write_bytes(b"no")
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        registry.load(f"file:{path}")
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="has format None"):
        registry.load(f"file:{path}")
    save_file(
        {"a": torch.zeros(1)},
        path,
        {"format": "tierscale-1", "blueprint": json.dumps({"network": "carn"})},
    )
    with pytest.raises(ValueError, match="no usable blueprint"):
        registry.load(f"file:{path}")


def test_unknown_names_are_answered_with_known_ones() -> None:
    with pytest.raises(ValueError, match=r"known are bicubic, .*did you mean fsrcnn-x4"):
        registry.load("fsrcn-x4")


def test_the_zoo_loads_and_enlarges() -> None:
    rows = {row["name"]: row for row in registry.listing()}
    assert {"bicubic", "fsrcnn-x4", "carn-x4"} <= rows.keys()
    for name, row in rows.items():
        upscaler, scale = registry.load(name), int(row["scales"][0]) if row["scales"] else 4
        x = torch.full((1, 3, 24, 24), 0.5)
        with torch.inference_mode():
            made = upscaler(x, whole(x, scale))
        assert made.pixels.shape == (1, 3, 24 * scale, 24 * scale)
        assert (made.pixels - 0.5).abs().max() < 0.05, "a flat grey stays about as it is"
        # ClassSR's is that of large windows, where its tiles overlap.
        assert made.macs.item() / 24**2 == pytest.approx(
            row["cost_per_pixel"], rel=1e-3
        ) or name.startswith("classsr")
        assert len(registry.digest(name)) == 64
    assert (
        rows["bicubic"]["cost_per_pixel"]
        < rows["fsrcnn-x4"]["cost_per_pixel"]
        < rows["carn-x4"]["cost_per_pixel"]
    )


def test_bicubic_keeps_the_contract() -> None:
    upscaler: Upscaler = Bicubic()
    x = torch.rand(2, 3, 9, 14)
    for scale in (Fraction(4), Fraction(27, 10)):
        place = Placement(scale, (9, 14), ((0, 0), (0, 0)))
        made = upscaler(x, place)
        assert made.pixels.shape == (2, 3, *place.hr_shape(9, 14))
        assert made.macs[0].item() == resample.multiply_adds(
            3, 14, *made.pixels.shape[2:], "bicubic"
        )


def test_psnr_and_ssim_of_plain_examples() -> None:
    a = torch.full((3, 20, 20), 0.4)
    assert psnr(a, a, 2) == float("inf")
    assert ssim(a, a, 2) == pytest.approx(1)
    assert psnr(a, a + 10 / 255, 2) == pytest.approx(28.1308, abs=1e-3)
    with pytest.raises(ValueError, match="nothing left"):
        psnr(a, a, 10)


def test_ssim_agrees_with_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    torch.manual_seed(0)
    a = torch.rand(3, 40, 50)
    b = (a + torch.randn(3, 40, 50) * 0.1).clamp(0, 1)
    mine = ssim(a, b, 0)
    counts = [(x * 255).round().numpy().astype("float64")[:, :, :] for x in (a, b)]
    options = {
        "data_range": 255,
        "channel_axis": 0,
        "gaussian_weights": True,
        "sigma": 1.5,
        "use_sample_covariance": False,
    }
    _, full = metrics.structural_similarity(*counts, full=True, **options)
    assert mine == pytest.approx(full[:, 5:-5, 5:-5].mean(), abs=1e-3)


def test_the_same_weights_are_built_once_and_never_mistaken_for_others(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    for seed in (1, 2):
        torch.manual_seed(seed)
        write_checkpoint(
            path,
            Checkpoint(
                ModelSpec("fsrcnn", 4, {"features": 8}, MEAN, "bilinear"),
                Fsrcnn(4, features=8).state_dict(),
            ),
        )
        loaded = registry.load(f"file:{path}")
        assert registry.load(f"file:{path}") is loaded
        if seed == 1:
            first = loaded
    assert loaded is not first, "other weights in the same file"
    x = torch.rand(1, 3, 8, 8)
    with torch.inference_mode():
        assert not torch.equal(loaded(x, whole(x, 4)).pixels, first(x, whole(x, 4)).pixels)


def test_a_table_of_efforts_is_read_anew_by_each_load(tmp_path: Path) -> None:
    path = tmp_path / "ape-edsr-x4.safetensors"
    path.write_bytes(registry.locate("ape-edsr-x4").read_bytes())
    assert registry.load(f"file:{path}").efforts is None
    table_path(path).write_bytes(table_path(registry.locate("ape-edsr-x4")).read_bytes())
    assert registry.load(f"file:{path}").efforts == registry.load("ape-edsr-x4").efforts
    table_path(path).unlink()
    assert registry.load(f"file:{path}").efforts is None
