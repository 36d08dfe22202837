"""Training: the shrink, crops, a run that learns, and one that is interrupted."""

import json
import os
import signal
import threading
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import models
from jobs.train import main
from models.carn import Carn
from models.edsr import Edsr
from models.resample import resample
from models.train import anysr
from models.train.degrade import shrink, shrink_matrix, shrunk_length
from models.train.narrow import narrow
from models.train.photos import Photo, centre_crop, draw, hold_out, photo
from models.train.plain import Schedule, Trainer, done_share, rate_at, save_state, train
from models.train.recipes import STAGES, build, recipe, warm_start
from models.upscaler import Placement
from models.weights import Blueprint, Checkpoint

SMALL = Blueprint("fsrcnn", 2, {"features": 8, "narrow": 4, "mapping": 1}, (0.4, 0.4, 0.4), "bilinear")


pytestmark = pytest.mark.usefixtures("one_thread")


def pictures(count: int = 3, side: int = 64) -> list[Photo]:
    """Stripes and ramps at random angles."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    found = []
    for index in range(count):
        waves = [np.sin(a * y + b * x + c) for a, b, c in rng.uniform(-0.8, 0.8, (3, 3))]
        found.append(photo(str(index), torch.from_numpy((np.stack(waves) * 120 + 127).astype(np.uint8)), 2))
    return found


@given(length=st.integers(1, 200), p=st.integers(1, 40), q=st.integers(1, 10))
@settings(max_examples=60, deadline=None)
def test_shares_of_a_shrunk_pixel_add_up_to_one(length: int, p: int, q: int) -> None:
    scale = max(Fraction(1), Fraction(p, q))
    weights = shrink_matrix(length, scale)
    assert weights.shape == (shrunk_length(length, scale), length)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(len(weights), dtype=torch.float64))


def test_shrinking_keeps_flat_areas_and_is_symmetric() -> None:
    assert torch.allclose(shrink(torch.full((3, 17, 20), 0.3), 4), torch.tensor(0.3))
    x = torch.rand(1, 24, 36)
    torch.testing.assert_close(shrink(x, 4).flip(1, 2), shrink(x.flip(1, 2), 4))
    torch.testing.assert_close(shrink(x, 1), x)
    with pytest.raises(ValueError, match="1/2"):
        shrink(x, Fraction(1, 2))


def test_halving_weighs_eight_pixels() -> None:
    # The cubic of twice the width at distances 0.25, 0.75, 1.25, 1.75: the taps that imresize uses for a factor of 0.5.
    row = shrink_matrix(16, Fraction(2))[4]
    near = [0.43359375, 0.11328125, -0.03515625, -0.01171875]
    assert row.tolist() == pytest.approx([0] * 5 + near[::-1] + near + [0] * 3)


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
    torch.testing.assert_close(shrink(hr, 2)[..., middle, middle], lr[..., middle, middle], atol=1e-4, rtol=0)


def test_watched_photos_are_not_trained_on() -> None:
    photos = pictures(30)
    trained, watched = hold_out(photos)
    assert {p.name for p in trained}.isdisjoint({p.name for p in watched})
    assert len(trained) + len(watched) == 30
    assert hold_out(photos[:1]) == (photos[:1], photos[:1])


def test_centre_crop_leaves_multiples() -> None:
    x = torch.arange(5 * 7).view(1, 5, 7)
    assert centre_crop(x, 4).tolist() == [[[1 + 7 * row + column for column in range(4)] for row in range(4)]]


def test_the_rate_rises_then_falls_to_zero() -> None:
    schedule = Schedule(steps=100, rate=1.0, warmup=10)
    rates = [rate_at(schedule, step, done_share(schedule, step, 0)) for step in range(101)]
    assert rates[0] < rates[5] < rates[9]
    assert rates[20] > rates[60] > rates[99]
    assert rates[100] == 0
    with pytest.raises(ValueError, match="--steps or --seconds"):
        done_share(Schedule(), 0, 0)


def run(trainer: Trainer, photos: list[Photo]) -> list[float]:
    reports: list[float] = []
    train(trainer, photos, photos[:1], 1e9, lambda loss, quality: reports.append(quality))
    return reports


def test_a_short_run_learns() -> None:
    photos, schedule = pictures(), Schedule(steps=150, batch=4, crop=12, rate=1e-2, warmup=5)
    trainer = Trainer(build(SMALL, 0), SMALL, schedule, torch.device("cpu"))
    before = trainer.watch(photos[:1])
    assert run(trainer, photos)[-1] > before + 1
    assert trainer.step == 150


def test_an_interrupted_run_ends_like_an_unbroken_one(tmp_path: Path) -> None:
    photos, schedule, device = pictures(), Schedule(steps=20, batch=2, crop=8, warmup=3), torch.device("cpu")
    whole = Trainer(build(SMALL, 0), SMALL, schedule, device)
    run(whole, photos)

    broken = Trainer(build(SMALL, 0), SMALL, schedule, device)
    for _ in range(7):
        broken.advance(photos, 0.0)
    save_state(tmp_path / "a.pt", broken)
    resumed = Trainer(build(SMALL, 5), SMALL, schedule, device)
    resumed.restore(torch.load(tmp_path / "a.pt", weights_only=True))
    run(resumed, photos)

    assert resumed.step == whole.step == 20
    for name, tensor in whole.ema.items():
        assert torch.equal(tensor, resumed.ema[name]), name

    other = Trainer(build(SMALL, 0), SMALL, Schedule(steps=30, batch=2, crop=8, warmup=3), device)
    with pytest.raises(ValueError, match="steps 20, not 30"):
        other.restore(torch.load(tmp_path / "a.pt", weights_only=True))


def test_a_warm_start_takes_what_fits() -> None:
    blueprint, _ = recipe("fsrcnn-x2")
    source, network = build(recipe("fsrcnn-x4")[0], 3), build(blueprint, 4)
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


def test_the_command_writes_weights_card_log_and_plot(tmp_path: Path) -> None:
    for index in range(2):
        Image.fromarray(np.random.default_rng(index).integers(0, 255, (70, 80, 3), np.uint8)).save(tmp_path / f"{index}.png")
    options = ["--hr", str(tmp_path), "--steps", "3", "--batch", "2", "--crop", "16", "--threads", "1", "--out", str(tmp_path / "out")]
    assert main(["fsrcnn-x4", *options]) == 0
    out = tmp_path / "out"
    assert models.load(f"file:{out / 'fsrcnn-x4.safetensors'}").scales == frozenset({Fraction(4)})
    assert json.loads((out / "fsrcnn-x4.json").read_text())["steps"] == 3
    assert (out / "fsrcnn-x4.csv").read_text().startswith("step,seconds,loss,psnr\n3,")
    with Image.open(out / "fsrcnn-x4.png") as drawn:
        assert drawn.size == (960, 540)
    assert main(["fsrcnn-x4", *options[:2], "--resume", str(out / "fsrcnn-x4.pt"), *options[2:]]) == 0
    assert main(["carn-x4", *options[:2], "--resume", str(out / "fsrcnn-x4.pt"), *options[2:]]) == 2


def test_the_command_answers_with_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["fsrcnn-x4", "--hr", str(tmp_path), "--steps", "1", "--out", str(tmp_path / "out")]

    def said(*more: str) -> str:
        assert main([*line, *more]) == 2
        told = capsys.readouterr().err
        assert told.count("\n") == 1
        return told

    assert "holds no image files" in said()
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    assert "which crops of 32 at scale 4 need" in said()
    (tmp_path / "b.pt").write_bytes(b"nothing")
    assert "no checkpoint of a training run" in said("--resume", str(tmp_path / "b.pt"))
    assert "no file" in said("--resume", str(tmp_path / "c.pt"))
    assert "no stage 'choice'" in said("--stage", "choice")
    assert "did you mean fsrcnn-x4" in said("--init", "fsrcn-x4")
    (tmp_path / "c.jpg").write_bytes(b"nothing")
    assert "cannot be decoded" in said()


def test_a_full_disk_leaves_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (140, 140, 3), np.uint8)).save(tmp_path / "a.png")
    line = ["fsrcnn-x4", "--hr", str(tmp_path), "--batch", "2", "--threads", "1", "--out", str(tmp_path / "out")]
    assert main([*line, "--steps", "2"]) == 0
    kept = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.[ps][ta]*")}
    assert {"fsrcnn-x4.pt", "fsrcnn-x4.safetensors"} <= kept.keys()

    def full(path: Path, content: bytes) -> int:
        path.open("wb").close()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert main([*line, "--steps", "3"]) == 1
    assert "No space left" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.[ps][ta]*")} == kept


def test_a_stopped_run_keeps_what_it_did_and_says_how_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (140, 140, 3), np.uint8)).save(tmp_path / "a.png")
    line = ["fsrcnn-x4", "--hr", str(tmp_path), "--batch", "2", "--threads", "1", "--steps", "100000", "--out", str(tmp_path / "out")]
    threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
    assert main(line) == 143
    assert "--resume" in capsys.readouterr().err
    assert 0 < json.loads((tmp_path / "out" / "fsrcnn-x4.json").read_text())["steps"] < 100000


def test_the_regressor_and_the_budget_and_the_choice_learn() -> None:
    """Every stage of every method moves what it says it moves, and nothing else."""
    for name in ("pcsr-carn-x2", "pcsr-fsrcnn-x2", "ape-edsr-x2", "adaedsr-x2"):
        blueprint, _ = recipe(name)
        known = STAGES[blueprint.network](blueprint)
        for stage, what in known.items():
            network = build(blueprint, 0)
            before = {key: value.clone() for key, value in network.state_dict().items()}
            trainer = Trainer(network, blueprint, Schedule(steps=2, batch=2, crop=6, warmup=1, rate=1e-3), torch.device("cpu"), what)
            assert trainer.advance(pictures(side=48), 0.0).isfinite()
            trainer.advance(pictures(side=48), 0.0)
            moved = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
            assert moved, (name, stage)
            assert all(key.startswith(what.trained) for key in moved if what.trained), (name, stage, moved)


@pytest.mark.parametrize(("features", "groups"), [(6, 3), (4, 2)])
def test_a_narrower_network_keeps_the_channels_that_carry(features: int, groups: int) -> None:
    """Of a network where only some channels carry anything, exactly those stay, and what it makes is the same."""
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
    made = narrow(Checkpoint(Blueprint("carn", 2, {"features": 9, "groups": 3}), tensors), features, photos, groups)
    slim = Carn(scale=2, **made.blueprint.arguments)
    slim.load_state_dict(made.tensors)
    torch.testing.assert_close(slim(photos[0][None]), wide(photos[0][None]), atol=1e-6, rtol=1e-5)


def test_what_cannot_be_narrowed_is_refused() -> None:
    checkpoint = Checkpoint(Blueprint("carn", 2, {"features": 9, "groups": 3}), {})
    for features, groups in ((9, 3), (5, 3), (6, 1), (8, 4)):
        with pytest.raises(ValueError, match="cannot be narrowed"):
            narrow(checkpoint, features, [], groups)


def test_anysr_learns_from_each_crop_at_its_own_place() -> None:
    blueprint = Blueprint(
        "anysr", 0, {"encoder_arguments": {"blocks": 1, "features": 8}, "head": "liif", "head_arguments": {"hidden": [8]}}
    )
    network, lr = build(blueprint, 0), torch.rand(3, 3, 12, 12)
    for scale in (Fraction(2), Fraction(27, 10)):
        with torch.no_grad():
            together = anysr.enlarged(network, lr, blueprint, scale, 0.5)
            alone = [anysr.enlarged(network, one, blueprint, scale, 0.5) for one in lr.split(1)]
        torch.testing.assert_close(together, torch.cat(alone))
    with pytest.raises(ValueError, match="3 windows cannot lie at 1 places"):
        resample(lr, Placement.whole((12, 12), Fraction(27, 10)))
