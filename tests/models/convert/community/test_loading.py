"""What a file of weights holds, and what is said where it cannot be a tier."""

import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.models.convert.community.networks import compact, needs_spandrel, saved, whole
from tierscale.models import registry
from tierscale.models.convert import community
from tierscale.models.convert.community import loading

pytestmark = [pytest.mark.usefixtures("one_thread"), needs_spandrel]


def test_a_pickled_network_is_read_without_running_it(tmp_path: Path) -> None:
    network, x = compact(), torch.rand(1, 3, 8, 8)
    torch.save({"params_ema": network.state_dict()}, tmp_path / "n.pth")
    with torch.inference_mode():
        made = registry.load(f"file:{tmp_path / 'n.pth'}")(x, whole(x, 2)).pixels
        torch.testing.assert_close(made, network(x).clamp(0, 1))
    torch.save(
        {"params": network.state_dict(), "more": community.CommunityUpscaler}, tmp_path / "n.pth"
    )
    with pytest.raises(ValueError, match=r"cannot be read as plain tensors.*CommunityUpscaler"):
        registry.load(f"file:{tmp_path / 'n.pth'}")


def test_what_spandrel_does_not_know_or_cannot_enlarge_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "n.safetensors"
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(
        ValueError,
        match="is no network of tierscale, and none that spandrel knows",
    ):
        registry.load(f"file:{path}")
    upscaler = registry.load(f"file:{saved(compact(), path)}")
    x = torch.rand(1, 3, 8, 8)
    with pytest.raises(ValueError, match="enlarges by 2, not by 4"):
        upscaler(x, whole(x, 4))
    with pytest.raises(ValueError, match="three equal channels"):
        upscaler(x[:, :1], whole(x, 2))


def test_without_spandrel_the_way_out_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(compact(), tmp_path / "n.safetensors")
    monkeypatch.setattr(loading.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"install spandrel: pip install .tierscale\[community\]"):
        registry.load(f"file:{path}")


def test_a_broken_torchvision_is_no_hindrance(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As one that was built for another torch, which breaks on import."""
    for name in [
        name for name in sys.modules if name.partition(".")[0] in ("spandrel", "torchvision")
    ]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "torchvision.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert community.import_spandrel().ModelLoader
    assert "torchvision" not in sys.modules


@pytest.mark.parametrize("prefix", ["generator.", "net_g.", "_orig_mod.", "params_ema.module."])
def test_prefixes_of_trainers_are_taken_off(prefix, tmp_path):
    network, x = compact(), torch.rand(1, 3, 8, 8)
    weights = {prefix + name: tensor for name, tensor in network.state_dict().items()}
    if prefix == "generator.":
        weights["discriminator.body.0.weight"] = torch.zeros(3)
    torch.save({"state_dict": weights, "epoch": 3}, tmp_path / "n.pth")
    with torch.inference_mode():
        made = registry.load(f"file:{tmp_path / 'n.pth'}")(x, whole(x, 2)).pixels
        torch.testing.assert_close(made, network(x).clamp(0, 1))


@pytest.mark.parametrize("name", ["N.PTH", "n.bin", "n.pth.tar", "n"])
def test_the_content_says_what_a_file_is(name, tmp_path):
    network = compact()
    torch.save({"params": network.state_dict(), "best_psnr": np.float64(26.5)}, tmp_path / name)
    assert registry.load(f"file:{tmp_path / name}").parameters > 0
    saved(network, tmp_path / name)
    assert registry.load(f"file:{tmp_path / name}").parameters > 0


def torch_file(path: Path) -> bytes:
    torch.save(compact().state_dict(), path)
    return path.read_bytes()


def script(path: Path) -> bytes:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("n/constants.pkl", b"")
    return path.read_bytes()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: torch_file(path)[:900], "cut off or damaged"),
        (lambda path: saved(compact(), path).read_bytes()[:900], "cut off or damaged"),
        (script, "TorchScript program, which is code"),
        (lambda path: b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS"),
        (lambda path: b"\x08\x07\x12\x07pytorch", "an ONNX network"),
        (lambda path: b"7767517\n100 120\n", "an ncnn network"),
        (lambda path: b"GGUF\x03", "a GGUF file"),
        (lambda path: b"<!DOCTYPE html><html>", "a web page"),
        (lambda path: b"", "is empty"),
        (lambda path: b"no weights at all", "no file of weights"),
    ],
)
def test_what_is_no_network_is_named(make, said, tmp_path):
    path = tmp_path / "n.pth"
    path.write_bytes(make(path))
    with pytest.raises(ValueError, match=said) as raised:
        registry.load(f"file:{path}")
    assert str(path) in str(raised.value) and "weights_only" not in str(raised.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(value, tmp_path):
    network = compact()
    with torch.no_grad():
        network.body[0].weight[0, 0, 0, 0] = value
    with pytest.raises(ValueError, match=r"'body\.0\.weight' with values that are no finite"):
        registry.load(f"file:{saved(network, tmp_path / 'n.safetensors')}")


@pytest.mark.parametrize(
    "weights", [{"a": torch.zeros(2)}, {"body.0.weight": torch.zeros(2)}, {"conv_first.weight": 3}]
)
def test_weights_that_spandrel_stumbles_over_are_a_sentence(weights, tmp_path):
    torch.save(weights, tmp_path / "n.pth")
    with pytest.raises(ValueError, match=r"n\.pth is no network of tierscale, and none that"):
        registry.load(f"file:{tmp_path / 'n.pth'}")


def test_the_same_network_is_built_once(tmp_path):
    name = f"file:{saved(compact(), tmp_path / 'n.safetensors')}"
    assert registry.load(name) is registry.load(name)
