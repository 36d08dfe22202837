"""What several test modules share."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]

ROOT = Path(__file__).resolve().parents[1]

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


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Folders with an image, an empty one for outputs, and links out of it and inside it."""
    for name in ("out/sub", "elsewhere", "in"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "out/leads_out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "out/leads_in").symlink_to(tmp_path / "out/sub")
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "in/a.png")
    return tmp_path
