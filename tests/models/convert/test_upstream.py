"""Upstream checkpoints become tiers.

What is found in their files, what the result computes, and what is refused.
"""

import json
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.reference_file import Reference, read_reference
from tierscale.jobs.cli.main import main
from tierscale.models import registry
from tierscale.models.contract.checkpoints import write_checkpoint
from tierscale.models.contract.efforts import table_path
from tierscale.models.contract.upscaler import Placement
from tierscale.models.convert.files import find_weights
from tierscale.models.convert.upstream import UPSTREAM, convert

pytestmark = pytest.mark.usefixtures("one_thread")

# Method -> a recorded file, an input of it, the output, and what makes a tier run as it was
# recorded.
RUNS: dict[str, tuple[str, str, str, dict[str, float]]] = {
    "carn": ("carn_nf64_x4", "a.lr", "a.sr", {}),
    "fsrcnn": ("fsrcnn_d56_x4", "a.lr", "a.sr", {}),
    "srresnet": ("srresnet_nf16_nb5_x4", "a.lr", "a.sr", {}),
    "pcsr": ("pcsr_carn_x4", "b.lr", "b.k0.sr", {"k": 0.0}),
    "anysr": ("anysr_edsr_b2f64_srno_w64", "b.lr", "b.s2.e0.sr", {"width": 0.7}),
    "classsr": ("classsr_fsrcnn_x4", "patches", "sr", {"bias": 0.0}),
}


@pytest.fixture
def reference(shared: Path) -> Callable[[str], Reference]:
    folder = shared / "reference"
    if not folder.is_dir():
        pytest.skip(f"no reference data at {folder}; set TIERSCALE_SHARED")
    return lambda name: read_reference(folder / f"{name}.safetensors")


@pytest.mark.parametrize("method", RUNS)
def test_an_upstream_checkpoint_becomes_a_tier_that_makes_the_upstream_image(
    method: str, reference: Callable[[str], Reference], tmp_path: Path
) -> None:
    name, lr, sr, settings = RUNS[method]
    recorded = reference(name)
    torch.save(
        {"state_dict": OrderedDict((f"module.{key}", t) for key, t in recorded.weights.items())},
        tmp_path / "upstream.pth",
    )
    made = convert(
        tmp_path / "upstream.pth",
        method,
        {**recorded.config, "mean": recorded.mean} if any(recorded.mean) else recorded.config,
    )
    write_checkpoint(tmp_path / "ours.safetensors", made)
    upscaler = registry.load(f"file:{tmp_path / 'ours.safetensors'}")
    x, wanted = recorded.inputs[lr], recorded.outputs[sr]
    scale = Fraction(wanted.shape[-1], x.shape[-1])
    place = Placement(scale, (x.shape[-2], x.shape[-1]), ((0, 0),) * len(x))
    with torch.inference_mode():
        found = upscaler(x, place, settings=settings).pixels
    # A pixel whose two samplers are equally probable may be given to either, and changes its
    # neighbours: so few are looked over.
    assert ((found - wanted).abs() > 3e-5).float().mean() <= 1e-3
    assert torch.isfinite(found).all()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda sd, spec: sd,
        lambda sd, spec: {"params": {}, "params_ema": sd},
        lambda sd, spec: {
            "model": {**spec, "sd": sd},
            "epoch": 3,
            "optimizer": {"name": "adam", "args": {"lr": 0.1}, "sd": {"state": {}}},
        },
        lambda sd, spec: {"net": {f"module.{key}": t for key, t in sd.items()}, "iter": 7},
    ],
    ids=["bare", "basicsr", "liif", "parallel"],
)
def test_weights_are_found_where_upstream_codes_keep_them(
    wrap: Callable[[Any, Any], Any], tmp_path: Path
) -> None:
    weights = {"a.weight": torch.ones(2, dtype=torch.float16), "a.bias": torch.zeros(2)}
    torch.save(wrap(weights, {"name": "x", "args": {"nf": 2}}), tmp_path / "x.pth")
    found, held = find_weights(
        torch.load(tmp_path / "x.pth", weights_only=True), tmp_path / "x.pth"
    )
    assert {name: (t.dtype, t.tolist()) for name, t in found.items()} == {
        "a.weight": (torch.float32, [1, 1]),
        "a.bias": (torch.float32, [0, 0]),
    }
    assert held in ({}, {"name": "x", "nf": 2})


def test_constructor_arguments_come_from_the_file_then_the_caller_then_the_shapes(
    reference: Callable[[str], Reference], tmp_path: Path
) -> None:
    recorded = reference("pcsr_fsrcnn_x4")
    torch.save(
        {"model": {"name": "pcsr", "args": recorded.config, "sd": recorded.weights}},
        tmp_path / "p.pth",
    )
    assert convert(tmp_path / "p.pth", "pcsr").spec.arguments["encoder"] == "fsrcnn"
    recorded = reference("carn_nf24_x2")
    torch.save(recorded.weights, tmp_path / "c.pt")
    spec = convert(tmp_path / "c.pt", "carn").spec
    assert (spec.scale, spec.arguments) == (2, {"features": 24, "groups": 4})
    assert spec.mean == (0.4488, 0.4371, 0.4040)
    assert convert(tmp_path / "c.pt", "carn", {"mean": [0, 0, 0]}).spec.mean == (0, 0, 0)


def test_classsr_of_other_branches_is_known_by_its_shapes(
    reference: Callable[[str], Reference], tmp_path: Path
) -> None:
    classifier = {
        name: t
        for name, t in reference("classsr_fsrcnn_x4").weights.items()
        if name.startswith("classifier.")
    }
    for file, branch, scale in (
        ("carn_nf24_x2", "carn", 2),
        ("srresnet_nf16_nb5_x4", "srresnet", 4),
    ):
        weights = reference(file).weights
        nets = {
            f"net{index}.{name}": tensor for index in (1, 2, 3) for name, tensor in weights.items()
        }
        if branch == "carn":  # ClassSR's CARN takes a mean away by a layer of its own
            nets |= {
                f"net{index}.{name}": torch.tensor([-0.4, -0.5, -0.6])
                for index in (1, 2, 3)
                for name in ("sub_mean.bias",)
            }
        torch.save({**classifier, **nets}, tmp_path / "c.pth")
        spec = convert(tmp_path / "c.pth", "classsr").spec
        assert (spec.arguments["branch"], spec.scale) == (branch, scale)
        assert spec.mean == pytest.approx((0.4, 0.5, 0.6) if branch == "carn" else (0, 0, 0))
        assert spec.residual == (None if branch == "carn" else "bilinear")


class Anything:
    """What only running code of the file could bring back."""


def broken(weights: Mapping[str, Tensor], **changed: Tensor) -> dict[str, Tensor]:
    return {**weights, **{name.replace("__", "."): tensor for name, tensor in changed.items()}}


def test_what_cannot_be_read_or_does_not_fit_is_refused_in_a_sentence(
    reference: Callable[[str], Reference], tmp_path: Path
) -> None:
    weights, path = reference("carn_nf24_x2").weights, tmp_path / "x.pth"

    def refused(message: str, method: str = "carn", config: dict[str, Any] | None = None) -> None:
        with pytest.raises(ValueError, match=message) as caught:
            convert(path, method, config)
        assert "\n" not in str(caught.value)

    refused("there is no file")
    path.write_bytes(pickle.dumps(Anything()))
    refused("cannot be read as plain tensors.*unpickling runs code")
    torch.save({"state_dict": weights, "options": Anything()}, path)
    refused(r"holds a tests\.models\.convert\.test_upstream\.Anything, and more is not read")
    path.write_bytes(b"no checkpoint")
    refused("cannot be read")
    torch.save({"weights": weights}, path)
    refused("holds weights, and weights under none of params_ema")
    torch.save([1], path)
    refused("holds a list and no tensors")
    torch.save(weights, path)
    refused("no method 'waifu'; known are carn, ", "waifu")
    refused(
        r"'b1.b1.body.0.bias' of shape \(24,\) where the network has \(32,\)", config={"nf": 32}
    )
    refused("configuration's nf is None, which is not a whole number above 0", config={"nf": None})
    refused(
        "configuration's nf is -3, which is not a whole number above 0", config={"args": {"nf": -3}}
    )
    refused(
        "configuration's res_scale is None, which is not a number above 0",
        "edsr",
        {"res_scale": None},
    )
    refused(
        "configuration's rgb_range is 0, which is not a number above 0", "edsr", {"rgb_range": 0}
    )
    refused(r"the mean 0.5 is not that of red, green and blue", config={"mean": 0.5})
    refused(r"the mean \[0.5\] is not that of red, green and blue", config={"mean": [0.5]})
    torch.save({1: weights["exit.bias"]}, path)
    refused("holds a tensor under 1, which is not the name of a weight")
    torch.save(weights, path)
    refused("needs 'body_conv.0.0.weight'", "fsrcnn")
    torch.save(broken(weights, exit__bias=torch.zeros(5)), path)
    refused(r"'exit.bias' of shape \(5,\) where the network has \(3,\)")
    torch.save(broken(weights, colour__weight=torch.zeros(5)), path)
    refused(r"'colour.weight' of shape \(5,\), which the network it should become does not have")
    torch.save({name: t for name, t in weights.items() if name != "exit.bias"}, path)
    refused(r"lacks what becomes 'exit.bias' of shape \(3,\)")


def test_the_command_writes_a_tier(
    reference: Callable[[str], Reference], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded, out = reference("srresnet_nf16_nb5_x4"), tmp_path / "o.safetensors"
    torch.save(recorded.weights, tmp_path / "s.pth")

    def run(*arguments: str) -> tuple[Any, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["models", "convert", str(tmp_path / "s.pth"), "--method", "srresnet", *arguments])
        return (ended.value.code, *capsys.readouterr())

    code, text, _ = run("--config", json.dumps(recorded.config), "-o", str(out), "--json")
    assert code == 0
    count = sum(tensor.numel() for tensor in recorded.weights.values())
    assert json.loads(text) == {
        "status": "done",
        "output": str(out),
        "scales": ["4"],
        "parameters": count,
        "error": None,
    }
    (tmp_path / "c.json").write_text(json.dumps(recorded.config))
    table_path(out).write_text("of other weights")
    assert run("--config", str(tmp_path / "c.json"), "-o", str(out))[0] == 0
    assert not table_path(out).exists()
    code, text, error = run("--config", "[1]", "-o", str(out), "--json")
    assert (
        code == 2 and "neither JSON nor a file" in error and json.loads(text)["status"] == "failed"
    )
    code, _, error = run("-o", str(tmp_path / "o.zarr"))
    assert code == 2 and "does not end in .safetensors" in error
    code, _, error = run("--config", '{"nb": 6}', "-o", str(out))
    assert (
        code == 2 and "lacks what becomes 'blocks.5.first.weight' of shape (16, 16, 3, 3)" in error
    )


def test_every_recorded_family_has_a_reader() -> None:
    assert {
        "carn",
        "fsrcnn",
        "srresnet",
        "pcsr",
        "ape",
        "adadsr",
        "anysr",
        "classsr",
    } <= UPSTREAM.keys()
