"""The check against upstream networks: all recorded files agree, and what does not is told."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from tests.check_reference import main

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def reference(shared: Path) -> Path:
    folder = shared / "reference"
    if not folder.is_dir():
        pytest.skip(f"no reference data at {folder}; set TIERSCALE_SHARED")
    return folder


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118 - safe_open is no mapping


def test_all_recorded_networks_are_ours(
    reference: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main([str(reference)])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    lines = [line.split() for line in printed.out.splitlines()]
    assert len({line[0] for line in lines}) == len(list(reference.glob("*.safetensors")))
    assert all(len(line) == 5 and line[4] == "PASS" and float(line[2]) <= 1 for line in lines)


def test_a_damaged_output_and_one_that_nothing_checks_fail(
    reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors, about = read(reference / "fsrcnn_d56_x4.safetensors")
    tensors["out.a.sr"][0, 0, 3, 4] += 1e-3
    tensors["out.a.colour"] = torch.zeros(1)
    save_file(tensors, tmp_path / "one.safetensors", about)
    assert main([str(tmp_path)]) == 1
    printed = capsys.readouterr()
    verdicts = {line.split()[1]: line.split()[-1] for line in printed.out.splitlines()}
    assert verdicts == {"out.a.sr": "FAIL", "out.b.sr": "PASS", "out.a.colour": "FAIL"}
    assert "nothing checks the output out.a.colour" in printed.err
    tensors["out.a.sr"][0, 0, 3, 4] -= 1e-3
    save_file(tensors, tmp_path / "one.safetensors", about)
    assert main([str(tmp_path)]) == 1, "one unchecked output is enough"
    del tensors["out.a.colour"]
    save_file(tensors, tmp_path / "one.safetensors", about)
    assert main([str(tmp_path)]) == 0


def test_files_of_unknown_methods_and_broken_ones_fail_and_the_others_are_still_checked(
    reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors, about = read(reference / "carn_nf24_x2.safetensors")
    save_file(tensors, tmp_path / "a.safetensors", {**about, "method": "waifu", "config": "{}"})
    save_file(tensors, tmp_path / "b.safetensors")
    (tmp_path / "c.safetensors").write_bytes(b"no")
    save_file(
        {key: t for key, t in tensors.items() if key != "sd.exit.bias"},
        tmp_path / "d.safetensors",
        about,
    )
    save_file(tensors, tmp_path / "e.safetensors", about)
    assert main([str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert "method 'waifu'; known are" in printed.err
    assert "b.safetensors: it lacks 'method'" in printed.err
    assert "c.safetensors: SafetensorError" in printed.err
    assert (
        "d.safetensors: ValueError: the upstream CARN lacks what becomes 'exit.bias'" in printed.err
    )
    assert (
        printed.out.split()[:2] == ["e.safetensors", "out.a.sr"]
        and printed.out.split()[-1] == "PASS"
    )


def test_an_empty_folder_is_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 1
    assert "holds no .safetensors file" in capsys.readouterr().err
    assert main([]) == 1


@pytest.mark.parametrize("scale", [2, 3])
def test_fsrcnn_of_other_scales_is_one_or_two_pixels_larger_as_published(
    scale: int, reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors, about = read(reference / "fsrcnn_d56_x4.safetensors")
    layer = torch.nn.ConvTranspose2d(56, 3, 9, stride=scale, padding=3, output_padding=1)
    layer.weight, layer.bias = (
        torch.nn.Parameter(tensors[f"sd.tail_conv.{part}"]) for part in ("weight", "bias")
    )
    for case in "ab":
        tensors[f"out.{case}.sr"] = layer(features(tensors, tensors[f"in.{case}.lr"])).detach()
    save_file(
        tensors,
        tmp_path / "x.safetensors",
        {**about, "config": f'{{"name": "fsrcnn", "upscale": {scale}, "d": 56}}'},
    )
    assert main([str(tmp_path)]) == 0, capsys.readouterr().out


def features(tensors: dict[str, Tensor], x: Tensor) -> Tensor:
    """What the upstream FSRCNN feeds its transposed convolution with."""

    def convolve(name: str, x: Tensor, padding: int) -> Tensor:
        return torch.nn.functional.conv2d(
            x, tensors[f"sd.{name}.weight"], tensors[f"sd.{name}.bias"], padding=padding
        )

    def soften(name: str, x: Tensor) -> Tensor:
        return torch.nn.functional.prelu(x, tensors[f"sd.{name}.weight"])

    x = soften("head_conv.1", convolve("head_conv.0", x, 2))
    x = soften("body_conv.0.1", convolve("body_conv.0.0", x, 0))
    for index in (1, 2, 3, 4):
        x = convolve(f"body_conv.{index}", x, 1)
    return soften("body_conv.6.1", convolve("body_conv.6.0", soften("body_conv.5", x), 0))
