"""What routing is told of an image: scores that are numbers, shares that can be asked for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierscale.pipeline.routing.problem import (
    RoutingProblem,
    all_full,
    all_light,
    check_scores,
    round_up,
    total,
)


@given(st.floats(1e-9, 1))
def test_a_share_that_is_named_is_no_less_than_it_is(share):
    assert share <= float(round_up(share)) <= share * 1.011


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_no_number_names_its_tile(value):
    errors = np.zeros((6, 2))
    errors[4, 1] = value
    with pytest.raises(ValueError, match=r"tile \(row 1, column 1\)"):
        check_scores(errors, 3)
    check_scores(np.zeros((6, 2)), 3)


def test_errors_of_large_tiles_weigh_by_their_pixels():
    errors = np.array([[0.2, 0.1], [0.4, 0.3]])
    problem = RoutingProblem((1.0, 2.0), lambda routes: 0.0, areas=np.array([10.0, 1.0]))
    weighed = problem.weigh(errors)
    np.testing.assert_allclose(weighed, [[2.0, 1.0], [0.4, 0.3]])
    assert total(weighed, np.array([1, 0])) == pytest.approx(1.4)
    assert RoutingProblem((1.0, 2.0), lambda routes: 0.0).weigh(errors) is errors


def test_one_tier_everywhere_is_the_first_or_the_last():
    errors = np.zeros((5, 3))
    assert all_light(errors).tolist() == [0] * 5 and all_full(errors).tolist() == [2] * 5
    assert all_light(errors).dtype == all_full(errors).dtype == np.int64
