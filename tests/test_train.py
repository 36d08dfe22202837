"""Training: crops, a run that learns, one that is interrupted, and the tasks of all methods."""

import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.reproduce.narrow import narrow
from tierscale.models.backbones.carn import Carn
from tierscale.models.backbones.edsr import Edsr
from tierscale.models.contract.checkpoints import Checkpoint, ModelSpec
from tierscale.models.contract.metrics import psnr
from tierscale.models.contract.upscaler import Placement, hr_length
from tierscale.models.runtime.resample import resample
from tierscale.models.train.methods import adadsr, anysr
from tierscale.models.train.photos import Photo, draw, photo
from tierscale.models.train.recipes import STAGES, build, recipe, warm_start
from tierscale.models.train.schedule import Schedule, done_share, rate_at
from tierscale.models.train.shrink import shrink
from tierscale.models.train.tasks import charbonnier, predict
from tierscale.models.train.trainer import (
    Reports,
    Trainer,
    TrainingPlan,
    read_state,
    save_state,
    train,
)

SMALL = ModelSpec(
    "fsrcnn", 2, {"features": 8, "narrow": 4, "mapping": 1}, (0.4, 0.4, 0.4), "bilinear"
)


pytestmark = pytest.mark.usefixtures("one_thread")


def pictures(count: int = 3, side: int = 64) -> list[Photo]:
    """Stripes and ramps at random angles."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    found = []
    for index in range(count):
        waves = [np.sin(a * y + b * x + c) for a, b, c in rng.uniform(-0.8, 0.8, (3, 3))]
        found.append(
            photo(str(index), torch.from_numpy((np.stack(waves) * 120 + 127).astype(np.uint8)), 2)
        )
    return found


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


def test_a_warm_start_takes_what_fits() -> None:
    spec, _ = recipe("fsrcnn-x2")
    source, network = build(recipe("fsrcnn-x4")[0], 3), build(spec, 4)
    assert warm_start(network, source.state_dict()) == []
    carn, larger = build(recipe("carn-x2")[0], 0), build(recipe("carn-x4")[0], 1)
    assert warm_start(carn, larger.state_dict()) == []
    assert torch.equal(carn.state_dict()["entry.weight"], larger.state_dict()["entry.weight"])
    shallow, deeper = Edsr(4, 2, 8), Edsr(4, 5, 8)
    assert warm_start(deeper, shallow.state_dict())[0] == "blocks.2.first.bias"
    lr = torch.rand(1, 3, 9, 9)
    torch.testing.assert_close(deeper(lr), shallow(lr), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="no recipe for 'carn-x5'"):
        recipe("carn-x5")


def test_the_regressor_and_the_budget_and_the_choice_learn() -> None:
    """Every stage of every method moves what it says it moves, and nothing else."""
    for name in ("pcsr-carn-x2", "pcsr-fsrcnn-x2", "ape-edsr-x2", "adaedsr-x2"):
        spec, _ = recipe(name)
        known = STAGES[spec.network](spec)
        for stage, what in known.items():
            network = build(spec, 0)
            before = {key: value.clone() for key, value in network.state_dict().items()}
            schedule = Schedule(steps=2, batch=2, crop=6, warmup=1, rate=1e-3)
            plan = TrainingPlan(spec, schedule, what)
            trainer = Trainer(network, plan, torch.device("cpu"))
            assert trainer.advance(pictures(side=48), 0.0).isfinite()
            trainer.advance(pictures(side=48), 0.0)
            moved = {
                key
                for key, value in network.state_dict().items()
                if not torch.equal(value, before[key])
            }
            assert moved, (name, stage)
            assert all(key.startswith(what.trained) for key in moved if what.trained), (
                name,
                stage,
                moved,
            )


@pytest.mark.parametrize(("features", "groups"), [(6, 3), (4, 2)])
def test_a_narrower_network_keeps_the_channels_that_carry(features: int, groups: int) -> None:
    """Of a network where only some channels carry anything, exactly those stay, and what it makes
    is the same.
    """
    torch.manual_seed(0)
    wide = Carn(scale=2, features=9, groups=3)
    alive = torch.tensor([1, 2, 4, 5, 6, 8] if groups == 3 else [0, 2, 6, 7])
    dead = torch.ones(9).scatter_(0, alive, 0).bool()
    tensors = {name: tensor.clone() for name, tensor in wide.state_dict().items()}
    for name, tensor in tensors.items():
        if not name.startswith("exit"):
            tensor[dead.repeat_interleave(len(tensor) // 9)] = 0
    wide.load_state_dict(tensors)
    photos = [torch.rand(3, 12, 12) - 0.5]
    made = narrow(
        Checkpoint(ModelSpec("carn", 2, {"features": 9, "groups": 3}), tensors),
        features,
        photos,
        groups,
    )
    slim = Carn(scale=2, **made.spec.arguments)
    slim.load_state_dict(made.tensors)
    torch.testing.assert_close(slim(photos[0][None]), wide(photos[0][None]), atol=1e-6, rtol=1e-5)


def test_what_cannot_be_narrowed_is_refused() -> None:
    checkpoint = Checkpoint(ModelSpec("carn", 2, {"features": 9, "groups": 3}), {})
    for features, groups in ((9, 3), (5, 3), (6, 1), (8, 4)):
        with pytest.raises(ValueError, match="cannot be narrowed"):
            narrow(checkpoint, features, [], groups)


def test_anysr_learns_from_each_crop_at_its_own_place() -> None:
    spec = ModelSpec(
        "anysr",
        0,
        {
            "encoder_arguments": {"blocks": 1, "features": 8},
            "head": "liif",
            "head_arguments": {"hidden": [8]},
        },
    )
    network, lr = build(spec, 0), torch.rand(3, 3, 12, 12)
    for scale in (Fraction(2), Fraction(27, 10)):
        with torch.no_grad():
            together = anysr.enlarge(network, lr, spec, scale, 0.5)
            alone = [anysr.enlarge(network, one, spec, scale, 0.5) for one in lr.split(1)]
        torch.testing.assert_close(together, torch.cat(alone))
    with pytest.raises(ValueError, match="3 windows cannot lie at 1 places"):
        resample(lr, Placement.whole((12, 12), Fraction(27, 10)))


def test_anysr_learns_full_width_in_every_batch_and_the_least_in_half(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And a third of the batches has the largest scale."""
    asked: list[tuple[Fraction, float]] = []

    def enlarge(network: Any, lr: Any, spec: ModelSpec, scale: Fraction, width: float) -> Any:
        asked.append((scale, width))
        return torch.zeros(
            *lr.shape[:2], hr_length(lr.shape[2], scale), hr_length(lr.shape[3], scale)
        )

    monkeypatch.setattr(anysr, "enlarge", enlarge)
    spec, _ = recipe("anysr-edsr")
    torch.manual_seed(0)
    crops = torch.rand(400, 1, 3, 16, 16)
    for lr in crops:
        hr = lr.repeat_interleave(4, 2).repeat_interleave(4, 3)
        anysr.STAGES["whole"].loss(torch.nn.Identity(), lr, hr, spec)
    scales, widths = (list(column) for column in zip(*asked, strict=True))
    assert min(scales) == Fraction(11, 10)
    assert widths[::2] == [1.0] * len(crops)
    assert 0.4 < np.mean(np.equal(widths[1::2], 0.5)) < 0.6
    assert set(widths[1::2]) == set(anysr.WIDTHS)
    assert 0.28 < np.mean(np.equal(scales, 4)) < 0.42


def test_adadsr_shares_a_budget_in_a_batch_and_trains_the_full_network_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    budgets: list[Any] = []
    full: list[Any] = []
    at_budget, in_full = adadsr.enlarge, adadsr.enlarge_in_full
    monkeypatch.setattr(
        adadsr, "enlarge", lambda *rest: (budgets.append(rest[-1]), at_budget(*rest))[1]
    )
    monkeypatch.setattr(
        adadsr, "enlarge_in_full", lambda *rest: (full.append(rest[0]), in_full(*rest))[1]
    )
    spec = ModelSpec("adadsr", 2, {"blocks": 4, "features": 8}, (0.4, 0.4, 0.4), "bilinear")
    network, lr, hr = build(spec, 0), torch.rand(6, 3, 8, 8), torch.rand(6, 3, 16, 16)
    assert adadsr.STAGES["whole"].loss(network, lr, hr, spec).isfinite()
    assert len(full) == len(budgets) == 1
    assert len(set(budgets[0].tolist())) == 1
    assert 0.4 <= budgets[0][0] <= 4


def test_a_task_refuses_a_network_that_it_is_not_for() -> None:
    with pytest.raises(TypeError, match="trains Adadsr, not Identity"):
        adadsr.STAGES["whole"].loss(torch.nn.Identity(), torch.rand(1), torch.rand(1), SMALL)
