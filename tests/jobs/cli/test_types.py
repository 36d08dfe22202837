"""What options take, in the ways in which people write it."""

import pytest

from tierscale.jobs.cli.types import ShareType
from tierscale.pipeline.errors import Refused


@pytest.mark.parametrize(
    ("text", "share"),
    [("1%", 0.01), ("0.01", 0.01), ("100%", 1.0), ("1", 1.0), (".5", 0.5), ("2.5 %", 0.025)],
)
def test_shares_are_written_in_two_ways(text, share):
    assert ShareType().convert(text, None, None) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "%", "x", "2", "101%", "-1%", "nan", "1e-3"])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(Refused, match="is not a share from 0 to 1; write one such as 1%"):
        ShareType().convert(text, None, None)
