"""Effort through the product.

A measured table, tiers NAME@EFFORT and NAME@auto, and what the plan freezes of them.
"""

import json
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from PIL import Image

from tests.models.adaptive.pcsr.small_pcsr import make, smooth
from tests.pipeline.run.upscaling import plan_at, upscale
from tests.reference_file import calibrated
from tierscale.jobs.cli.main import main
from tierscale.models import registry, weights
from tierscale.models.adaptive.anysr.upscaler import AnySrUpscaler
from tierscale.models.adaptive.pcsr.network import Pcsr
from tierscale.models.adaptive.pcsr.upscaler import PcsrUpscaler
from tierscale.models.contract.checkpoints import Checkpoint, digest_file, write_checkpoint
from tierscale.models.contract.efforts import Efforts, read_efforts, table_path, write_efforts
from tierscale.models.contract.upscaler import Placement
from tierscale.models.train import calibrate
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.registry import open_array
from tierscale.pipeline.geometry.grid import Rect
from tierscale.pipeline.inference import statistics
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.plan import Draft, Settings
from tierscale.pipeline.plan.policies import Budget, Full
from tierscale.pipeline.plan.precision import Hardware
from tierscale.pipeline.plan.stored import (
    draft_fields,
    plan_from_json,
    plan_to_json,
    with_digest,
)
from tierscale.pipeline.plan.value_range import ValueRange
from tierscale.pipeline.run.array import enlarge_array
from tierscale.pipeline.run.draft import inspect_image

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def stored(tmp_path: Path) -> str:
    """The name of a small PCSR with a table, stored as a file."""
    upscaler, path = make("fsrcnn", ((4,), (24, 24))), tmp_path / "pcsr.safetensors"
    network = Pcsr(**upscaler.spec.arguments)
    parts = {
        "encoder": upscaler.encoder,
        "classifier": upscaler.classifier,
        "samplers": upscaler.samplers,
    }
    for name, part in parts.items():
        getattr(network, name).load_state_dict(part.state_dict())  # type: ignore[union-attr]
    write_checkpoint(path, Checkpoint(upscaler.spec, network.state_dict()))
    upscaler.calibration_grid = (50.0, *(step / 20 for step in range(8, -9, -1)), -8.0)
    settings, shares = calibrate.measure(upscaler, [smooth(1, 40, 40)], Fraction(4))
    write_efforts(path, Efforts("k", settings, shares, digest_file(path), {}))
    return f"file:{path}"


def picture(height: int, width: int) -> np.ndarray:
    """A photo-like array (3, height, width), uint8."""
    return (smooth(1, height, width)[0].numpy() * 255).round().astype(np.uint8)


def draft(
    tiers: tuple[str, ...],
    size: tuple[int, int] = (60, 70),
    exact: bool = False,
    scale: Fraction = Fraction(4),
) -> tuple[Draft, tuple[str, ...]]:
    """The draft of a picture, and its notes."""
    options = Options(scale=scale, tiers=tiers, policy=Full(), tile=24, exact_statistics=exact)
    found = inspect_image(open_array(picture(*size), "cyx"), options, Hardware())
    return found.draft, found.source.notes


def settings_of(draft: Draft, image: np.ndarray) -> Settings:
    """What a draft's tiers are told, of an image in memory."""

    def measure(tier: int, places: list[list[Rect]]) -> list[statistics.Histogram]:
        upscaler = registry.load(draft.tiers[tier].name)
        assert isinstance(upscaler, statistics.Automatic)
        value_range = ValueRange(0.0, 255.0, 0.0, 255.0, None)
        return [
            statistics.measure_difficulty(
                draft, value_range, lambda y0, y1, x0, x1: image[:, y0:y1, x0:x1], upscaler, some
            )
            for some in places
        ]

    return statistics.tier_settings(draft, measure)


def test_a_tier_at_an_effort_costs_that_share_and_the_plan_freezes_its_control(stored: str) -> None:
    efforts = registry.load(stored).efforts
    assert efforts is not None
    drafted, notes = draft((f"{stored}@0.8",))
    (tier,) = drafted.tiers
    assert (tier.label, tier.effort) == (f"{stored}@0.8", 0.8)
    assert tier.cost == pytest.approx(0.8 * registry.load(stored).cost(Fraction(4)))
    made = enlarge_array(picture(60, 70), Options(tiers=(f"{stored}@0.8",), policy=Full(), tile=24))
    assert made.plan.settings == ({"k": efforts.setting(0.8)},)
    full = enlarge_array(picture(60, 70), Options(tiers=(stored,), policy=Full(), tile=24))
    assert full.plan.settings == ({},)
    assert made.cost < 0.95 * full.cost
    again = plan_from_json(json.loads(json.dumps(plan_to_json(made.plan))))
    assert again.settings == made.plan.settings
    other = with_digest(replace(made.plan, settings=({"k": 0.0},)))
    assert again.digest == made.plan.digest != other.digest
    assert draft_fields(made.plan)["tiers"] == drafted.tiers
    assert not any("least" in note for note in notes)


def test_below_the_floor_it_runs_at_the_floor_and_says_so(stored: str) -> None:
    efforts = registry.load(stored).efforts
    assert efforts is not None
    drafted, notes = draft((f"{stored}@0.01",))
    assert [f"runs at {efforts.floor:.2f} of its full computation" in note for note in notes] == [
        True
    ]
    assert drafted.tiers[0].cost == pytest.approx(
        efforts.floor * registry.load(stored).cost(Fraction(4))
    )
    assert settings_of(drafted, picture(60, 70)) == ({"k": efforts.settings[0]},)


def test_a_path_may_hold_an_at_sign(stored: str, tmp_path: Path) -> None:
    path, other = Path(stored.removeprefix("file:")), tmp_path / "at@2x" / "pcsr@4.safetensors"
    other.parent.mkdir()
    shutil.copy(path, other)
    shutil.copy(table_path(path), table_path(other))
    drafted, _ = draft((f"file:{other}@0.8",))
    assert (drafted.tiers[0].name, drafted.tiers[0].effort) == (f"file:{other}", 0.8)
    assert draft((f"file:{other}",))[0].tiers[0].effort == 1
    assert registry.tier_key(f"file:{other}@0.8") == registry.tier_key(f"{stored}@0.8")


def test_efforts_of_another_scale_are_reported(stored: str) -> None:
    path = Path(stored.removeprefix("file:"))
    efforts = registry.load(stored).efforts
    assert efforts is not None
    write_efforts(path, replace(efforts, measured={"scale": "4"}))
    assert not draft((f"{stored}@0.8",))[1]
    _, notes = draft((f"{stored}@0.8",), scale=Fraction(2))
    assert [f"{stored}@0.8 costs was measured at scale 4; at 2 it" in note for note in notes] == [
        True
    ]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("fsrcnn-x4@0.5", "has no effort control.*without @0.5"),
        ("fsrcnn-x4@auto", "has no automatic effort.*without @auto"),
        ("fsrcnn-x4@1.5", "effort of 0 to 1, or NAME@auto"),
        ("fsrcnn-x4@much", "effort of 0 to 1, or NAME@auto"),
    ],
)
def test_labels_that_cannot_be_are_refused(label: str, message: str) -> None:
    with pytest.raises(Refused, match=message):
        draft((label,))


def test_an_effort_that_was_not_measured_is_refused_with_the_command(stored: str) -> None:
    path = Path(stored.removeprefix("file:"))
    table_path(path).unlink()
    with pytest.raises(
        Refused,
        match=r"not measured; run tierscale models calibrate file:.*pcsr.safetensors --hr DIR",
    ):
        draft((f"{stored}@0.5",))


def test_exact_statistics_are_those_of_the_whole_image(stored: str) -> None:
    drafted, _ = draft((f"{stored}@auto",), exact=True)
    assert drafted.tiers[0].label == f"{stored}@auto"
    image, upscaler = picture(60, 70), registry.load(stored)
    assert isinstance(upscaler, PcsrUpscaler)
    with torch.inference_mode():
        whole, _ = upscaler.difficulties(
            torch.from_numpy(image[None].astype(np.float32) / 255),
            Placement.whole((60, 70), Fraction(4)),
        )
    (expected,) = statistics.difficulty_cutoffs(whole.numpy())
    assert settings_of(drafted, image)[0]["threshold"] == pytest.approx(expected, abs=1e-3)
    made = enlarge_array(
        image, Options(tiers=(f"{stored}@auto",), policy=Full(), tile=24, exact_statistics=True)
    )
    light = (whole <= made.plan.settings[0]["threshold"]).float().mean().item()
    assert 0.02 < light < 0.98
    assert made.cost < enlarge_array(image, Options(tiers=(stored,), policy=Full(), tile=24)).cost


@pytest.mark.parametrize("scale", [Fraction(4), Fraction(5, 2)])
def test_a_sample_is_seeded_and_takes_its_share_of_the_cost(stored: str, scale: Fraction) -> None:
    drafted, _ = draft((f"{stored}@auto",), (300, 280), scale=scale)
    upscaler = registry.load(stored)
    assert isinstance(upscaler, PcsrUpscaler) and upscaler.reach is not None
    places = statistics.sample_places(drafted, upscaler, drafted.tiers[0].cost)
    assert places == statistics.sample_places(drafted, upscaler, drafted.tiers[0].cost)
    assert len(set(places)) == len(places) > 3
    seen = sum(
        (place.y.length + 2 * upscaler.reach) * (place.x.length + 2 * upscaler.reach)
        for place in places
    )
    assert seen * upscaler.difficulty_cost(scale) <= 0.03 * drafted.tiers[0].cost * 300 * 280
    assert upscaler.difficulty_cost(scale) < drafted.tiers[0].cost
    image = picture(300, 280)
    (sampled,), (exact,) = (
        settings_of(drafted, image),
        settings_of(replace(drafted, statistics="exact"), image),
    )
    assert sampled["threshold"] == pytest.approx(exact["threshold"], abs=0.15)


def test_a_flat_image_is_all_light(stored: str) -> None:
    flat = np.full((3, 40, 50), 77, np.uint8)
    options = Options(tiers=(f"{stored}@auto",), policy=Full(), tile=24)
    made = enlarge_array(flat, options)
    assert made.plan.settings == ({"threshold": 1.0},)
    upscaler = registry.load(stored)
    light = upscaler(
        torch.full((1, 3, 40, 50), 77 / 255),
        Placement.whole((40, 50), Fraction(4)),
        settings={"threshold": 1.0},
    )
    assert light.choice is not None and not light.choice.any()


def test_of_more_pixels_than_are_clustered_each_step_keeps_its_share() -> None:
    counts = np.zeros(statistics.STEPS, np.int64)
    counts[[1000, 2000, 50000]] = [3 * statistics.MOST_VALUES, 1, statistics.MOST_VALUES]
    (threshold,) = statistics.cutoffs_of(
        [statistics.Histogram(counts, 0.0, 1.0), statistics.Histogram(counts, 0.0, 1.0)], 2
    )
    assert 2000 < threshold * statistics.STEPS < 50000


def test_calibrating_measures_rising_shares_and_replaces_a_table_of_other_weights(
    stored: str, shared: Path
) -> None:
    path = Path(stored.removeprefix("file:"))
    table_path(path).write_text(
        table_path(path).read_text().replace('"weights": "', '"weights": "00')
    )
    with pytest.raises(ValueError, match="measured with other weights"):
        registry.load(stored)
    with pytest.raises(SystemExit, match="0"):
        main(
            [
                "models",
                "calibrate",
                stored,
                "--hr",
                str(shared / "data" / "eval" / "Set14"),
                "--side",
                "24",
                "--count",
                "3",
            ]
        )
    efforts = read_efforts(path, digest_file(path))
    assert efforts is not None and efforts.control == "k"
    assert 0 < efforts.settings[0] <= 50, "of settings that cost the same, the last"
    assert list(efforts.settings) == sorted(efforts.settings, reverse=True)
    upscaler, x = registry.load(stored), smooth(1, 40, 40)
    with torch.inference_mode():
        macs = [
            upscaler(x, Placement.whole((40, 40), Fraction(4)), effort).macs.item()
            for effort in (0.0, 0.5, 0.9, 0.97, 0.999, 1.0)
        ]
    assert macs == sorted(macs)


def test_what_cannot_be_calibrated_is_refused(
    stored: str, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = str(shared / "data" / "eval" / "Set5")
    for arguments, message in (
        (["fsrcnn-x4", "--hr", photos], "has no control"),
        (["pcsr", "--hr", photos], "there is no upscaler 'pcsr'"),
        ([stored, "--hr", photos, "--side", "4000"], "holds too few photos of 16000 pixels"),
        ([stored, "--hr", str(tmp_path)], "holds no image files"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(["models", "calibrate", *arguments])
        assert message in capsys.readouterr().err


def executed(upscaler: Any, window: torch.Tensor, scale: Fraction, effort: float) -> float:
    """What an upscaler executes of its full computation on a window; of AnySR, of its encoder."""
    place = Placement.whole((window.shape[2], window.shape[3]), scale)
    if isinstance(upscaler, AnySrUpscaler):
        pixels, made = window.shape[2] * window.shape[3], upscaler(window, place, effort)
        assert made.choice is not None
        return upscaler.encoder.cost(pixels, made.choice.item()) / upscaler.encoder.cost(
            pixels, 1.0
        )
    return (upscaler(window, place, effort).macs / upscaler(window, place).macs).item()


@pytest.mark.parametrize(
    "name",
    [
        # One of them quickly, the others with all slow tests.
        name if name == "pcsr-fsrcnn-x4" else pytest.param(name, marks=pytest.mark.slow)
        for name in weights.names()
        if name != "bicubic" and table_path(registry.locate(name)).is_file()
    ],
)
def test_executed_cost_on_other_photos_is_what_was_asked_for(name: str, shared: Path) -> None:
    upscaler = registry.load(name)
    assert upscaler.efforts is not None
    scale = min(upscaler.scales) if upscaler.scales else Fraction(4)
    others = calibrate.crops(
        calibrate.Sampling(shared / "data" / "eval" / "Set14", 64, 12, 1), scale
    )
    for part in (0.25, 0.5, 0.75):
        effort = upscaler.efforts.floor + part * (1 - upscaler.efforts.floor)
        with torch.inference_mode():
            macs = np.mean([executed(upscaler, window, scale, effort) for window in others])
        assert effort - 0.10 <= macs <= effort + 0.05, (effort, macs)


@pytest.mark.parametrize(
    "name", [pytest.param("ape_edsr_b8f32_x2", marks=pytest.mark.slow), "classsr_fsrcnn_x4"]
)
def test_what_overlaps_of_tiles_cost_is_measured_as_in_a_large_window(
    name: str, shared: Path, tmp_path: Path
) -> None:
    upscaler = registry.load(calibrated(shared, name, tmp_path, {}))
    assert upscaler.efforts is not None and upscaler.scales is not None
    scale = min(upscaler.scales)
    window = calibrate.crops(
        calibrate.Sampling(shared / "data" / "eval" / "Urban100", 140, 1, 0), scale
    )[0]
    with torch.inference_mode():
        assert executed(upscaler, window, scale, 0.0) == pytest.approx(
            upscaler.efforts.floor, rel=0.1
        )


def test_a_run_freezes_what_an_array_in_memory_gets(stored: str, tmp_path: Path) -> None:
    image, output = picture(70, 60), str(tmp_path / "out.zarr")
    Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / "photo.png")
    options = Options(
        tiers=("bicubic", f"{stored}@0.7", f"{stored}@auto"), policy=Budget(0.8), tile=24
    )
    summary = upscale(tmp_path / "photo.png", output, options)
    made = enlarge_array(image, options)
    assert plan_at(output).settings == made.plan.settings
    assert [sorted(names) for names in made.plan.settings] == [[], ["k"], ["threshold"]]
    np.testing.assert_array_equal(zarr.open_array(f"{output}/0", mode="r")[:], made.pixels)
    assert summary.tiles.keys() == {"bicubic", f"{stored}@0.7", f"{stored}@auto"}
    assert summary.cost == pytest.approx(made.cost)
