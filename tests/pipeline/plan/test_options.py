"""Options are valid once constructed; scales are exact."""

import math
import pickle
from dataclasses import replace
from fractions import Fraction

import pytest

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.plan.options import Options, Selection, parse_scale
from tierscale.pipeline.plan.policies import Budget, Deadline, Full, MaxLoss, Threshold


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scale": Fraction(1, 2)}, "scale 1/2 is not between 1 and 64"),
        ({"scale": Fraction(65)}, "scale 65 is not between 1 and 64"),
        ({"scale": Fraction(1001, 1000)}, "would need tiles of 1000 pixels; write 1.0"),
        ({"tile": 7}, "a tile of 7 pixels is not between 8 and 4096"),
        ({"tile": 4097}, "a tile of 4097 pixels"),
        ({"blend": -1}, "a blend of -1 pixels is not between 0 and half the tile"),
        ({"tile": 16, "blend": 9}, r"half the tile \(8\)"),
        ({"value_range": (2.0, 2.0)}, "a range from 2 to 2 does not rise"),
        ({"value_range": (0.0, math.inf)}, "a range from 0 to inf"),
        ({"value_range": (math.nan, 1.0)}, "a range from nan to 1"),
    ],
)
def test_what_cannot_be_is_refused_with_its_value(wrong, message):
    with pytest.raises(Refused, match=message):
        Options(**wrong)


def test_the_ends_of_what_can_be_are_taken():
    least = Options(scale=Fraction(1), tile=8, blend=4)
    assert (least.scale, least.tile, least.blend) == (1, 8, 4)
    most = Options(scale=Fraction(64), tile=4096, blend=0, value_range=(-1.5, 0.0))
    assert (most.scale, most.tile, most.blend) == (64, 4096, 0)
    assert most.value_range == (-1.5, 0.0)


def test_options_are_values():
    assert Options() == Options() and hash(Options()) == hash(Options())
    assert Options() != Options(tile=64)
    assert Options(series=2, level=1, z=3, t=4).selection == Selection(2, 1, 3, 4)


@pytest.mark.parametrize(
    ("text", "scale"),
    [
        ("4", Fraction(4)),
        (" 2.7 ", Fraction(27, 10)),
        ("5/2", Fraction(5, 2)),
        (3, Fraction(3)),
        (7 / 3, Fraction(7, 3)),
        (2.7, Fraction(27, 10)),
        (Fraction(8, 5), Fraction(8, 5)),
    ],
)
def test_scales_are_read_exactly(text, scale):
    assert parse_scale(text) == scale


@pytest.mark.parametrize("text", ["four", "1e3", "1e999999999", "1/0", "", "nan", math.inf])
def test_a_scale_that_is_no_number_is_refused(text):
    with pytest.raises(Refused, match="neither a number nor a fraction"):
        parse_scale(text)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ({"scale": "5/2"}, {"scale": Fraction(5, 2)}),
        ({"scale": 2.5}, {"scale": Fraction(5, 2)}),
        ({"scale": 3}, {"scale": Fraction(3)}),
        ({"tiers": "bicubic, edsr-x4"}, {"tiers": ("bicubic", "edsr-x4")}),
        ({"policy": "full"}, {"policy": Full()}),
        ({"policy": "dearest"}, {"policy": Full()}),
    ],
)
def test_options_take_what_people_write(written, meant):
    assert Options(**written) == Options(**meant)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ({"scale": "much"}, "a scale 'much' is neither"),
        ({"policy": "luck"}, "there is no policy 'luck'"),
        ({"policy": 0.3}, "0.3 is not a policy"),
        ({"policy": "budget"}, "policy budget needs a number"),
        ({"tile": "a"}, "a tile of 'a' is not a whole number"),
        ({"blend": True}, "a blend of True is not a whole number"),
    ],
)
def test_options_of_a_wrong_kind_are_refused(written, words):
    with pytest.raises(Refused, match=words):
        Options(**written)


@pytest.mark.parametrize("policy", [Budget, MaxLoss, Deadline, Threshold])
@pytest.mark.parametrize("value", ["x", True, None])
def test_a_policy_takes_numbers_alone(policy, value):
    with pytest.raises(Refused, match="is not a number"):
        policy(value)


def test_options_know_what_was_written():
    assert Options().written == frozenset()
    options = Options(2, tile=128, tiers=None)
    assert options.written == {"scale", "tile"}, "a default that was written counts, None does not"
    assert options == Options(scale=2) and hash(options) == hash(Options(scale=2))
    assert pickle.loads(pickle.dumps(options)).written == {"scale", "tile"}


def test_options_that_are_altered_count_as_written():
    options = Options(tile=64)
    assert options.altered(blend=2).written == {"tile", "blend"}
    found = options.completed(tile=32, blend=2)
    assert (found.tile, found.blend, found.written) == (64, 2, {"tile"})
    # A copy by hand is strict: nothing of it is taken for a default.
    assert {"tile", "blend", "policy", "scale"} <= replace(options, blend=2).written
    with pytest.raises(Refused, match="a tile of 3 pixels"):
        options.altered(tile=3)
