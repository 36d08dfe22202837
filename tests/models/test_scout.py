"""The pre-pass network: what it predicts, and how it is found."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tierscale.models import registry
from tierscale.models.scout import STATISTICS, Scout, read_scout, statistics, write_scout

TIERS = ("bicubic", "fsrcnn-x4", "carn-x4")


pytestmark = pytest.mark.usefixtures("one_thread")


def fresh(tiers: tuple[str, ...] = TIERS) -> Scout:
    torch.manual_seed(0)
    return (
        Scout(tiers, [registry.digest(tier) for tier in tiers], Fraction(4))
        .eval()
        .requires_grad_(False)
    )


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


def test_statistics_are_alike_in_all_directions_and_cells_of_any_tile() -> None:
    wide = F.interpolate(
        torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0)),
        (64, 64),
        mode="bicubic",
    ).clamp(0, 1)
    found = statistics(wide)
    assert found.shape == (1, STATISTICS, 16, 16)
    assert statistics(wide.transpose(-1, -2)).transpose(-1, -2) == pytest.approx(found, abs=1e-3)
    # Differences begin at their pixel, so that a mirrored tile has them one pixel on.
    assert statistics(wide.flip(-1)).flip(-1).mean(dim=(2, 3)) == pytest.approx(
        found.mean(dim=(2, 3)), abs=0.05
    )
    assert statistics(wide[..., :24, :40])[..., :-1, :-1] == pytest.approx(
        found[..., :5, :9], abs=1e-5
    )


def test_before_it_has_learnt_a_scout_is_plain_energy() -> None:
    scout, tile = fresh(), torch.rand(1, 3, 32, 32) * 0.2
    with torch.no_grad():
        scout.tell.weight.zero_()
    assert scout(2 * tile) == pytest.approx(4 * scout(tile), rel=0.01)


@pytest.mark.parametrize(
    "name", sorted(path.name for path in registry.ZOO.glob("scout-*.safetensors"))
)
def test_the_scouts_of_the_zoo_find_texture_harder_than_flat(name: str) -> None:
    scout = read_scout(registry.ZOO / name)
    assert registry.load_scout(scout.tiers, scout.scale) is not None, (
        "fitted for weights that the zoo no longer holds: fit it again"
    )
    y, x = np.mgrid[:64, :64]
    flat = torch.full((3, 64, 64), 0.5)
    edges = torch.from_numpy(
        ((np.sin(0.7 * x + 0.4 * y) > 0) * 0.8 + 0.1).astype(np.float32)
    ).expand(3, -1, -1)
    predicted = scout(torch.stack([flat, edges]))
    gains = predicted[:, 0] - predicted[:, -1]
    assert predicted[0, 0] < 1e-4 < predicted[1, 0]
    assert gains[1] > 20 * gains[0]


def test_a_scout_is_found_only_for_its_tiers_scale_and_weights(tmp_path: Path) -> None:
    scout = fresh(("bicubic", "fsrcnn-x4"))
    write_scout(tmp_path / "scout-x4.safetensors", scout)

    def found(tiers: tuple[str, ...], scale: int) -> Scout | None:
        return registry.load_scout(tiers, Fraction(scale), tmp_path)

    again = found(("bicubic", "fsrcnn-x4"), 4)
    assert again is not None
    tile = torch.rand(1, 3, 20, 20)
    assert torch.equal(again(tile), scout(tile))
    assert found(("bicubic", "carn-x4"), 4) is None
    assert found(("bicubic", "fsrcnn-x4"), 2) is None
    write_scout(
        tmp_path / "scout-x4.safetensors", Scout(scout.tiers, ["0" * 64, "1" * 64], Fraction(4))
    )
    assert found(("bicubic", "fsrcnn-x4"), 4) is None


def test_a_scout_serves_some_of_its_tiers_too(tmp_path: Path) -> None:
    scout, tile = fresh(), torch.rand(2, 3, 20, 20)
    write_scout(tmp_path / "scout-x4.safetensors", scout)
    some = registry.load_scout(("bicubic", "carn-x4"), Fraction(4), tmp_path)
    assert some is not None
    assert some.tiers == ("bicubic", "carn-x4")
    assert torch.equal(some(tile), scout(tile)[:, [0, 2]])
    assert registry.load_scout(("carn-x4", "bicubic"), Fraction(4), tmp_path) is None


def test_a_checkpoint_of_a_network_is_no_scout() -> None:
    with pytest.raises(ValueError, match="does not say what it was fitted for"):
        read_scout(registry.locate("fsrcnn-x4"))
