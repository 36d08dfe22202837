"""What several test modules share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

# How long an example takes is the affair of the machine, which may be busy.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The reference data; tests that need it are skipped, visibly, where it is absent."""
    path = Path(
        os.environ.get("TIERSCALE_SHARED", Path(__file__).parents[1] / ".." / "shared")
    ).resolve()
    if not (path / "data").is_dir():
        pytest.skip(f"reference data not found at {path}")
    return path


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small tensors are slower on several threads, much so on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
