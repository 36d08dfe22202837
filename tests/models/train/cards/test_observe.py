"""What is seen of photos: whole tiles, errors against the truth, differences between results."""

from fractions import Fraction

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from tierscale.models import registry
from tierscale.models.train.cards.observe import Observing, middle, observe, observe_photo

FOUR = Fraction(4)
NAMES = ("bicubic", "fsrcnn-x4")
COFFEE = torch.from_numpy(skimage.data.coffee()).permute(2, 0, 1)[:, :256, :512] / 255


@pytest.fixture(scope="module")
def how():
    networks = {name: registry.load(name) for name in NAMES}
    scorers = {"fsrcnn-x4": networks["fsrcnn-x4"]}
    return Observing(networks, scorers, ("clean", "grain8"), FOUR, 60.0)


def test_errors_are_those_against_the_truth_and_differences_those_between_results(how):
    seen = observe_photo("coffee", COFFEE, "clean", how)
    assert seen.errors.shape == (2, 2) and seen.apart.shape == (2, 2, 2)
    assert (seen.errors[:, 1] < seen.errors[:, 0]).all()
    assert (seen.apart[:, 0, 0] == 0).all()
    np.testing.assert_array_equal(seen.apart[:, 0, 1], seen.apart[:, 1, 0])
    # The score sees each tile alone, the difference of results sees it among its neighbours.
    np.testing.assert_allclose(seen.scores["fsrcnn-x4"], seen.apart[:, 0, 1], rtol=0.2)
    assert (seen.scores["energy"] > 0).all()


def test_damage_is_seen_too_and_alike_each_time(how):
    clean, grain, again = (
        observe_photo("coffee", COFFEE, kind, how) for kind in ("clean", "grain8", "grain8")
    )
    assert (grain.errors > clean.errors).all()
    np.testing.assert_array_equal(grain.errors, again.errors)


def test_photos_of_all_folders_in_all_kinds(how, tmp_path):
    for folder, size in (("a", (300, 600)), ("b", (100, 900))):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(tmp_path / folder / f"{folder}.png")
    told: list[tuple[int, int]] = []
    seen = observe([tmp_path / "a", tmp_path / "b"], how, lambda *done: told.append(done))
    assert [(one.photo, one.kind, len(one.errors)) for one in seen] == [
        ("a.png", "clean", 2),
        ("a.png", "grain8", 2),
    ]
    assert told == [(1, 2), (2, 2)]
    with pytest.raises(ValueError, match="has 256 pixels a side"):
        observe([tmp_path / "b"], how)


def test_the_middle_is_whole_tiles():
    assert middle(torch.zeros(3, 1000, 300), FOUR).shape == (3, 768, 256)
    assert middle(torch.zeros(3, 1000, 200), FOUR).numel() == 0
