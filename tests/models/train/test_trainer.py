"""Training: crops, a run that learns, and one that is interrupted."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.models.train.pictures import SMALL, pictures
from tierscale.models.contract.metrics import psnr
from tierscale.models.train.data.crops import draw
from tierscale.models.train.data.photos import Photo, photo
from tierscale.models.train.data.shrink import shrink
from tierscale.models.train.recipes import build
from tierscale.models.train.schedule import Schedule, done_share, rate_at
from tierscale.models.train.tasks import charbonnier, predict
from tierscale.models.train.trainer import (
    Reports,
    Trainer,
    TrainingPlan,
    read_state,
    save_state,
    train,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def test_crops_follow_from_the_seed_and_fit_together() -> None:
    photos = pictures()
    lr, hr = draw(photos, 8, 5, (1, 2))
    again = draw(photos, 8, 5, (1, 2))
    assert lr.shape == (5, 3, 8, 8)
    assert hr.shape == (5, 3, 16, 16)
    assert torch.equal(lr, again[0])
    assert torch.equal(hr, again[1])
    assert not torch.equal(lr, draw(photos, 8, 5, (1, 3))[0])
    middle = slice(2, 6)
    torch.testing.assert_close(
        shrink(hr, 2)[..., middle, middle], lr[..., middle, middle], atol=1e-4, rtol=0
    )


def test_the_rate_rises_then_falls_to_zero() -> None:
    schedule = Schedule(steps=100, rate=1.0, warmup=10)
    rates = [rate_at(schedule, step, done_share(schedule, step, 0)) for step in range(101)]
    assert rates[0] < rates[5] < rates[9]
    assert rates[20] > rates[60] > rates[99]
    assert rates[100] == 0
    with pytest.raises(ValueError, match="--steps or --seconds"):
        done_share(Schedule(), 0, 0)


@pytest.mark.parametrize("end", [{"steps": 20}, {"seconds": 20.0}])
def test_a_run_shorter_than_its_warm_up_reaches_the_peak_after_a_tenth(end: dict[str, Any]) -> None:
    schedule = Schedule(**end, rate=1.0, warmup=200)
    rates = [rate_at(schedule, step, step / 20) for step in range(21)]
    assert max(rates) == rates[2] > 0.97
    assert rates[0] < rates[1] < rates[2]


def test_charbonnier_is_l1_rounded_off_by_one_of_255() -> None:
    network, spec = build(SMALL, 0), SMALL
    lr = torch.rand(2, 3, 8, 8)
    made = predict(network, lr, spec).detach()
    assert charbonnier(network, lr, made, spec).item() == pytest.approx(1 / 255)
    assert charbonnier(network, lr, made + 0.5, spec).item() == pytest.approx(
        (0.25 + 1 / 255**2) ** 0.5, rel=1e-5
    )


def run(trainer: Trainer, photos: list[Photo]) -> list[float]:
    reports: list[float] = []
    train(
        trainer,
        photos,
        photos[:1],
        Reports(1e9, lambda loss, quality: reports.append(quality)),
    )
    return reports


def test_a_short_run_learns() -> None:
    photos, schedule = pictures(), Schedule(steps=150, batch=4, crop=12, rate=1e-2, warmup=5)
    trainer = Trainer(build(SMALL, 0), TrainingPlan(SMALL, schedule), torch.device("cpu"))
    before = trainer.watch(photos[:1])
    assert run(trainer, photos)[-1] > before + 1
    assert trainer.step == 150


def test_an_interrupted_run_ends_like_an_unbroken_one(tmp_path: Path) -> None:
    photos, schedule, device = (
        pictures(),
        Schedule(steps=20, batch=2, crop=8, warmup=3),
        torch.device("cpu"),
    )
    whole = Trainer(build(SMALL, 0), TrainingPlan(SMALL, schedule), device)
    run(whole, photos)

    broken = Trainer(build(SMALL, 0), TrainingPlan(SMALL, schedule), device)
    for _ in range(7):
        broken.advance(photos, 0.0)
    save_state(tmp_path / "a.pt", broken)
    resumed = Trainer(build(SMALL, 5), TrainingPlan(SMALL, schedule), device)
    resumed.restore(torch.load(tmp_path / "a.pt", weights_only=True))
    run(resumed, photos)

    assert resumed.step == whole.step == 20
    for name, tensor in whole.ema.items():
        assert torch.equal(tensor, resumed.ema[name]), name

    other = Trainer(
        build(SMALL, 0), TrainingPlan(SMALL, Schedule(steps=30, batch=2, crop=8, warmup=3)), device
    )
    with pytest.raises(ValueError, match="steps 20, not 30"):
        other.restore(torch.load(tmp_path / "a.pt", weights_only=True))
    for origin, said in (
        ({"stage": "choice"}, "stage None, not 'choice'"),
        ({"photos": "3 images ab"}, "photos None, not '3 images ab'"),
    ):
        other = Trainer(build(SMALL, 0), TrainingPlan(SMALL, schedule, origin=origin), device)
        with pytest.raises(ValueError, match=said):
            other.restore(torch.load(tmp_path / "a.pt", weights_only=True))


def test_a_run_in_seconds_ends_within_them_and_so_does_a_resumed_one(tmp_path: Path) -> None:
    photos, schedule, device = (
        pictures(),
        Schedule(seconds=1.5, batch=2, crop=8),
        torch.device("cpu"),
    )
    broken = Trainer(build(SMALL, 0), TrainingPlan(SMALL, schedule), device)
    until = time.monotonic() + 0.5
    train(
        broken,
        photos,
        photos[:1],
        Reports(1e9, lambda loss, quality: None),
        lambda: time.monotonic() > until,
    )
    assert 0.4 < broken.elapsed < 1.5
    save_state(tmp_path / "a.pt", broken)
    resumed, began = (
        Trainer(build(SMALL, 5), TrainingPlan(SMALL, schedule), device),
        time.monotonic(),
    )
    resumed.restore(read_state(tmp_path / "a.pt", "cpu"))
    run(resumed, photos)
    # Elapsed time is that of both runs; the step that is being done at the end is finished.
    assert time.monotonic() - began < resumed.elapsed
    assert 1.5 <= resumed.elapsed < 3
    assert resumed.step > broken.step
    assert resumed.optimiser.param_groups[0]["lr"] < 0.1 * schedule.rate


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e5])
def test_weights_that_cannot_be_stored_end_a_run(value: float) -> None:
    trainer = Trainer(build(SMALL, 0), TrainingPlan(SMALL, Schedule(steps=2)), torch.device("cpu"))
    trainer.check(0.1)
    for loss in (float("nan"), float("inf")):
        with pytest.raises(FloatingPointError, match="diverged"):
            trainer.check(loss)
    # Not the first, so that a comparison with NaN cannot hide it.
    next(reversed(trainer.ema.values())).fill_(value)
    with pytest.raises(FloatingPointError, match="--rate well below"):
        trainer.check(0.1)


def test_what_is_watched_is_the_middle_or_all_of_it() -> None:
    rng, trainer = (
        np.random.default_rng(0),
        Trainer(build(SMALL, 0), TrainingPlan(SMALL, Schedule(steps=1)), torch.device("cpu")),
    )
    # A flat middle of 64 input pixels, and noise around it.
    pixels = rng.integers(0, 255, (3, 300, 260), np.uint8)
    pixels[:, 80:220, 60:200] = 100
    seen = photo("a", torch.from_numpy(pixels), 2)
    lr, hr = seen.lr[None], seen.hr / 255
    trainer.network.eval()
    with torch.inference_mode():
        assert trainer.watch([seen], None) == pytest.approx(
            psnr(predict(trainer.network, lr, SMALL)[0], hr, 2)
        )
    assert trainer.watch([seen]) > trainer.watch([seen], None) + 5
