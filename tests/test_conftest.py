"""Tests that need the reference data: skipped where there are none, failed where they should be."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, fail_hidden_skip, reference_expected

PROBE = """
import pytest

@pytest.mark.skipif(True, reason="no evaluation images at x; set TIERSCALE_SHARED")
def test_marked(): ...

def test_of_the_fixture(shared): ...

@pytest.mark.skip(reason="needs another machine")
def test_skipped_for_another_reason(): ...
"""


def skipped(reason: str) -> pytest.TestReport:
    place = ("tests/test_a.py", 1, f"Skipped: {reason}")
    return pytest.TestReport("test_a", ("", 0, ""), {}, "skipped", place, "call")


@pytest.mark.parametrize(
    ("reason", "expected", "outcome"),
    [
        ("no reference data at x; set TIERSCALE_SHARED", True, "failed"),
        ("no reference data at x; set TIERSCALE_SHARED", False, "skipped"),
        ("needs another machine", True, "skipped"),
    ],
)
def test_a_skip_fails_only_where_the_data_should_be(reason, expected, outcome):
    report = skipped(reason)
    fail_hidden_skip(report, expected)
    assert report.outcome == outcome


def test_the_data_are_expected_by_the_variable_or_by_the_folder(tmp_path):
    missing = tmp_path / "shared"
    assert not reference_expected({}, missing)
    assert not reference_expected({"TIERSCALE_SHARED": ""}, missing)
    assert reference_expected({"TIERSCALE_SHARED": "/anywhere"}, missing)
    assert reference_expected({}, tmp_path)


@pytest.mark.slow
def test_pytest_fails_on_a_skip_for_missing_data_that_should_be_here(tmp_path):
    folder = tmp_path / "tests"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "conftest.py").write_text((ROOT / "tests/conftest.py").read_text())
    (folder / "test_probe.py").write_text(PROBE)

    def pytest_on(shared: Path | None) -> str:
        environment = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        environment |= {"TIERSCALE_SHARED": str(shared)} if shared else {}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
        )
        return f"{done.returncode}: {done.stdout.splitlines()[-1]}"

    assert pytest_on(None).startswith("0: 3 skipped")
    assert pytest_on(tmp_path / "nowhere").startswith("1: 1 skipped, 2 errors")
