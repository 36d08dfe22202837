"""The scout: any tile size, a sane order of tiers, what it learns, and when it is found."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import models
from models.bicubic import Bicubic
from models.scout import Scout, read_scout, write_scout
from models.train import observe
from models.train import scout as fitting

TIERS = ("bicubic", "fsrcnn-x4", "carn-x4")


pytestmark = pytest.mark.usefixtures("one_thread")


def fresh(tiers: tuple[str, ...] = TIERS) -> Scout:
    torch.manual_seed(0)
    return Scout(tiers, [models.digest(tier) for tier in tiers], Fraction(4)).eval().requires_grad_(False)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (2, 3), (7, 9), (64, 128)])
def test_any_tile_size_gives_one_error_for_each_tier(size: tuple[int, int]) -> None:
    predicted = fresh()(torch.rand(2, 3, *size))
    assert predicted.shape == (2, 3)
    assert torch.isfinite(predicted).all()
    assert (predicted > 0).all()


def test_a_dearer_tier_is_never_predicted_worse() -> None:
    predicted = fresh()(torch.rand(5, 3, 32, 32) * torch.linspace(0, 1, 5).view(5, 1, 1, 1))
    assert (predicted.diff(dim=1) <= 0).all()


def test_a_tile_repeated_is_about_as_hard_as_the_tile() -> None:
    tile = torch.rand(1, 3, 32, 32)
    tile = torch.cat([tile, tile.flip(-1)], dim=-1)
    assert fresh()(tile.repeat(1, 1, 3, 3)) == pytest.approx(fresh()(tile), rel=0.1)


@pytest.mark.parametrize("name", sorted(path.name for path in models.ZOO.glob("scout-*.safetensors")))
def test_the_scouts_of_the_zoo_find_texture_harder_than_flat(name: str) -> None:
    scout = read_scout(models.ZOO / name)
    assert models.load_scout(scout.tiers, scout.scale) is not None, "fitted for weights that the zoo no longer holds: fit it again"
    y, x = np.mgrid[:64, :64]
    flat = torch.full((3, 64, 64), 0.5)
    edges = torch.from_numpy(((np.sin(0.7 * x + 0.4 * y) > 0) * 0.8 + 0.1).astype(np.float32)).expand(3, -1, -1)
    predicted = scout(torch.stack([flat, edges]))
    gains = predicted[:, 0] - predicted[:, -1]
    assert predicted[0, 0] < 1e-4 < predicted[1, 0]
    assert gains[1] > 20 * gains[0]


def test_a_scout_is_found_only_for_its_tiers_scale_and_weights(tmp_path: Path) -> None:
    scout = fresh(("bicubic", "fsrcnn-x4"))
    write_scout(tmp_path / "scout-x4.safetensors", scout)

    def found(tiers: tuple[str, ...], scale: int) -> Scout | None:
        return models.load_scout(tiers, Fraction(scale), tmp_path)

    again = found(("bicubic", "fsrcnn-x4"), 4)
    assert again is not None
    tile = torch.rand(1, 3, 20, 20)
    assert torch.equal(again(tile), scout(tile))
    assert found(("bicubic", "carn-x4"), 4) is None
    assert found(("bicubic", "fsrcnn-x4"), 2) is None
    write_scout(tmp_path / "scout-x4.safetensors", Scout(scout.tiers, ["0" * 64, "1" * 64], Fraction(4)))
    assert found(("bicubic", "fsrcnn-x4"), 4) is None


def test_a_scout_serves_some_of_its_tiers_too(tmp_path: Path) -> None:
    scout, tile = fresh(), torch.rand(2, 3, 20, 20)
    write_scout(tmp_path / "scout-x4.safetensors", scout)
    some = models.load_scout(("bicubic", "carn-x4"), Fraction(4), tmp_path)
    assert some is not None
    assert some.tiers == ("bicubic", "carn-x4")
    assert torch.equal(some(tile), scout(tile)[:, [0, 2]])
    assert models.load_scout(("carn-x4", "bicubic"), Fraction(4), tmp_path) is None


def test_a_checkpoint_of_a_network_is_no_scout() -> None:
    with pytest.raises(ValueError, match="does not say what it was fitted for"):
        read_scout(models.ZOO / "fsrcnn-x4.safetensors")


def constant(error: float) -> Callable[..., object]:
    """An upscaler that is `error` off everywhere where bicubic is exact."""

    def enlarge(windows: torch.Tensor, place: object) -> object:
        made = Bicubic()(windows, place)  # type: ignore[arg-type]
        return type(made)(made.pixels + error, made.spent)

    return enlarge


def test_errors_are_measured_for_each_input_pixel() -> None:
    flat = torch.full((3, 32, 32), 0.5)
    sample = observe.leave([constant(0.1), constant(0.2)], flat[:, ::4, ::4], flat, 4)  # type: ignore[list-item]
    assert sample.errors.shape == (2, 8, 8)
    assert sample.errors[0].flatten().tolist() == pytest.approx([0.01] * 64, rel=1e-3)
    assert sample.errors[1].flatten().tolist() == pytest.approx([0.04] * 64, rel=1e-3)


def test_every_variation_keeps_the_scale() -> None:
    rng, hr = np.random.default_rng(0), torch.rand(3, 64, 72)
    for _ in range(30):
        small, large = observe.vary(hr, 4, rng)
        assert tuple(large.shape[-2:]) == (small.shape[-2] * 4, small.shape[-1] * 4)
        assert small.shape[0] == large.shape[0] == 3
        assert 0 <= small.min() <= small.max() <= 1


def test_rank_correlation_of_plain_examples() -> None:
    a = torch.tensor([1.0, 5.0, 2.0, 9.0])
    assert fitting.spearman(a, a**3) == pytest.approx(1)
    assert fitting.spearman(a, -a) == pytest.approx(-1)


def test_a_scout_is_fitted_and_stored(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    photos = tmp_path / "photos"
    photos.mkdir()
    for index in range(3):
        noise = rng.integers(0, 255, (24, 24, 3), np.uint8)
        Image.fromarray(noise).resize((144, 144), Image.Resampling.BICUBIC).save(photos / f"{index}.png")
    line = ["--tiers", "bicubic,fsrcnn-x4", "--scale", "4", "--hr", str(photos), "--check", str(photos), "--steps", "40", "--variants", "1"]
    options = fitting.arguments().parse_args([*line, "--out", str(tmp_path)])
    path = fitting.run(options)
    assert models.load_scout(("bicubic", "fsrcnn-x4"), Fraction(4), tmp_path) is not None
    assert path.with_suffix(".json").is_file()
