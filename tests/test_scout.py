"""The scout: any tile size, a sane order of tiers, what it learns, and when it is found."""

import json
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tierscale.jobs.cli import main as cli
from tierscale.jobs.cli import scout as scouting
from tierscale.models import registry
from tierscale.models.contract.checkpoints import digest_file, read_checkpoint, write_checkpoint
from tierscale.models.contract.upscaler import Placement
from tierscale.models.runtime.bicubic import Bicubic
from tierscale.models.scout import STATISTICS, Scout, read_scout, statistics, write_scout
from tierscale.models.train.photos import read_image
from tierscale.models.train.scouting import fit as fitting
from tierscale.models.train.scouting import observe
from tierscale.models.train.shrink import shrink
from tierscale.pipeline.inference import difficulty
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.run.tiers import load_tiers

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
        read_scout(registry.ZOO / "fsrcnn-x4.safetensors")


def constant(error: float) -> Callable[..., object]:
    """An upscaler that is `error` off everywhere where bicubic is exact."""

    def enlarge(windows: torch.Tensor, place: object) -> object:
        made = Bicubic()(windows, place)  # type: ignore[arg-type]
        return type(made)(made.pixels + error, made.macs)

    return enlarge


@pytest.mark.parametrize("scale", [Fraction(4), Fraction(8, 5)])
def test_errors_are_measured_for_each_input_pixel(scale: Fraction) -> None:
    side = int(32 / scale)
    flat = torch.full((3, 32, 32), 0.5)
    sample = observe.leave([constant(0.1), constant(0.2)], flat[:, :side, :side], flat, scale)  # type: ignore[list-item]
    assert sample.errors.shape == (2, side, side)
    assert sample.errors[0].flatten().tolist() == pytest.approx([0.01] * side**2, rel=1e-3)
    assert sample.errors[1].flatten().tolist() == pytest.approx([0.04] * side**2, rel=1e-3)
    # What is wrong at the far corner alone is told of the last input pixel alone.
    spoilt = flat.clone()
    spoilt[:, -1, -1] = 1.0
    errors = observe.leave([constant(0.0)], flat[:, :side, :side], spoilt, scale).errors[0]  # type: ignore[list-item]
    assert errors[-1, -1] > 0.01
    assert errors.flatten()[:-1].max() < 1e-6


def test_what_is_expected_lies_between_the_truth_and_the_difference_of_enlargements() -> None:
    flat = torch.full((3, 32, 32), 0.5)
    for trust, wanted in ((0.0, [0.01, 0.04]), (1.0, [0.01 + 0.04, 0.04]), (0.5, [0.03, 0.04])):
        sample = observe.leave(
            [constant(0.1), constant(0.2)], flat[:, ::4, ::4], flat, Fraction(4), trust=trust
        )  # type: ignore[list-item]
        assert sample.expected.mean(dim=(1, 2)).tolist() == pytest.approx(wanted, rel=1e-3)
        assert sample.errors.mean(dim=(1, 2)).tolist() == pytest.approx([0.01, 0.04], rel=1e-3)


@pytest.mark.parametrize(
    ("scale", "size"),
    [(Fraction(4), (96, 104)), (Fraction(8, 5), (96, 104)), (Fraction(137, 100), (137, 137))],
)
def test_every_variation_keeps_the_scale(scale: Fraction, size: tuple[int, int]) -> None:
    rng, hr, dirty = np.random.default_rng(0), torch.rand(3, *size), 0
    for _ in range(60):
        small, large, clean = observe.vary(hr, scale, rng)
        dirty += not clean
        assert tuple(large.shape[-2:]) == (small.shape[-2] * scale, small.shape[-1] * scale)
        assert small.shape[0] == large.shape[0] == 3
        assert 0 <= small.min() <= small.max() <= 1
        assert not clean or small == pytest.approx(shrink(large, scale).clamp(0, 1), abs=1e-6)
    assert 0 < dirty < 20


def photos(folder: Path, size: tuple[int, int] = (448, 432)) -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir()
    for index in range(3):
        noise = rng.integers(0, 255, (24, 24, 3), np.uint8)
        Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where scouts that are fitted here lie, empty."""
    monkeypatch.setenv("TIERSCALE_SCOUTS", str(tmp_path / "scouts"))
    return tmp_path / "scouts"


def tierscale(capsys: pytest.CaptureFixture[str], *line: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        cli.main([str(part) for part in line])
    said = capsys.readouterr()
    return int(end.value.code or 0), said.out, said.err


QUICK = ("--steps", 3, "--variants", 1, "--threads", 1)


def test_a_scout_is_fitted_to_any_tiers_and_found_by_their_weights(tmp_path, own, capsys):
    copy = tmp_path / "copy.safetensors"
    shutil.copy(registry.ZOO / "fsrcnn-x4.safetensors", copy)
    line = (
        "scout",
        "fit",
        "--tiers",
        f"bicubic,file:{copy}",
        "--scale",
        4,
        "--hr",
        photos(tmp_path / "photos"),
        *QUICK,
        "--json",
    )
    code, out, err = tierscale(capsys, *line)
    assert code == 0, err
    told = json.loads(out)
    assert told["tiers"] == ["bicubic", f"file:{copy}"] and told["seconds_per_million_pixels"] >= 0
    table = pq.read_table(Path(told["output"]).with_suffix(".errors.parquet"))
    assert (
        table.column_names == ["image", "variation", "y", "x", "tile", "mse"] and table.num_rows > 0
    )
    assert set(table["variation"].to_pylist()) == {0, 1}
    found = registry.load_scout(("bicubic", "fsrcnn-x4"), Fraction(4))
    assert found is not None and found.weights == digest_file(Path(told["output"])), (
        "the same weights are known by any name"
    )


def fitting_line(folder: Path, out: Path) -> tuple[object, ...]:
    return ("scout", "fit", "--tiers", "bicubic,fsrcnn-x4", "--hr", folder, *QUICK, "--out", out)


def test_errors_in_the_table_are_those_of_the_tiles(tmp_path, own, capsys):
    code, out, err = tierscale(
        capsys, *fitting_line(photos(tmp_path / "photos"), tmp_path / "a.safetensors")
    )
    assert code == 0 and f"--scout {tmp_path / 'a.safetensors'}" in out, err
    row = next(
        row
        for row in pq.read_table(tmp_path / "a.errors.parquet").to_pylist()
        if row["image"] == "1.png" and not row["variation"]
    )
    hr = read_image(tmp_path / "photos" / "1.png") / 255
    lr, side = shrink(hr, 4).clamp(0, 1), row["tile"]
    for name, error in zip(("bicubic", "fsrcnn-x4"), row["mse"], strict=True):
        made = (
            registry.load(name)(lr[None], Placement.whole((108, 112), Fraction(4)))
            .pixels[0]
            .clamp(0, 1)
        )
        apart = (made - hr).square()[
            :, 4 * row["y"] : 4 * (row["y"] + side), 4 * row["x"] : 4 * (row["x"] + side)
        ]
        assert error == pytest.approx(apart.mean().item(), rel=1e-4)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (("--tiers", "bicubic"), ("nothing to choose",)),
        (("--tiers", "carn-x4,bicubic"), ("cheap to dear",)),
        (("--tiers", "bicubic,fsrcnn-x4", "--scale", "5/2"), ("fsrcnn-x4", "5/2")),
        (("--tiers", "bicubic,fsrcnn-x4", "--out", "a.pt"), (".safetensors",)),
        (("--tiers", "bicubic,fsrcnn-x4", "--hr", "{empty}"), ("no image files",)),
        (("--tiers", "bicubic,fsrcnn-x4", "--observe", "nan"), ("--observe nan",)),
        (("--tiers", "bicubic,fsrcnn-x4", "--seconds", "-1"), ("--seconds -1",)),
    ],
)
def test_scouts_that_cannot_be_fitted(tmp_path, own, capsys, line, words):
    empty = tmp_path / "empty"
    empty.mkdir()
    code, _, err = tierscale(
        capsys, "scout", "fit", "--hr", empty, *(str(part).format(empty=empty) for part in line)
    )
    assert code == 2 and len(err.strip().splitlines()) == 1
    for word in words:
        assert word in err


def test_too_few_photos_to_judge_by_are_said_to_be_too_few(tmp_path, own, capsys):
    file = tmp_path / "few.safetensors"
    code, out, err = tierscale(
        capsys, *fitting_line(photos(tmp_path / "photos", (200, 210)), file), "--json"
    )
    assert code == 0 and json.loads(out)["captured"] is None, err
    lines = scouting.report(file, json.loads(file.with_suffix(".json").read_text()))
    assert "too few photos" in "".join(lines)


def test_a_scout_of_these_tiers_alone_comes_before_one_that_knows_others_too(own):
    own.mkdir()
    tiers = ("bicubic", "fsrcnn-x4", "edsr-x4")
    shipped = registry.load_scout(tiers, Fraction(4))
    write_scout(own / "scout-x4-more.safetensors", fresh((*tiers, "carn-x4")))
    assert registry.load_scout(tiers, Fraction(4)).weights == shipped.weights
    write_scout(own / "scout-x4-own.safetensors", fresh(tiers))
    assert registry.load_scout(tiers, Fraction(4)).weights == digest_file(
        own / "scout-x4-own.safetensors"
    )


def test_a_tile_of_one_colour_is_worth_no_network():
    tiles = np.stack(
        [np.full((1, 3, 32, 32), 0.3), np.random.default_rng(0).random((1, 3, 32, 32))]
    ).astype(np.float32)
    scores = difficulty._score_tiles(
        tiles, registry.load_scout(("bicubic", "fsrcnn-x4", "edsr-x4"), Fraction(4)), 3
    )
    assert np.ptp(scores[0]) == 0 < np.ptp(scores[1])


def test_a_given_scout_must_belong_to_the_tiers(tmp_path, own, capsys):
    image, file, other = tmp_path / "a.png", tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)).save(image)
    write_scout(file, fresh(("bicubic", "fsrcnn-x4")))
    write_scout(
        other, Scout(("bicubic", "fsrcnn-x4"), [registry.digest("bicubic"), "0" * 64], Fraction(4))
    )
    line = (
        "plan",
        image,
        tmp_path / "out.zarr",
        "--ray",
        "none",
        "--tile",
        16,
        "--json",
        "--tiers",
    )
    code, out, _ = tierscale(capsys, *line, "bicubic,fsrcnn-x4", "--scout", file)
    assert code == 0 and json.loads(out)["curve"]
    for tiers, given, word in (
        ("bicubic,carn-x4", file, "carn-x4: it was fitted for bicubic, fsrcnn-x4"),
        ("bicubic,fsrcnn-x4", other, "fsrcnn-x4: it was fitted with other weights"),
        ("bicubic,fsrcnn-x4", tmp_path / "none.safetensors", "none.safetensors"),
    ):
        code, _, err = tierscale(capsys, *line, tiers, "--scout", given)
        assert code == 2 and word in err


def test_where_no_scout_is_known_plain_detail_serves_and_it_is_said(tmp_path, own, capsys):
    image, copy = tmp_path / "a.png", tmp_path / "copy.safetensors"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)).save(image)
    write_checkpoint(copy, read_checkpoint(registry.ZOO / "fsrcnn-x4.safetensors"))
    assert registry.digest(f"file:{copy}") != registry.digest("fsrcnn-x4")
    line = (
        "plan",
        image,
        tmp_path / "out.zarr",
        "--ray",
        "none",
        "--tile",
        16,
        "--json",
        "--tiers",
        f"bicubic,file:{copy}",
    )
    code, out, _ = tierscale(capsys, *line, "--budget", "0.6")
    assert (
        code == 0
        and "plain detail" in json.loads(out)["notes"][0]
        and json.loads(out)["curve"] is None
    )
    code, _, err = tierscale(capsys, *line, "--lose", "0.1")
    assert code == 2 and "tierscale scout fit" in err


def test_the_loss_is_least_at_the_mean_of_what_may_come() -> None:
    expected = torch.tensor([[3e-3, 1e-3], [1.5e-3, 5e-4]]).repeat(8, 1)[:, :, None, None]
    predicted = torch.tensor([2e-3, 1e-3]).log().requires_grad_(True)
    optimiser = torch.optim.Adam([predicted], 0.05)
    for _ in range(400):
        optimiser.zero_grad()
        fitting.loss(
            predicted.exp()[None, :, None, None].expand(16, 2, 1, 1),
            expected,
            torch.tensor([1e-3, 1e-4]),
        ).backward()
        optimiser.step()
    assert predicted.exp().tolist() == pytest.approx([2.25e-3, 7.5e-4], rel=0.02)


def test_fitting_finds_what_energy_alone_does_not_tell() -> None:
    """Stripes and noise of one energy, of which only the stripes are worth the dear tier."""
    rng, samples = np.random.default_rng(0), []
    stripes = torch.tensor([0.4, 0.6]).repeat_interleave(4).repeat(8)[:64].expand(3, 64, 64)
    noise = torch.from_numpy(
        rng.choice([0.4, 0.6], (1, 64, 64), p=[0.5, 0.5]).astype(np.float32)
    ).expand(3, -1, -1)
    noise = 0.5 + (noise - 0.5) * 0.35
    for index in range(4):
        for lr, saved in ((stripes, 0.9), (noise, 0.05)):
            errors = torch.stack(
                [torch.full((64, 64), 1e-3), torch.full((64, 64), 1e-3 * (1 - saved))]
            )
            samples.append(observe.Sample(lr.contiguous(), errors, errors, str(index)))
    scout = Scout(("a", "b"), ("0", "1"), Fraction(4))
    fitting.fit(scout, samples, fitting.Schedule(steps=150, batch=8, rate=3e-3))
    told = scout(torch.stack([stripes, noise]))
    saved = told[:, 0] - told[:, 1]
    assert saved[0] == pytest.approx(9e-4, rel=0.3) and saved[1] < 3e-4


def test_a_dear_tier_that_errs_more_is_predicted_to(tmp_path: Path) -> None:
    rng, samples = np.random.default_rng(0), []
    for index in range(6):
        lr = torch.from_numpy(rng.random((3, 64, 64), np.float32))
        errors = torch.stack([torch.full((64, 64), error) for error in (3e-3, 1e-3, 2e-3)])
        samples.append(observe.Sample(lr, errors, errors, str(index)))
    scout = Scout(("a", "b", "c"), ("0", "1", "2"), Fraction(4))
    fitting.fit(scout, samples, fitting.Schedule(steps=60, batch=8, rate=3e-3))
    told = scout(samples[0].lr[None])[0]
    assert told.tolist() == pytest.approx([3e-3, 1e-3, 2e-3], rel=0.1)
    write_scout(tmp_path / "s.safetensors", scout)
    assert torch.equal(read_scout(tmp_path / "s.safetensors")(samples[0].lr[None])[0], told)


def test_photos_held_back_are_not_fitted_to():
    samples = [
        observe.Sample(torch.zeros(3, 8, 8), *[torch.zeros(2, 8, 8)] * 2, name, v)
        for name in "abcdefghij"
        for v in (0, 1)
    ]
    trained, held = fitting.hold_out(samples, every=5)
    assert {s.name for s in held} == {"a", "f"} and all(s.variation == 0 for s in held)
    assert not {s.name for s in trained} & {"a", "f"}
    assert fitting.hold_out(samples[:2]) == (samples[:2], [])


@pytest.mark.parametrize("scale", [2, 3, 4, Fraction(3, 2), Fraction(5, 2)])
def test_the_zoo_knows_the_default_tiers_and_has_their_scout(scale: int | Fraction) -> None:
    labels = Options(scale=Fraction(scale)).tier_labels
    assert labels[0] == "bicubic" and len(load_tiers(labels, Fraction(scale))) == len(labels) > 1
    assert registry.load_scout(labels, Fraction(scale), registry.ZOO) is not None


def test_default_tiers_of_other_scales() -> None:
    assert Options(scale=Fraction(27, 10)).tier_labels == ("bicubic", "anysr-edsr")
    assert (
        Options(scale=Fraction(1)).tier_labels
        == Options(scale=Fraction(21, 20)).tier_labels
        == ("bicubic",)
    )
