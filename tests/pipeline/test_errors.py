"""What errors say fits in one line."""

import pytest

from tierscale.pipeline.errors import one_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("two\n  lines\tand tabs"), "two lines and tabs"),
        (KeyError(), "KeyError"),
        ("x" * 200, "x" * 200),
        ("x" * 201, "x" * 197 + "..."),
    ],
)
def test_an_error_is_reported_in_one_line_of_at_most_200_characters(error, line):
    assert one_line(error) == line
