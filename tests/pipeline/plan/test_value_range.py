"""Which values become 0 and 1: as asked, as measured, and as JSON knows them."""

import json

import numpy as np
import pytest

from tierscale.pipeline.plan.value_range import ValueRange, holds, limits


def test_a_measured_range_is_that_of_all_parts_and_bounds_what_comes_out():
    found = ValueRange.measured([(3.0, 8.0), (-2.0, 5.0), (np.inf, -np.inf)], -9.0)
    assert found == ValueRange(-2.0, 8.0, -2.0, 8.0, -9.0)


def test_an_image_without_any_data_has_an_empty_range():
    found = ValueRange.measured([(np.inf, -np.inf)] * 2, float("nan"))
    assert (found.low, found.high, found.floor, found.ceiling) == (0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("dtype", "bounds"),
    [
        ("uint8", (0.0, 255.0)),
        ("uint16", (0.0, 65535.0)),
        ("int16", (-32768.0, 32767.0)),
        ("bool", (0.0, 1.0)),
        ("float32", (-np.inf, np.inf)),
    ],
)
def test_a_range_that_was_asked_for_is_bounded_by_the_type_alone(dtype, bounds):
    assert limits(np.dtype(dtype)) == bounds
    found = ValueRange.fixed(10.0, 20.0, np.dtype(dtype), None)
    assert (found.low, found.high) == (10.0, 20.0) and (found.floor, found.ceiling) == bounds


@pytest.mark.parametrize("nodata", [None, 0.0, -9999.5, float("nan")])
def test_json_keeps_every_value_though_it_knows_neither_infinity_nor_nan(nodata):
    before = ValueRange(-1.5, 2.5, -np.inf, np.inf, nodata)
    text = json.dumps(before.to_json(), allow_nan=False)
    after = ValueRange.from_json(json.loads(text))
    np.testing.assert_equal(
        (after.low, after.high, after.floor, after.ceiling, after.nodata),
        (before.low, before.high, before.floor, before.ceiling, nodata),
    )


@pytest.mark.parametrize(
    ("value", "dtype", "can"),
    [
        (0.0, "uint8", True),
        (255.0, "uint8", True),
        (-9999.0, "uint8", False),
        (1.5, "uint8", False),
        (-9999.0, "int16", True),
        (float("nan"), "float32", True),
        (float("nan"), "uint8", False),
    ],
)
def test_a_value_that_its_type_cannot_hold_marks_no_pixel(value, dtype, can):
    assert holds(value, np.dtype(dtype)) is can
