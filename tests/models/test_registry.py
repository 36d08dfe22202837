"""Weights in files, and upscalers by name."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.models.plain_networks import MEAN, make, whole
from tierscale.models import catalogue, registry
from tierscale.models.backbones.fsrcnn import Fsrcnn
from tierscale.models.contract.checkpoints import (
    Checkpoint,
    ModelSpec,
    WeightsFile,
    read_checkpoint,
    write_checkpoint,
)
from tierscale.models.contract.efforts import table_path

pytestmark = pytest.mark.usefixtures("one_thread")


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
    with pytest.raises(ValueError, match="cannot be read; it is cut off or damaged"):
        registry.load(f"file:{path}")
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(
        ValueError, match="is no network of tierscale, and none that spandrel knows"
    ):
        registry.load(f"file:{path}")
    save_file(
        {"a": torch.zeros(1)},
        path,
        {"format": "tierscale-1", "blueprint": json.dumps({"network": "carn"})},
    )
    with pytest.raises(ValueError, match="no usable model specification"):
        registry.load(f"file:{path}")


def test_unknown_names_are_answered_with_known_ones() -> None:
    with pytest.raises(ValueError, match=r"known are bicubic, .*did you mean fsrcnn-x4"):
        registry.load("fsrcn-x4")


def test_the_zoo_loads_and_enlarges() -> None:
    rows = {row["name"]: row for row in catalogue.listing()}
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


def test_digest_and_network_are_of_one_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is replaced between its digest and its tensors lends no digest to others."""
    path = tmp_path / "mine.safetensors"
    contents = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        spec = ModelSpec("fsrcnn", 4, {"features": 8}, MEAN, "bilinear")
        write_checkpoint(path, Checkpoint(spec, Fsrcnn(4, features=8).state_dict()))
        contents.append(path.read_bytes())
    path.write_bytes(contents[0])
    real = WeightsFile.read

    def replaced(where: Path) -> WeightsFile:
        file = real(where)
        path.write_bytes(contents[1])
        return file

    monkeypatch.setattr(WeightsFile, "read", staticmethod(replaced))
    first = registry.load_weights(f"file:{path}")
    monkeypatch.undo()
    assert first.weights == hashlib.sha256(contents[0]).hexdigest()
    path.write_bytes(contents[0])
    x = torch.rand(1, 3, 8, 8)
    other = tmp_path / "copy.safetensors"
    other.write_bytes(contents[0])
    with torch.inference_mode():
        wanted = registry.load(f"file:{other}")(x, whole(x, 4)).pixels
        for network in (first.upscaler, registry.load(f"file:{path}")):
            assert torch.equal(network(x, whole(x, 4)).pixels, wanted)
    with pytest.raises(ValueError, match="put the earlier one back"):
        registry.load_weights(f"file:{path}", weights="0" * 64)


def test_a_new_table_of_efforts_leaves_those_alone_who_have_the_first(tmp_path: Path) -> None:
    path = tmp_path / "ape-edsr-x4.safetensors"
    path.write_bytes(registry.locate("ape-edsr-x4").read_bytes())
    bare = registry.load(f"file:{path}")
    table_path(path).write_bytes(table_path(registry.locate("ape-edsr-x4")).read_bytes())
    measured = registry.load(f"file:{path}")
    assert bare.efforts is None and measured.efforts is not None
