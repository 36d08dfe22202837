"""Fitting a scout."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from tierscale.models.scout import Scout, read_scout, write_scout
from tierscale.models.train.scouting import fit as fitting
from tierscale.models.train.scouting import observe

pytestmark = pytest.mark.usefixtures("one_thread")


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
    guess = scout(torch.stack([stripes, noise]))
    saved = guess[:, 0] - guess[:, 1]
    assert saved[0] == pytest.approx(9e-4, rel=0.3) and saved[1] < 3e-4


def test_a_dear_tier_that_errs_more_is_predicted_to(tmp_path: Path) -> None:
    rng, samples = np.random.default_rng(0), []
    for index in range(6):
        lr = torch.from_numpy(rng.random((3, 64, 64), np.float32))
        errors = torch.stack([torch.full((64, 64), error) for error in (3e-3, 1e-3, 2e-3)])
        samples.append(observe.Sample(lr, errors, errors, str(index)))
    scout = Scout(("a", "b", "c"), ("0", "1", "2"), Fraction(4))
    fitting.fit(scout, samples, fitting.Schedule(steps=60, batch=8, rate=3e-3))
    guess = scout(samples[0].lr[None])[0]
    assert guess.tolist() == pytest.approx([3e-3, 1e-3, 2e-3], rel=0.1)
    write_scout(tmp_path / "s.safetensors", scout)
    assert torch.equal(read_scout(tmp_path / "s.safetensors")(samples[0].lr[None])[0], guess)


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
