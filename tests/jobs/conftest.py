"""What the tests of jobs share."""

import numpy as np
import pytest
from PIL import Image

from tests.jobs.nights import picture


@pytest.fixture
def archive(tmp_path):
    """A folder with an archive of two images below it."""
    folder = tmp_path / "archive"
    (folder / "deep").mkdir(parents=True)
    picture(folder / "a.png", 40)
    picture(folder / "deep/b.png", 60)
    return tmp_path


@pytest.fixture
def image(tmp_path):
    """A small photograph."""
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)).save(path)
    return path
