"""What the tests of commands share."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def image(tmp_path):
    """A small photograph."""
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)).save(path)
    return path
