"""No output pixel changes by accident: every golden run gives what is on record for it."""

import numpy as np
import pytest

from tests.golden.runs import (
    BY_NAME,
    RUNS,
    SAME,
    TOLERANCE,
    check,
    described,
    differences,
    environment,
    recorded,
)


def marks(run):
    return () if run.quick else pytest.mark.slow


@pytest.mark.parametrize("name", [pytest.param(run.name, marks=marks(run)) for run in RUNS])
def test_a_run_gives_the_pixels_on_record(name, tmp_path):
    differences, way = check(BY_NAME[name], tmp_path)
    assert not differences, f"compared by {way}: {'; '.join(differences)}"


def test_every_run_is_on_record_and_every_record_is_run():
    record = recorded()
    assert list(record["runs"]) == [run.name for run in RUNS]
    assert record["environment"].keys() == environment().keys()
    for name, base in SAME.items():
        assert record["runs"][name] == record["runs"][base], "they must agree to the last bit"


@pytest.mark.parametrize(
    ("change", "exact", "seen"),
    [(0, True, False), (1, True, True), (1, False, False), (40, False, True)],
)
def test_a_comparison_sees_what_it_promises(change, exact, seen):
    """A value that is off by 1 is seen by SHA-256 and forgiven by the signature; more is not."""
    values = np.arange(3 * 64 * 64, dtype=np.int64).reshape(3, 64, 64) % 251
    changed = values.copy()
    changed[1, :8, :8] += change if change > 1 else 0
    changed[1, 3, 3] += change == 1
    one, two = (described(array.astype(np.uint8)) for array in (values, changed))
    old, new = (
        {"out": {"tiles": {"bicubic": 4}, "arrays": {"0": levels}}} for levels in (one, two)
    )
    assert bool(differences(old, new, exact)) == seen, f"tolerance {TOLERANCE}"
