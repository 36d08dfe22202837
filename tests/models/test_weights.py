"""The zoo: weights that were shipped stay as they were, and names stand for the newest."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.models.plain_networks import MEAN, whole
from tierscale.models import registry, weights
from tierscale.models.backbones.fsrcnn import Fsrcnn
from tierscale.models.contract.checkpoints import (
    Checkpoint,
    ModelSpec,
    digest_file,
    write_checkpoint,
)
from tierscale.models.contract.efforts import Efforts, table_path, write_efforts

pytestmark = pytest.mark.usefixtures("one_thread")

# What versions 0.1 wrote outputs with, beside what every later one has: `git log -- models/zoo`.
FIRST = {
    "edsr-x4": "f1831241c470a1ea",
    "ape-edsr-x4": "bf267bfeafa6faae",
    "adaedsr-x4": "4c2597ed52d3da5c",
    "anysr-edsr": "d46728676987553d",
}


def problems(zoo: Path) -> list[str]:
    """What is wrong with a zoo's weights."""
    found, listed = [], weights.shipped()
    # It chooses for new plans; a stored plan keeps what it chose.
    there = {path.name for path in zoo.glob("*.safetensors") if not path.name.startswith("kind-")}
    for name in sorted(there ^ listed.keys()):
        state = "was shipped and is gone" if name in listed else "is not in SHA256SUMS"
        found.append(f"{name} {state}; ship weights with python -m tierscale.models.weights")
    for name in sorted(there & listed.keys()):
        digest = digest_file(zoo / name)
        if listed[name] != digest or name.split(".")[1] != digest[: weights.DIGITS]:
            found.append(f"{name} was changed: weights that were shipped never change")
    return found


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo of its own with two networks."""
    copy = tmp_path / "zoo"
    copy.mkdir()
    for path in weights.ZOO.glob("fsrcnn-x[24].*"):
        shutil.copy(path, copy)
    shutil.copy(weights.ZOO / weights.SUMS, copy)
    monkeypatch.setattr(weights, "ZOO", copy)
    kept = {name: digest for name, digest in weights.shipped().items() if (copy / name).is_file()}
    (copy / weights.SUMS).write_text("".join(f"{kept[name]}  {name}\n" for name in sorted(kept)))
    return copy


def trained(folder: Path, name: str = "mine", seed: int = 1) -> Path:
    """A checkpoint with its card, as training leaves them."""
    torch.manual_seed(seed)
    spec = ModelSpec("fsrcnn", 4, {"features": 8}, MEAN, "bilinear")
    path = folder / f"{name}.safetensors"
    write_checkpoint(path, Checkpoint(spec, Fsrcnn(4, features=8).state_dict()))
    path.with_suffix(".json").write_text(json.dumps({"name": name, "steps": seed}))
    return path


def test_what_was_shipped_is_there_and_unchanged() -> None:
    assert problems(weights.ZOO) == []
    for name, digest in FIRST.items():
        assert weights.weights_path(name, digest).is_file()


def test_every_card_stands_for_weights_that_are_here() -> None:
    for name in weights.networks():
        digest = weights.newest(name)
        assert digest_file(weights.weights_path(name, digest)) == digest, name
        table = table_path(weights.weights_path(name, digest))
        assert not table.is_file() or json.loads(table.read_text())["weights"] == digest


def test_the_zoo_stays_small() -> None:
    """Older weights are part of every wheel: when this fails, think before you raise it."""
    assert sum(path.stat().st_size for path in weights.ZOO.iterdir()) < 32 << 20


@pytest.mark.parametrize("way", ["changed", "removed", "added"])
def test_a_changed_zoo_is_noticed(zoo: Path, way: str) -> None:
    assert problems(zoo) == []
    path = weights.weights_path("fsrcnn-x4", weights.newest("fsrcnn-x4"))
    if way == "removed":
        path.unlink()
    elif way == "added":
        trained(zoo, "fsrcnn-x4")
    else:
        write_checkpoint(path, Checkpoint(ModelSpec("fsrcnn", 4), Fsrcnn(4).state_dict()))
    (problem,) = problems(zoo)
    assert {"changed": "was changed", "removed": "is gone", "added": "not in SHA256SUMS"}[
        way
    ] in problem


def test_newer_weights_become_what_the_name_stands_for_and_the_older_stay(
    zoo: Path, tmp_path: Path
) -> None:
    before = registry.load_weights("fsrcnn-x4")
    file = trained(tmp_path)
    path = weights.ship("fsrcnn-x4", file)
    assert problems(zoo) == [] and path.parent == zoo
    now = registry.load_weights("fsrcnn-x4")
    assert now.weights == digest_file(file) == registry.digest("fsrcnn-x4") != before.weights
    assert weights.card("fsrcnn-x4") == {"name": "fsrcnn-x4", "weights": now.weights, "steps": 1}
    again = registry.load_weights("fsrcnn-x4", weights=before.weights)
    x = torch.rand(1, 3, 8, 8)
    with torch.inference_mode():
        made, older, newer = (one.upscaler(x, whole(x, 4)).pixels for one in (before, again, now))
    assert torch.equal(made, older) and not torch.equal(made, newer)
    assert weights.networks() == ["fsrcnn-x2", "fsrcnn-x4"]
    weights.ship("fsrcnn-x4", file)
    assert problems(zoo) == [], "shipped twice, it is there once"


def test_a_new_name_with_a_table_of_efforts(zoo: Path, tmp_path: Path) -> None:
    file = trained(tmp_path)
    efforts = Efforts("k", (0.0, 1.0), (0.5, 1.0), digest_file(file), {})
    write_efforts(file, efforts)
    path = weights.ship("mine-x4", file)
    assert table_path(path).read_bytes() == table_path(file).read_bytes()
    assert registry.locate("mine-x4") == path
    write_efforts(file, Efforts("k", (0.0, 1.0), (0.5, 1.0), "0" * 64, {}))
    with pytest.raises(ValueError, match="measured with other weights"):
        weights.ship("mine-x4", file)


@pytest.mark.parametrize("name", ["bicubic", "kind-x4", "EDSR", "a.b", "../x", ""])
def test_names_that_cannot_be_are_refused(zoo: Path, tmp_path: Path, name: str) -> None:
    before = sorted(zoo.iterdir())
    with pytest.raises(ValueError, match="cannot be the name of a network"):
        weights.ship(name, trained(tmp_path))
    assert sorted(zoo.iterdir()) == before


def test_the_command_ships_and_says_what_it_cannot(
    zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert weights.main(["edsr-x9", str(trained(tmp_path))]) == 0
    assert "edsr-x9 stands for" in capsys.readouterr().out and "edsr-x9" in weights.networks()
    assert weights.main(["edsr-x9", str(tmp_path / "none.safetensors")]) == 2
    assert "none.safetensors is not a file" in capsys.readouterr().err


def test_weights_that_no_version_shipped_are_refused_by_their_digest(zoo: Path) -> None:
    with pytest.raises(ValueError, match=r"weights 0{16} of fsrcnn-x4 are not in this version"):
        registry.load_weights("fsrcnn-x4", weights="0" * 64)
    assert not registry.holds("fsrcnn-x4", "0" * 64)
    assert registry.holds("fsrcnn-x4", weights.newest("fsrcnn-x4"))
    assert registry.holds("bicubic", registry.digest("bicubic"))
