"""What several test modules share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The reference data; tests that need it are skipped, visibly, where it is absent."""
    path = Path(os.environ.get("TIERSCALE_SHARED", Path(__file__).parents[1] / ".." / "shared")).resolve()
    if not (path / "data").is_dir():
        pytest.skip(f"reference data not found at {path}")
    return path
